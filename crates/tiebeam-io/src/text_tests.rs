//! Reading lines by ranges, and writing them.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::compression::{Compression, Encoder};
use crate::fs::FileSystem;
use crate::fs::local::Local;
use crate::read::testing::{file, read_cut};

fn plain(text: &[u8], cuts: &[u64]) -> Vec<String> {
    let (_dir, path) = file("x.txt", text);
    let (good, bad) = read_cut(&TextReader::default(), &path, &Listing::default(), cuts).unwrap();
    assert_eq!(bad.len(), 0);
    good
}

/// What the lines are, by the plainest means.
fn lines_of(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
    // The last one has no `\n` behind it: its `\r` is its own, and if it is empty it isn't there.
    let last = text.rsplit('\n').next().unwrap_or_default().to_owned();
    lines.pop();
    if !last.is_empty() {
        lines.push(last);
    }
    lines
}

#[test]
fn lines_end_in_every_way() {
    assert_eq!(plain(b"", &[]), Vec::<String>::new());
    assert_eq!(plain(b"a\nb\r\nc", &[]), ["a", "b", "c"]);
    assert_eq!(plain(b"a\n", &[]), ["a"]);
    assert_eq!(plain(b"\n\r\n\na\n", &[]), ["", "", "", "a"], "empty lines are lines");
    assert_eq!(plain(b"a\rb\n\rc\r\r\n", &[]), ["a\rb", "\rc\r"], "a lone carriage return ends nothing");
    assert_eq!(plain(b"a\r", &[]), ["a\r"]);
    assert_eq!(plain("\u{feff}é\nü".as_bytes(), &[]), ["é", "ü"]);
    assert_eq!(plain("\u{feff}".as_bytes(), &[]), Vec::<String>::new());
}

#[test]
fn every_cut_gives_every_line_once() {
    let text = "ab\r\n\ncde\n\r\nf\r\n\n\nlast";
    let wanted = lines_of(text);
    for a in 0..=text.len() as u64 {
        for b in a..=text.len() as u64 {
            assert_eq!(plain(text.as_bytes(), &[a, b]), wanted, "cut at {a} and {b}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_at_any_cuts(text in "[ab\u{e9}\r\n]{0,60}", mut cuts in prop::collection::vec(0u64..80, 0..5)) {
        cuts.iter_mut().for_each(|cut| *cut = (*cut).min(text.len() as u64));
        cuts.sort();
        prop_assert_eq!(plain(text.as_bytes(), &cuts), lines_of(&text));
    }
}

#[test]
fn newlines_are_kept_if_asked() {
    let (_dir, path) = file("x", "a\r\n\né".as_bytes());
    let reader = TextReader { keep_newlines: true, skip_header_lines: 0 };
    assert_eq!(read_cut(&reader, &path, &Listing::default(), &[1]).unwrap().0, ["a\r\n", "\n", "é"]);
}

#[test]
fn header_lines_are_left_out_wherever_the_cuts_are() {
    let text = b"head 1\nhead 2\na\nb\n";
    let (_dir, path) = file("x", text);
    let reader = TextReader { keep_newlines: false, skip_header_lines: 2 };
    for cut in 0..=text.len() as u64 {
        assert_eq!(read_cut(&reader, &path, &Listing::default(), &[cut]).unwrap().0, ["a", "b"], "{cut}");
    }
    let reader = TextReader { keep_newlines: false, skip_header_lines: 9 };
    for cut in 0..=text.len() as u64 {
        assert_eq!(read_cut(&reader, &path, &Listing::default(), &[cut]).unwrap().0, Vec::<String>::new());
    }
}

#[test]
fn bad_lines_are_told_with_their_place() {
    let (_dir, path) = file("x", b"good\r\nba\xffd\r\n\nend\n");
    let reader = TextReader::default();
    let (good, bad) = read_cut(&reader, &path, &Listing::default(), &[]).unwrap();
    assert_eq!(good, ["good", "", "end"]);
    let (bytes, error) = &bad[0];
    assert_eq!((bad.len(), bytes), (1, &Bytes::from_static(b"ba\xffd\r\n")));
    assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidData, "TB0406"));
    assert_eq!(
        error.to_string(),
        format!("a line is not UTF-8: byte 0xff at its position 2, at {path}:2 (byte offset 6)")
    );
    let (_, bad) = read_cut(&reader, &path, &Listing::default(), &[3]).unwrap();
    assert_eq!(bad[0].1.place().unwrap().line, None, "the number is not known in the middle of a file");
    assert_eq!(bad[0].1.place().unwrap().offset, Some(6));
}

#[test]
fn lines_that_are_too_long_are_told_and_left_out() {
    let long = "x".repeat(1_000_000);
    let (_dir, path) = file("x", format!("a\n{long}\nb\n{long}").as_bytes());
    for (limit, wanted) in [(10, 10), (999_999, 999_999)] {
        let listing = Listing { max_record: limit, ..Listing::default() };
        let (good, bad) = read_cut(&TextReader::default(), &path, &listing, &[]).unwrap();
        assert_eq!(good, ["a", "b"], "{limit}");
        assert_eq!(bad.len(), 2);
        assert_eq!(bad[1].0.len(), wanted);
        assert_eq!(
            bad[1].1.to_string(),
            format!("a line is longer than {limit} bytes, at {path}:4 (byte offset 1000005)")
        );
    }
    let listing = Listing { max_record: 1_000_000, ..Listing::default() };
    let (good, _) = read_cut(&TextReader::default(), &path, &listing, &[]).unwrap();
    assert_eq!(good, ["a", &long, "b", &long]);
}

#[test]
fn much_text_goes_through_the_buffer() {
    let text: String = (0..200_000).map(|i| format!("line {i} {}\r\n", "x".repeat(i % 7))).collect();
    let cuts: Vec<u64> = (1..10).map(|i| text.len() as u64 * i / 10).collect();
    let lines = plain(text.as_bytes(), &cuts);
    assert_eq!(lines, lines_of(&text));
}

fn compressed(compression: Compression, texts: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x").to_str().unwrap().to_owned();
    let parts = texts.iter().map(|text| {
        let mut encoder = Encoder::new(Local.create(&path).unwrap(), compression).unwrap();
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap();
        std::fs::read(&path).unwrap()
    });
    parts.collect::<Vec<_>>().concat()
}

#[test]
fn compressed_files_of_several_members_are_read() {
    for (compression, name) in [(Compression::Gzip, "x.gz"), (Compression::Zstd, "x.zst")] {
        let bytes = compressed(compression, &["head\na\nb", "c\n", "", "d"]);
        let (_dir, path) = file(name, &bytes);
        let reader = TextReader { skip_header_lines: 1, ..TextReader::default() };
        let (good, _) = read_cut(&reader, &path, &Listing::default(), &[]).unwrap();
        assert_eq!(good, ["a", "bc", "d"]);
        let (_dir, odd) = file("odd.name", &bytes);
        let listing = Listing { compression, ..Listing::default() };
        assert_eq!(read_cut(&reader, &odd, &listing, &[]).unwrap().0, ["a", "bc", "d"]);
    }
}

#[test]
fn damaged_compressed_files_are_told_not_guessed() {
    let text: String = (0..50_000u32).map(|i| format!("{}\n", i.wrapping_mul(2_654_435_761))).collect();
    for (compression, name) in [(Compression::Gzip, "x.gz"), (Compression::Zstd, "x.zst")] {
        let whole = compressed(compression, &[&text]);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x40;
        let garbage = [&whole[..], b"garbage behind it"].concat();
        for (what, bytes) in [
            ("cut", &whole[..whole.len() - 3]),
            ("flipped", &flipped),
            ("garbage", &garbage),
            ("text", b"no"),
        ] {
            let (_dir, path) = file(name, bytes);
            let error = read_cut(&TextReader::default(), &path, &Listing::default(), &[]).unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::InvalidData, "TB0408"), "{name} {what}");
            assert_eq!(error.place().map(|place| &*place.file), Some(&*path));
        }
    }
}

#[test]
fn a_file_that_shrinks_is_noticed() {
    let (_dir, path) = file("x", b"a\nb\n");
    let range = FileRange { path: path.clone(), size: 10, start: 0, end: 10 };
    let mut emit = |_| Ok(());
    let mut fail = |_, error| Err(error);
    let mut records = Records::new(&mut emit, &mut fail);
    let error = TextReader::default().read(&range, &Listing::default(), &mut records).unwrap_err();
    assert_eq!(error.code(), "TB0409");
    assert_eq!(error.message(), format!("`{path}` became shorter while it was read: 6 bytes are missing"));
}

#[test]
fn elements_are_written_as_they_display() {
    let format = TextFormat { header: Some("# head".into()) };
    let mut out = RecordFormat::<f64>::header(&format, None).unwrap().unwrap();
    RecordFormat::write(&format, &mut (), &1.5f64, &mut out).unwrap();
    RecordFormat::write(&format, &mut (), &"é", &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "# head\n1.5\né\n");
}

#[test]
fn a_pipeline_is_built_without_looking_at_files() {
    let p = tiebeam_graph::Pipeline::new();
    let lines = p.apply(read("/no/such/*.txt"));
    let all = lines.apply(read_all().with_error_handling());
    all.records.apply(write("/no/such/out"));
    all.failed.map(|failed| failed.element);
    p.build().unwrap();
}
