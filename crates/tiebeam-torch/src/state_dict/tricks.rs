//! The tricks of hostile pickles and archives, each a test of its own: what it is refused by.

use super::tests::zips::{archive, deflated, zip};
use super::tests::{refusal, with_pickle};

/// The message of the refusal of an archive with that pickle.
fn of_pickle(pickle: &[u8]) -> String {
    refusal(with_pickle(pickle)).message().to_owned()
}

/// Tests that a pickle is refused with a message that begins so.
macro_rules! refused {
    ($($name:ident: $pickle:expr => $begins:literal;)*) => {
        $(
            #[test]
            fn $name() {
                let message = of_pickle(&$pickle[..]);
                assert!(message.starts_with($begins), "{message}");
            }
        )*
    };
}

refused! {
    global_os_system: b"\x80\x02cos\nsystem\n." => "refused: the pickle calls os.system";
    global_posix_system: b"\x80\x02cposix\nsystem\n." => "refused: the pickle calls posix.system";
    global_nt_system: b"\x80\x02cnt\nsystem\n." => "refused: the pickle calls nt.system";
    global_subprocess: b"\x80\x02csubprocess\nPopen\n." => "refused: the pickle calls subprocess.Popen";
    global_eval: b"\x80\x02c__builtin__\neval\n." => "refused: the pickle calls __builtin__.eval";
    global_exec: b"\x80\x02cbuiltins\nexec\n." => "refused: the pickle calls builtins.exec";
    global_getattr: b"\x80\x02cbuiltins\ngetattr\n." => "refused: the pickle calls builtins.getattr";
    global_import: b"\x80\x02cbuiltins\n__import__\n." => "refused: the pickle calls builtins.__import__";
    global_open: b"\x80\x02cio\nopen\n." => "refused: the pickle calls io.open";
    global_runpy: b"\x80\x02crunpy\n_run_code\n." => "refused: the pickle calls runpy._run_code";
    global_pty: b"\x80\x02cpty\nspawn\n." => "refused: the pickle calls pty.spawn";
    global_socket: b"\x80\x02csocket\ncreate_connection\n." => "refused: the pickle calls socket.create_connection";
    global_pickle_itself: b"\x80\x02c_pickle\nloads\n." => "refused: the pickle calls _pickle.loads";
    global_torch_load: b"\x80\x02ctorch\nload\n." => "refused: the pickle calls torch.load";
    global_torch_hub: b"\x80\x02ctorch.hub\nload\n." => "refused: the pickle calls torch.hub.load";
    global_numpy_reconstruct: b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n."
        => "refused: the pickle calls numpy.core.multiarray._reconstruct";
    global_by_attribute_of_an_allowed_one: b"\x80\x04\x8c\x05torch\x8c\x11Tensor.__reduce__\x93."
        => "refused: the pickle calls torch.Tensor.__reduce__";
    global_with_dots_in_its_name: b"\x80\x04\x8c\x0bcollections\x8c\x1cOrderedDict.__init__.__globa\x93."
        => "refused: the pickle calls collections.OrderedDict.__init__.__globa";
    global_of_an_empty_name: b"\x80\x02c\n\n." => "refused: the pickle calls .";
    global_with_control_characters: b"\x80\x02cos\x1b[2J\nsystem\n." => "refused: the pickle calls os[2J.system";
    global_without_an_end: [&b"\x80\x02c"[..], &[b'a'; 5000]].concat() => "the pickle names a global without an end";
    stack_global_os_system: b"\x80\x04\x8c\x02os\x8c\x06system\x93." => "refused: the pickle calls os.system";
    stack_global_of_memoized_texts: b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93."
        => "refused: the pickle calls os.system";
    stack_global_of_numbers: b"\x80\x04K\x01K\x02\x93." => "the pickle names a global by what is not text";
    reduce_of_a_refused_global: b"\x80\x02cos\nsystem\n(X\x02\0\0\0lstR." => "refused: the pickle calls os.system";
    reduce_of_what_is_no_function: b"\x80\x02X\x02\0\0\0os)R." => "the pickle calls what is not a function";
    reduce_of_a_storage_class: b"\x80\x02ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R."
        => "the pickle calls a type that can't be made here";
    reduce_of_a_rebuilder_by_itself: b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00N(NNNttR."
        => "a tensor of a class is rebuilt from itself";
    build_of_a_number: b"\x80\x02K\x01}b." => "the pickle sets the state of what has none";
    build_of_a_global: b"\x80\x02ccollections\nOrderedDict\n}b." => "the pickle sets the state of what has none";
    build_of_a_tuple: b"\x80\x02)}b." => "the pickle sets the state of what has none";
    inst_os_system: b"\x80\x02(X\x02\0\0\0lsios\nsystem\n." => "refused: the pickle calls os.system";
    inst_of_an_allowed_class: b"\x80\x02(icollections\nOrderedDict\n." => "refused: the pickle calls collections.OrderedDict";
    obj: b"\x80\x02(ccollections\nOrderedDict\no." => "refused: the pickle uses OBJ (it calls a class)";
    newobj_of_a_refused_class: b"\x80\x02csubprocess\nPopen\n)\x81." => "refused: the pickle calls subprocess.Popen";
    newobj_ex: b"\x80\x04ccollections\nOrderedDict\n)}\x92." => "refused: the pickle uses NEWOBJ_EX";
    ext1: b"\x80\x02\x82\x01." => "refused: the pickle uses EXT1";
    ext2: b"\x80\x02\x83\x01\x00." => "refused: the pickle uses EXT2";
    ext4: b"\x80\x02\x84\x01\x00\x00\x00." => "refused: the pickle uses EXT4";
    persid: b"\x80\x02Pstorage\n." => "refused: the pickle uses PERSID";
    binpersid_of_a_path: b"\x80\x02X\x0b\0\0\0/etc/passwdQ." => "a persistent id is not ('storage'";
    binpersid_of_a_whole_module: b"\x80\x02(X\x06\0\0\0moduletQ." => "refused: the file holds a whole model";
    next_buffer: b"\x80\x05\x97." => "refused: the pickle uses NEXT_BUFFER";
    readonly_buffer: b"\x80\x05N\x98." => "refused: the pickle uses READONLY_BUFFER";
    text_int: b"\x80\x02I1\n." => "refused: the pickle uses INT";
    text_long: b"\x80\x02L1L\n." => "refused: the pickle uses LONG";
    text_float: b"\x80\x02F1e999\n." => "refused: the pickle uses FLOAT";
    text_string_to_be_evaluated: b"\x80\x02S'\\x41'\n." => "refused: the pickle uses STRING";
    text_unicode: b"\x80\x02V\\u0041\n." => "refused: the pickle uses UNICODE";
    text_put: b"\x80\x02Np0\n." => "refused: the pickle uses PUT";
    text_get: b"\x80\x02g0\n." => "refused: the pickle uses GET";
    no_opcode: b"\x80\x02\xfe." => "0xfe is no opcode of pickles";
    protocol_of_the_future: b"\x80\x06N." => "pickle protocol 6 is not supported";
    huge_frame: b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN." => "the pickle is cut off: a frame of 9223372036854775807";
    huge_long4: b"\x80\x02\x8b\xff\xff\xff\x7fN." => "the pickle is cut off: 2147483647 bytes wanted";
    negative_long4: b"\x80\x02\x8b\xff\xff\xff\xffN." => "the pickle is cut off: 4294967295 bytes wanted";
    huge_binunicode8: b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff." => "the pickle is cut off: 18446744073709551615";
    huge_binbytes8: b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f." => "the pickle is cut off: 9223372036854775807";
    huge_bytearray8: b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f." => "the pickle is cut off: 9223372036854775807";
    huge_binstring: b"\x80\x02T\xff\xff\xff\x7f." => "the pickle is cut off: 2147483647 bytes wanted";
    // CPython doubles its memo's array up to the index: gigabytes for five bytes. Here it is a key like another.
    huge_binput: b"\x80\x02Nr\xff\xff\xff\x7f." => "m.pth holds a single value";
    recall_of_nothing: b"\x80\x02j\xff\xff\xff\x7f." => "the pickle recalls value 2147483647, which it never kept";
    pop_of_nothing: b"\x80\x020." => "the pickle takes a value where there is none";
    pop_below_a_mark: b"\x80\x02N(\x85." => "the pickle takes a value where there is none";
    mark_of_nothing: b"\x80\x02Nt." => "the pickle takes a mark where there is none";
    append_to_a_number: b"\x80\x02K\x01K\x02a." => "the pickle appends to what is not a list";
    item_of_a_number: b"\x80\x02K\x01K\x02K\x03s." => "the pickle sets items of what is not a dict";
    key_without_a_value: b"\x80\x02}(K\x01u." => "the pickle sets a key without a value";
    end_of_nothing: b"\x80\x02." => "the pickle takes a value where there is none";
    no_end: b"\x80\x02N" => "the pickle is cut off";
    text_that_is_no_text: b"\x80\x02X\x02\0\0\0\xff\xfe." => "a text in the pickle is not UTF-8";
}

#[test]
fn memo_bombs_end_in_proportion() {
    // A million values kept, all of them the same one.
    let pickle = [&b"\x80\x04N"[..], &vec![0x94; 1_000_000], b"."].concat();
    assert_eq!(of_pickle(&pickle), "m.pth holds a single value, not a state dict");
}

#[test]
fn billion_laughs_of_tuples_end() {
    // A tuple of two of the one before, a hundred deep: 2^100 leaves for whoever walks it.
    let mut pickle = b"\x80\x02)q\x000".to_vec();
    pickle.extend([b"h\x00h\x00\x86q\x000".as_slice(); 100].concat());
    assert_eq!(of_pickle(&[&pickle[..], b"h\x00."].concat()), "m.pth holds a list, not a state dict");
    let value = [&pickle[..], b"}X\x01\0\0\0wh\x00s."].concat();
    assert_eq!(of_pickle(&value), "m.pth holds a dict without tensors, not a state dict");
    let persistent_id = [&pickle[..], b"h\x00Q."].concat();
    assert!(of_pickle(&persistent_id).starts_with("a persistent id is not ('storage'"));
}

#[test]
fn billion_laughs_of_lists_end() {
    let mut pickle = b"\x80\x02]q\x00".to_vec();
    pickle.extend([b"](h\x00h\x00eq\x00".as_slice(); 100].concat());
    pickle.extend(b"K\x01a.");
    assert_eq!(of_pickle(&pickle), "m.pth holds a list, not a state dict");
}

#[test]
fn a_list_within_itself_ends() {
    assert_eq!(of_pickle(b"\x80\x02]q\x00h\x00a."), "m.pth holds a list, not a state dict");
}

#[test]
fn marks_without_end_are_counted() {
    let pickle = [&b"\x80\x02"[..], &vec![b'('; 4_000_001]].concat();
    assert_eq!(of_pickle(&pickle), "the pickle sets too many marks");
}

#[test]
fn values_without_end_are_counted() {
    let pickle = [&b"\x80\x02"[..], &vec![b'N'; 4_000_001]].concat();
    assert_eq!(of_pickle(&pickle), "the pickle stacks more than 4000000 values");
    let pickle = [&b"\x80\x02"[..], &b"}0".repeat(4_000_001)].concat();
    assert_eq!(of_pickle(&pickle), "the pickle makes more than 4000000 values");
}

#[test]
fn zip_bomb_of_zeros() {
    let bomb = deflated(&[("m/data.pkl", &vec![b'N'; 1 << 24])]);
    assert!(bomb.len() < 1 << 15);
    let message = refusal(bomb).message().to_owned();
    assert!(
        message.contains("inflates to 16777216 bytes: more than 64 times the file is not read"),
        "{message}"
    );
}

#[test]
fn zip_bomb_that_lies_about_its_size() {
    let mut bomb = deflated(&[("m/data.pkl", &vec![b'N'; 1 << 24])]);
    let sizes = (0..bomb.len() - 4).filter(|at| bomb[*at..*at + 4] == (1u32 << 24).to_le_bytes());
    for at in sizes.collect::<Vec<_>>() {
        bomb[at..at + 4].copy_from_slice(&100u32.to_le_bytes());
    }
    let message = refusal(bomb).message().to_owned();
    assert!(message.ends_with("does not inflate to the 100 bytes that it says"), "{message}");
}

#[test]
fn zip_bomb_of_records_that_share_their_bytes() {
    // Each record within the limit, all of them far beyond it.
    let tensor = b"\x80\x02}.";
    let zeros = vec![0u8; 1 << 16];
    let records: Vec<(String, &[u8])> = (0..9).map(|i| (format!("m/data/{i}"), &zeros[..])).collect();
    let mut all: Vec<(&str, &[u8])> = vec![("m/data.pkl", tensor)];
    all.extend(records.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
    let file = deflated(&all);
    let mut archive = super::Archive::open(file.into(), "m.pth").unwrap();
    let read: Vec<_> = records.iter().map(|(name, _)| archive.read(name)).collect();
    assert!(read[0].is_ok() && read[8].is_err());
}

#[test]
fn zip_with_a_path_that_leads_out() {
    for name in
        ["../m/data.pkl", "m/../../data.pkl", "/m/data.pkl", "m\\..\\data.pkl", "m/data.pkl\0.txt", ".."]
    {
        let message = refusal(archive(&[("m/data.pkl", b"\x80\x02}."), (name, b"x")])).message().to_owned();
        assert!(message.ends_with("leads out of the archive"), "{name}: {message}");
    }
}

#[test]
fn zip_with_two_records_of_a_name() {
    let message = refusal(archive(&[("m/data.pkl", b"\x80\x02}."), ("m/data.pkl", b"\x80\x02N.")]));
    assert!(message.message().ends_with("it has two records `m/data.pkl`"), "{message}");
}

#[test]
fn zip_with_a_symlink() {
    let mut file = archive(&[("m/data.pkl", b"/etc/passwd")]);
    let entry = file.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    file[entry + 38..entry + 42].copy_from_slice(&0o120_777_u32.rotate_left(16).to_le_bytes());
    let message = refusal(file).message().to_owned();
    assert!(message.ends_with("its record `m/data.pkl` is a link"), "{message}");
}

#[test]
fn zip_that_is_encrypted() {
    let mut file = archive(&[("m/data.pkl", b"\x80\x02}.")]);
    let entry = file.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
    file[entry + 8] |= 1;
    assert_eq!(refusal(file).message(), "record `m/data.pkl` of the zip archive is encrypted");
}

#[test]
fn zip_of_another_method() {
    let file = zip(&[("m/data.pkl", b"\x80\x02}.")], |bytes| (12, bytes.to_vec()));
    assert!(refusal(file).message().contains("is compressed by method 12"));
}
