//! Behaviour of the reader: real files of torch's, and hostile ones.

use std::path::PathBuf;

use bytes::Bytes;
use expect_test::{Expect, expect};
use tiebeam_core::error::{Error, ErrorKind};

use super::{ScalarType, StateDict};

#[path = "../../tests/support/zips.rs"]
pub(super) mod zips;

use zips::{archive, deflated};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

pub(super) fn refusal(data: impl Into<Bytes>) -> Error {
    let error = StateDict::from_bytes("m.pth", data).expect_err("must be refused");
    assert_eq!(error.kind(), ErrorKind::Model, "{error:?}");
    assert!(error.code().starts_with("TB036"), "{error:?}");
    error
}

fn check(data: impl Into<Bytes>, expected: Expect) {
    expected.assert_eq(&format!("{:?}", refusal(data)));
}

pub(super) fn with_pickle(pickle: &[u8]) -> Vec<u8> {
    archive(&[("m/data.pkl", pickle), ("m/data/0", &[0u8; 16])])
}

/// The pickle of `{"w": tensor}` with that storage type, element count, offset, shape and strides.
fn tensor_pickle(class: &str, numel: u32, offset: u32, shape: &[u32], strides: &[u32]) -> Vec<u8> {
    let int = |n: &u32| [&b"\x8a\x05"[..], &n.to_le_bytes(), b"\x00"].concat();
    let ints = |ns: &[u32]| [&b"("[..], &ns.iter().flat_map(&int).collect::<Vec<_>>(), b"t"].concat();
    [
        &b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"[..],
        format!("ctorch\n{class}\nX\x01\0\0\00X\x03\0\0\0cpu").as_bytes(),
        &int(&numel),
        b"tQ",
        &int(&offset),
        &ints(shape),
        &ints(strides),
        b"\x89}tRs.",
    ]
    .concat()
}

#[test]
fn reads_the_same_model_from_every_format() {
    for name in ["five.pth", "five_pre16.pth", "five.safetensors", "five_checkpoint.pth"] {
        let weights = StateDict::open(fixture(name)).unwrap();
        let names: Vec<&str> = weights.iter().map(|(name, _)| name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["linear.bias", "linear.weight"], "{name}");
        let weight = weights.get("linear.weight").unwrap();
        assert_eq!((weight.shape(), weight.dtype()), (&[1, 1][..], ScalarType::F32), "{name}");
        assert_eq!(weight.to_f32(), [5.0], "{name}");
        assert_eq!(weights.get("linear.bias").unwrap().to_f32(), [0.0], "{name}");
        assert_eq!(weights.file_bytes(), bytes(name).len() as u64);
        assert_eq!(weights.sha256().len(), 64);
    }
}

#[test]
fn reads_odd_layouts_and_types() {
    let whole: Vec<f32> = (0..24).map(|i| i as f32).collect();
    for name in ["layouts.pth", "layouts_pre16.pth"] {
        let weights = StateDict::open(fixture(name)).unwrap();
        let numbers = |name: &str| weights.get(name).unwrap().to_f32();
        let shape = |name: &str| weights.get(name).unwrap().shape().to_vec();
        assert_eq!((shape("plain"), numbers("plain")), (vec![4, 6], whole.clone()));
        let transposed: Vec<f32> = (0..6).flat_map(|c| (0..4).map(move |r| (r * 6 + c) as f32)).collect();
        assert_eq!((shape("transposed"), numbers("transposed")), (vec![6, 4], transposed));
        let columns: Vec<f32> = (0..4).flat_map(|r| [1, 3, 5].map(|c| (r * 6 + c) as f32)).collect();
        assert_eq!((shape("columns"), numbers("columns")), (vec![4, 3], columns));
        assert_eq!((shape("tail"), numbers("tail")), (vec![4], whole[20..].to_vec()));
        assert_eq!((shape("scalar"), numbers("scalar")), (vec![], vec![2.5]));
        assert_eq!((shape("none"), numbers("none")), (vec![0, 3], vec![]));
        assert_eq!(numbers("parameter"), [1.0, 2.0]);
        assert_eq!(numbers("float16"), [1.5, -65504.0, 5.960_464_5e-8, f32::INFINITY]);
        assert_eq!(numbers("bfloat16"), [1.5, -3.004_055_3e38]);
        let tensor = |name: &str| weights.get(name).unwrap().to_tensor().unwrap();
        assert_eq!(tensor("float64").as_slice::<f64>().unwrap(), [0.1, 1e300]);
        assert_eq!(tensor("int64").as_slice::<i64>().unwrap(), [-(1 << 62), 7]);
        assert_eq!(tensor("int32").as_slice::<i32>().unwrap(), [-5, i32::MAX]);
        assert_eq!(tensor("int16").as_slice::<i32>().unwrap(), [-32768, 9]);
        assert_eq!(tensor("int8").as_slice::<i8>().unwrap(), [-128, 127]);
        assert_eq!(tensor("uint8").as_slice::<u8>().unwrap(), [0, 255]);
        assert_eq!(tensor("bool").as_slice::<bool>().unwrap(), [true, false, true]);
        let beside: Vec<_> = weights.metadata().collect();
        assert_eq!(beside, [("epoch", "3"), ("rate", "0.25"), ("note", "seen"), ("nothing", "None")]);
    }
}

#[test]
fn every_half_is_what_ieee_says() {
    // Against the definition, for all 65,536 of them.
    let storage: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let tensor = super::StateTensor::contiguous(ScalarType::F16, &[65536], storage.into()).unwrap();
    for (bits, x) in (0..=u16::MAX).zip(tensor.to_f32()) {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        let wanted = if bits >> 15 == 1 { -magnitude } else { magnitude };
        assert!(f64::from(x) == wanted || (x.is_nan() && wanted.is_nan()), "{bits:04x}: {x} != {wanted}");
    }
}

#[test]
fn deflated_records_and_zip_comments_are_read() {
    let pickle = tensor_pickle("FloatStorage", 4, 0, &[2, 2], &[2, 1]);
    let numbers: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut file = deflated(&[("m/data.pkl", &pickle), ("m/data/0", &numbers)]);
    assert_eq!(
        StateDict::from_bytes("m", file.clone()).unwrap().get("w").unwrap().to_f32(),
        [1.0, 2.0, 3.0, 4.0]
    );
    let n = file.len();
    file[n - 2] = 5;
    file.extend(b"hello");
    assert_eq!(StateDict::from_bytes("m", file).unwrap().len(), 1);
}

#[test]
fn untyped_storages_have_the_tensors_own_type() {
    let pickle = |dtype: &str, numel: u8| {
        [
            &b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v3\n((X\x07\0\0\0storage"[..],
            b"ctorch.storage\nUntypedStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK",
            &[numel],
            b"tQK\x01K\x02\x85K\x01\x85\x89}",
            dtype.as_bytes(),
            b"tRs.",
        ]
        .concat()
    };
    let numbers: Vec<u8> = [7i16, -1, 300].iter().flat_map(|n| n.to_le_bytes()).collect();
    let file = |pickle: &[u8]| archive(&[("m/data.pkl", pickle), ("m/data/0", &numbers)]);
    let weights = StateDict::from_bytes("m", file(&pickle("ctorch\nint16\n", 6))).unwrap();
    assert_eq!(weights.get("w").unwrap().to_f32(), [-1.0, 300.0]);
    assert_eq!(refusal(file(&pickle("ctorch\nint16\n", 4))).code(), "TB0366");
    assert_eq!(refusal(file(&pickle("N", 6))).message(), "a tensor is rebuilt without a dtype");
}

#[test]
fn big_endian_files_are_refused() {
    let pickle = tensor_pickle("FloatStorage", 4, 0, &[4], &[1]);
    check(
        archive(&[("m/data.pkl", &pickle), ("m/byteorder", b"big"), ("m/data/0", &[0; 16])]),
        expect![[r#"
            error[TB0364]: m.pth was written by a big-endian machine, which is not read
              help: load it with torch on any machine and save it again"#]],
    );
    let mut legacy = bytes("five_pre16.pth");
    let key = b"little_endian";
    let at = legacy.windows(key.len()).position(|w| w == key).unwrap() + key.len();
    let at = at + legacy[at..].iter().position(|byte| *byte == 0x88).unwrap();
    legacy[at] = 0x89;
    assert_eq!(refusal(legacy).code(), "TB0364");
}

#[test]
fn refuses_code_by_name() {
    check(
        with_pickle(b"\x80\x02}(X\x01\0\0\0wcos\nsystem\nX\x06\0\0\0rm -rf\x85Rs."),
        expect![[r#"
            error[TB0363]: refused: the pickle calls os.system, at m.pth (byte offset 50)
              help: a state dict holds tensors only; save one with torch.save(model.state_dict(), path) from a source that you trust"#]],
    );
    for pickle in [
        &b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93."[..],
        b"\x80\x02(ibuiltins\neval\n.",
        b"\x80\x02cbuiltins\neval\n.",
    ] {
        assert_eq!(refusal(with_pickle(pickle)).message(), "refused: the pickle calls builtins.eval");
    }
    // Neighbours of what is allowed are not.
    for (global, message) in [
        ("ctorch\nload\n.", "refused: the pickle calls torch.load"),
        ("ctorch._utils\n_rebuild_qtensor\n.", "refused: the pickle calls torch._utils._rebuild_qtensor"),
        ("ctorch\nuint16\n.", "refused: tensors of torch.uint16 are not supported"),
        ("ccollections\nCounter\n.", "refused: the pickle calls collections.Counter"),
        ("ctorch\nComplexFloatStorage\n.", "refused: tensors of torch.ComplexFloatStorage are not supported"),
    ] {
        assert_eq!(refusal(with_pickle(format!("\x02{global}").as_bytes()).to_vec()).code(), "TB0362");
        let pickle = [b"\x80\x02", global.as_bytes()].concat();
        assert_eq!(refusal(with_pickle(&pickle)).message(), message);
    }
    // A pickle that torch.save did not write is refused by what it calls, too.
    assert_eq!(refusal(&b"\x80\x04\x8c\x02os\x8c\x06system\x93."[..]).code(), "TB0363");
}

#[test]
fn whole_models_are_refused_with_the_cure() {
    check(
        bytes("five_whole_model.pth"),
        expect![[r#"
            error[TB0365]: refused: the file holds a whole model (__main__.LinearRegression), not a state dict, at m.pth (byte offset 66)
              help: save the weights alone: torch.save(model.state_dict(), path)"#]],
    );
    check(
        bytes("five_torchscript.pt"),
        expect![[r#"
            error[TB0365]: refused: the file holds a whole model (m.pth is a TorchScript archive), not a state dict
              help: save the weights alone: torch.save(model.state_dict(), path)"#]],
    );
}

#[test]
fn foreign_files_are_named_for_what_they_are() {
    let says = |data: &[u8], wanted: &str| {
        let message = refusal(data.to_vec()).message().to_owned();
        assert_eq!(message, format!("model file m.pth is not a state dict: it is {wanted}"));
    };
    says(b"", "empty");
    says(b"\n<!DOCTYPE html><html>404</html>", "an HTML or XML page");
    says(&bytes("five.onnx"), "an ONNX model");
    says(b"label,value\n1,2\n", "text that begins with \"label,value\"");
    says(b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not the file itself");
    says(b"\x1f\x8b\x08\x00\x00\x00", "compressed with gzip");
    says(b"\x89HDF\r\n\x1a\n\x00", "an HDF5 file (Keras?)");
    says(b"GGUF\x03\x00\x00\x00", "a GGUF model");
    says(b"\x1c\x00\x00\x00TFL3\x14\x00", "a TensorFlow Lite model");
    says(b"\x80\x04K\x05.", "a pickle that torch.save did not write, or a cut off file");
    says(&archive(&[("META-INF/MANIFEST.MF", b"x")]), "a Java archive");
    says(&archive(&[("a.txt", b"x")]), "a zip archive without data.pkl");
    assert_eq!(
        refusal(&b"\x00\x01\x02\x03"[..]).message(),
        "model file m.pth is not a state dict: its format is unknown (first bytes 00 01 02 03)"
    );

    let missing = StateDict::open("/nowhere/five.pth").unwrap_err();
    assert_eq!(missing.to_string(), "model file /nowhere/five.pth does not exist");
    let device = StateDict::open("/dev/zero").unwrap_err();
    assert_eq!(device.to_string(), "model file /dev/zero is not a regular file");
    let directory = StateDict::open(env!("CARGO_MANIFEST_DIR")).unwrap_err();
    assert!(directory.to_string().ends_with("is a directory, not a state dict"), "{directory}");
    assert_eq!((missing.kind(), directory.kind()), (ErrorKind::Model, ErrorKind::Model));
}

#[test]
fn what_is_not_a_state_dict_inside_is_named() {
    let says = |pickle: &[u8], wanted: &str| {
        assert_eq!(refusal(with_pickle(pickle)).message(), format!("m.pth holds {wanted}, not a state dict"));
    };
    says(b"\x80\x02}.", "an empty dict");
    says(b"\x80\x02]K\x01a.", "a list");
    says(b"\x80\x02K\x05.", "a single value");
    says(b"\x80\x02}X\x01\0\0\0aK\x01s.", "a dict without tensors");
}

#[test]
fn lies_about_sizes_are_refused() {
    let refuses = |pickle: Vec<u8>, wanted: &str| {
        let error = refusal(with_pickle(&pickle));
        assert_eq!(
            (error.code(), error.message()),
            ("TB0366", format!("tensor `w` can't be read: {wanted}").as_str())
        );
    };
    assert!(
        StateDict::from_bytes("m", with_pickle(&tensor_pickle("FloatStorage", 4, 0, &[2, 2], &[1, 2])))
            .is_ok()
    );
    refuses(
        tensor_pickle("FloatStorage", 1 << 30, 0, &[2], &[1]),
        "its storage `0` says 1073741824 elements and has 16 bytes",
    );
    refuses(
        tensor_pickle("FloatStorage", 4, 3, &[2], &[1]),
        "its shape [2] and strides [1] reach past the 4 elements of its storage",
    );
    refuses(
        tensor_pickle("FloatStorage", 4, 0, &[1 << 30], &[0]),
        "its shape [1073741824] has more elements than the 4 of its storage; save it with .contiguous()",
    );
    refuses(
        tensor_pickle("FloatStorage", 4, 0, &[u32::MAX, u32::MAX, u32::MAX], &[0, 0, 0]),
        "its shape [4294967295, 4294967295, 4294967295] and strides [0, 0, 0] reach past the 4 elements of its storage",
    );
    refuses(
        tensor_pickle("FloatStorage", 4, 0, &[2, 2], &[u32::MAX, u32::MAX]),
        "its shape [2, 2] and strides [4294967295, 4294967295] reach past the 4 elements of its storage",
    );
    let missing = archive(&[("m/data.pkl", &tensor_pickle("FloatStorage", 4, 0, &[4], &[1]))]);
    assert_eq!(refusal(missing).message(), "tensor `w` can't be read: its storage `0` is not in the file");
}

#[test]
fn bombs_do_not_go_off() {
    // 64 MiB of zeros in 64 KiB.
    let pickle = tensor_pickle("FloatStorage", 1 << 24, 0, &[1 << 24], &[1]);
    let bomb = deflated(&[("m/data.pkl", &pickle), ("m/data/0", &vec![0; 1 << 26])]);
    assert!(bomb.len() < 1 << 17);
    assert!(refusal(bomb).message().contains("inflates to 67108864 bytes: more than 64 times the file"));
    // A list copied into dicts again and again.
    let mut copies = b"\x80\x02](".to_vec();
    copies.extend([b")".as_slice(); 100].concat());
    copies.extend(b"eq\x000ccollections\nOrderedDict\nq\x010");
    copies.extend([b"h\x01h\x00\x85R0".as_slice(); 100].concat());
    copies.extend(b"N.");
    assert_eq!(refusal(with_pickle(&copies)).code(), "TB0362");
    // A dict within itself, and one that is two of itself, sixty deep.
    let cycle = b"\x80\x02}q\x00X\x05\0\0\0modelh\x00s.";
    assert_eq!(refusal(with_pickle(cycle)).code(), "TB0368");
    let mut wide = b"\x80\x02}q\x00".to_vec();
    for _ in 0..60 {
        wide.extend(b"}(X\x05\0\0\0modelh\x00X\x0a\0\0\0state_dicth\x00X\x03\0\0\0neth\x00uq\x00");
    }
    wide.push(b'.');
    assert_eq!(refusal(with_pickle(&wide)).code(), "TB0368");
    // Lengths of 2^63 and more.
    for pickle in [
        &b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff."[..],
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\xff.",
    ] {
        assert!(refusal(with_pickle(pickle)).message().starts_with("the pickle is cut off"));
    }
    let header = [&u64::MAX.to_le_bytes()[..5], &[0, 0, 0], b"{}"].concat();
    assert_eq!(refusal(header).code(), "TB0361");
}

#[test]
fn damaged_records_are_found_by_their_checksum() {
    let mut file = bytes("five.pth");
    let at = file.windows(4).position(|w| w == 5f32.to_le_bytes()).unwrap();
    file[at] ^= 1;
    let message = refusal(file).message().to_owned();
    assert!(message.contains("is damaged: its checksum is"), "{message}");
}

#[test]
fn safetensors_are_held_to_their_format() {
    let file = |header: &str, body: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; body]].concat()
    };
    let good = r#"{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let weights = StateDict::from_bytes("m", file(good, 8)).unwrap();
    assert_eq!(weights.metadata().collect::<Vec<_>>(), [("format", "pt")]);
    let says = |header: &str, body: usize, code: &str, part: &str| {
        let error = refusal(file(header, body));
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(part), "{error}");
    };
    says(good, 9, "TB0361", "1 bytes belong to no tensor");
    says(good, 7, "TB0361", "do not follow those before it in 7 bytes");
    says(&good.replace("[0,8]", "[4,8]"), 8, "TB0361", "the bytes 4 to 8 of tensor `w`");
    says(&good.replace("[2]", "[3]"), 8, "TB0366", "its shape [3] of F32 does not take 8 bytes");
    says(&good.replace("F32", "F8_E4M3"), 8, "TB0366", "its type F8_E4M3 is not supported");
    says("{}", 0, "TB0368", "holds no tensors");
    says("{,}", 0, "TB0361", "its header is not what it should be");
}

#[test]
fn names_lose_the_prefix_that_all_of_them_have() {
    let header = |names: [&str; 2]| {
        let entry = |name: &str, from: usize| {
            format!(r#""{name}":{{"dtype":"F32","shape":[],"data_offsets":[{from},{}]}}"#, from + 4)
        };
        let header = format!("{{{},{}}}", entry(names[0], 0), entry(names[1], 4));
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat()
    };
    let names = |names| {
        let weights = StateDict::from_bytes("m", header(names)).unwrap();
        weights.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(["module.a", "module.b"]), ["a", "b"]);
    assert_eq!(names(["_orig_mod.module.a", "_orig_mod.module.b"]), ["a", "b"]);
    assert_eq!(names(["module.a", "b"]), ["module.a", "b"]);
}

#[test]
fn another_file_than_the_wanted_one_is_refused() {
    let weights = StateDict::open(fixture("five.pth")).unwrap();
    let sha256 = weights.sha256().to_uppercase();
    let weights = weights.verified(&sha256).unwrap();
    let error = weights.verified(&"0".repeat(64)).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Model, "TB0367"));
}

/// Whatever a file holds, reading it ends with a state dict or with an error of kind Model.
fn survives(data: Vec<u8>, what: &dyn std::fmt::Debug) {
    match StateDict::from_bytes("m.pth", data) {
        Ok(weights) => {
            for (_, tensor) in weights.iter() {
                assert_eq!(tensor.to_f32().len(), tensor.len(), "{what:?}");
                assert!(tensor.to_tensor().is_ok(), "{what:?}");
            }
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Model, "{what:?}: {error:?}");
            assert!(error.code().starts_with("TB036"), "{what:?}: {error:?}");
        }
    }
}

const FILES: [&str; 6] = [
    "five.pth",
    "five_pre16.pth",
    "five.safetensors",
    "layouts.pth",
    "layouts_pre16.pth",
    "five_whole_model.pth",
];

#[test]
fn every_cut_off_file_is_an_error() {
    for name in FILES {
        let whole = bytes(name);
        for n in 0..whole.len() {
            refusal(whole[..n].to_vec());
        }
    }
}

/// A small generator of numbers: the same mutants every time.
struct Seed(u64);

impl Seed {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn mutate(data: &mut Vec<u8>, seed: &mut Seed) {
    for _ in 0..=seed.below(4) {
        let at = seed.below(data.len());
        match seed.below(7) {
            0 => data[at] ^= 1 << seed.below(8),
            1 => data[at] = seed.below(256) as u8,
            2 => data[at] = [0, 0xff, 0x7f, b'(', b't', b'R', b'Q', b'q', b'h', b'j'][seed.below(10)],
            3 => data.truncate(at.max(1)),
            4 => data.insert(at, seed.below(256) as u8),
            5 => {
                let until = (at + 1 + seed.below(16)).min(data.len());
                let piece = data[at..until].to_vec();
                data.splice(at..at, piece);
            }
            _ => {
                let until = (at + 4).min(data.len());
                data[at..until].fill([0, 0xff][seed.below(2)]);
            }
        }
    }
}

#[test]
fn mutants_of_whole_files_do_no_harm() {
    let mut seed = Seed(0x7164_3af0_55c1_9e2d);
    for name in FILES {
        let whole = bytes(name);
        for round in 0..4000 {
            let mut data = whole.clone();
            mutate(&mut data, &mut seed);
            survives(data, &(name, round));
        }
    }
}

#[test]
fn mutants_of_pickles_behind_right_checksums_do_no_harm() {
    let mut seed = Seed(0x1357_9bdf_0246_8ace);
    let pickles = ["five.pth", "layouts.pth", "five_whole_model.pth"].map(|name| {
        let file = Bytes::from(bytes(name));
        let mut archive = super::Archive::open(file, name).unwrap();
        let record = archive.names().find(|name| name.ends_with("/data.pkl")).unwrap().to_owned();
        archive.read(&record).unwrap().unwrap().0
    });
    for round in 0..12_000 {
        let mut pickle = pickles[round % 3].to_vec();
        mutate(&mut pickle, &mut seed);
        let storage = [0x3f; 256];
        let records: Vec<(String, &[u8])> =
            (0..24).map(|i| (format!("m/data/{i}"), &storage[..8 * (i + 1)])).collect();
        let mut all: Vec<(&str, &[u8])> = vec![("m/data.pkl", &pickle)];
        all.extend(records.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
        survives(archive(&all), &round);
    }
}
