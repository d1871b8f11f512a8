//! Mutated images, csv and JSON lines: each is read, or refused as bad data; none panics, and none takes more memory than its limits
//! or its length allow. How: `fixtures/hostile.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they counted

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tiebeam_core::row::{FieldType, Schema, TypeKind};
use tiebeam_core::{Error, ErrorKind};
use tiebeam_io::images::{ImageLimits, decode};
use tiebeam_io::read::{Listing, RangeReader, Records};
use tiebeam_io::{FileRange, csv, json};

#[path = "../../../fixtures/hostile.rs"]
mod hostile;

use hostile::{BESIDE, Outcome, Random, alone, check, counted, mutate};

/// What the images here are read under, so that the limits are met with small files.
const LIMITS: ImageLimits = ImageLimits { max_side: 512, max_pixels: 1 << 16, max_alloc: 1 << 20 };

/// What decoding may take at once: what the limits say, and for each pixel that is allowed the colours before and after they are
/// turned or changed into three bytes: two times eight.
const IMAGE_BOUND: usize = LIMITS.max_alloc as usize + 16 * LIMITS.max_pixels as usize + BESIDE;

/// What WebP's decoder takes for tables of codes, whatever the image is.
const WEBP_TABLES: usize = 16 << 20;

/// The golden images of a format, as Pillow wrote them.
fn images(begins: &[u8]) -> Vec<Vec<u8>> {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/images.json")).unwrap();
    let files = golden["decoding"].as_array().unwrap().iter();
    let files: Vec<Vec<u8>> = files.map(|image| base64(image["file"].as_str().unwrap())).collect();
    let files: Vec<_> =
        files.into_iter().filter(|file| file.starts_with(begins) && file.len() < 8_000).collect();
    assert!(!files.is_empty());
    files
}

fn base64(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let bytes = text.as_bytes().chunks(4).flat_map(|four| {
        let own: Vec<u8> = four.iter().copied().filter(|c| *c != b'=').map(value).collect();
        let all = own.iter().fold(0u32, |all, six| all << 6 | u32::from(*six)) << (6 * (4 - own.len()));
        all.to_be_bytes()[1..own.len()].to_vec()
    });
    bytes.collect()
}

fn image(format: &str, begins: &[u8], words: &[&[u8]], mend: fn(&mut [u8]), own: usize) {
    let whole = images(begins);
    check(format, |mutant, random| {
        let mut data = whole[random.below(whole.len())].clone();
        mutate(&mut data, random, words);
        if mutant % 2 == 0 {
            mend(&mut data);
        }
        let (decoded, peak) = counted(|| decode(&data, &LIMITS));
        let refused = match decoded {
            Ok(image) => {
                let (height, width) = (image.height(), image.width());
                if height > LIMITS.max_side
                    || width > LIMITS.max_side
                    || image.rgb().len() as u64 > 3 * LIMITS.max_pixels
                {
                    return Err(format!("an image of {height} × {width} was read"));
                }
                false
            }
            Err(error) => refusal(&error, "TB045")?,
        };
        Ok(Outcome { refused, peak, bound: IMAGE_BOUND + own })
    });
}

fn refusal(error: &Error, code: &str) -> Result<bool, String> {
    if error.kind() == ErrorKind::InvalidData && error.code().starts_with(code) && error.message() != "" {
        Ok(true)
    } else {
        Err(format!("{error:?}"))
    }
}

/// The checksums of PNG's chunks, so that what they guard is looked at.
fn right_checksums(data: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = data.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8 + length).filter(|end| end + 4 <= data.len()) else { return };
        let sum = crc(&data[at + 4..end]);
        data[end..end + 4].copy_from_slice(&sum.to_be_bytes());
        at = end + 4;
    }
}

fn crc(data: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !data.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[test]
fn png() {
    let words: [&[u8]; 6] = [b"IHDR", b"IDAT", b"\0\0\xff\xff", b"PLTE", b"\x7f\xff\xff\xff", b"acTL"];
    image("png", b"\x89PNG", &words, right_checksums, 0);
}

#[test]
fn jpeg() {
    let words: [&[u8]; 7] = [
        b"\xff\xd8",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xda",
        b"\xff\xdd\0\x04",
        b"\xff\xff\xff\xff",
        b"Exif\0\0",
    ];
    image("jpeg", b"\xff\xd8", &words, |_| {}, 0);
}

#[test]
fn gif() {
    image("gif", b"GIF", &[b"\xff\xff\xff\xff", b"\x2c", b"\x21\xf9", b"\x3b", b"\0"], |_| {}, 0);
}

#[test]
fn bmp() {
    image("bmp", b"BM", &[b"\xff\xff\xff\x7f", b"\x01\0\0\0", b"\0\0\0\x80", b"\x20", b"\x04"], |_| {}, 0);
}

#[test]
fn webp() {
    image(
        "webp",
        b"RIFF",
        &[b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"\xff\xff\xff\xff", b"\xff\x3f"],
        |_| {},
        WEBP_TABLES,
    );
}

/// A chunk that says four gigabytes is not believed.
#[test]
fn lengths_of_webp_chunks_are_held_to_the_file() {
    let _alone = alone();
    let whole = images(b"RIFF").into_iter().find(|file| file[12..16] == *b"VP8 ").unwrap();
    let mut file =
        [&b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x08\0\0\0\x12\0\0\x0c\0\0"[..], &whole[12..]].concat();
    file.extend(b"EXIF\xf0\xff\xff\xff");
    let (decoded, peak) = counted(|| decode(&file, &LIMITS));
    assert_eq!(
        decoded.unwrap_err().message(),
        "a WebP image is damaged: its chunk EXIF says 4294967280 bytes, more than the file has"
    );
    assert!(peak < BESIDE, "{peak} bytes");
}

/// Heads that say more than the limits allow: refused before anything is taken for the pixels.
#[test]
fn giants_are_refused_for_nothing() {
    let _alone = alone();
    let mut png = images(b"\x89PNG").remove(0);
    png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    right_checksums(&mut png);
    let mut gif = images(b"GIF").remove(0);
    gif[6..10].fill(0xff);
    let mut bmp = images(b"BM").remove(0);
    bmp[18..26].copy_from_slice(&[0x60, 0xea, 0, 0, 0x60, 0xea, 0, 0]);
    let mut jpeg = images(b"\xff\xd8").remove(0);
    let frame = jpeg.windows(2).position(|two| matches!(two, [0xff, 0xc0 | 0xc2])).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    // A frame larger than the file says that it is.
    let mut webp = images(b"RIFF").into_iter().find(|file| file[12..16] == *b"VP8 ").unwrap();
    webp[26..30].fill(0x3f);
    let webp = [&b"RIFF\0\x01\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x12\0\0\x0c\0\0"[..], &webp[12..]].concat();
    for (format, file) in [("png", png), ("gif", gif), ("bmp", bmp), ("jpeg", jpeg), ("webp", webp)] {
        let (decoded, peak) = counted(|| decode(&file, &LIMITS));
        let error = decoded.unwrap_err();
        assert_eq!(error.code(), "TB0452", "{format}: {error:?}");
        assert!(peak < BESIDE, "{format}: {peak} bytes");
    }
}

/// The mutants of some texts as files of a format, read whole.
fn lines<R: RangeReader>(format: &str, reader: &R, code: &str, texts: &[&str], words: &[&[u8]]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.txt");
    let read = |data: &[u8]| read(reader, &path, data, code);
    // What is made once for the process is none of a file's.
    texts.iter().for_each(|text| assert_eq!(read(text.as_bytes()).map(|outcome| outcome.refused), Ok(false)));
    check(format, |_, random: &mut Random| {
        let mut data = texts[random.below(texts.len())].as_bytes().to_vec();
        mutate(&mut data, random, words);
        read(&data)
    });
}

fn read<R: RangeReader>(reader: &R, path: &Path, data: &[u8], code: &str) -> Result<Outcome, String> {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, data).unwrap();
    let size = data.len() as u64;
    let range = FileRange { path: path.display().to_string(), size, start: 0, end: size };
    let (mut good, mut bad) = (0, Vec::new());
    let (done, peak) = counted(|| {
        let mut emit = |values: Vec<R::Record>| {
            good += values.len();
            Ok(())
        };
        let mut fail = |bytes: tiebeam_core::Bytes, error: Error| {
            bad.push((bytes.len(), error));
            Ok(())
        };
        let mut records = Records::new(&mut emit, &mut fail);
        reader.read(&range, &Listing::default(), &mut records)?;
        records.flush()
    });
    let mut refused = !bad.is_empty();
    for (length, error) in &bad {
        refusal(error, code)?;
        if *length > data.len() {
            return Err(format!("a bad record of {length} bytes in a file of {}", data.len()));
        }
    }
    if let Err(error) = done {
        refused = refusal(&error, code)?;
    }
    // A reader has buffers of its own, whatever the file is.
    Ok(Outcome { refused, peak, bound: data.len() * 512 + 4 * BESIDE })
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("n", FieldType::required(TypeKind::Int64)),
        ("x", FieldType::nullable(TypeKind::Double)),
        ("t", FieldType::nullable(TypeKind::String)),
        ("b", FieldType::nullable(TypeKind::Boolean)),
    ]))
}

#[test]
fn csv_files() {
    let mut reader = None;
    let _ = csv::read("x", schema()).map_reader(|own| reader.insert(own).clone());
    let texts = [
        "n,x,t,b\n1,2.5,word,true\n2,,\"two, three\",false\n3,1e300,\"a \"\"b\"\"\",\n",
        "b,t,x,n\r\nfalse,\"line\nbreak\",-0.0,9223372036854775807\r\ntrue,ü€😀,nan,-1\r\n",
    ];
    let words: [&[u8]; 9] =
        [b"\"", b"\"\"", b",", b"\n", b"\r", b"\0", b"\xff", b"99999999999999999999", b"\xef\xbb\xbf"];
    lines("csv", &reader.unwrap(), "TB04", &texts, &words);
}

#[test]
fn json_lines() {
    let mut reader = None;
    let _ = json::read("x", schema()).map_reader(|own| reader.insert(own).clone());
    let texts = [
        "{\"n\": 1, \"x\": 2.5, \"t\": \"word\", \"b\": true}\n{\"n\": 2, \"x\": null, \"t\": \"\\u00e9\\ud83d\\ude00\", \"b\": false}\n",
        "{\"b\":null,\"t\":null,\"x\":-1e-300,\"n\":-9223372036854775808}\n{\"n\":7}\n",
    ];
    let deep = b"[".repeat(200);
    let words: [&[u8]; 10] = [
        b"{",
        b"}",
        b"\"",
        b"\"n\":1,",
        b"\\ud800",
        b"1e999",
        b"18446744073709551616",
        b"\xff",
        b"\n",
        &deep,
    ];
    lines("json", &reader.unwrap(), "TB04", &texts, &words);
}

/// Nesting, doubled keys and long lines, each refused by its name or read as what it is.
#[test]
fn json_tricks() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("in.json");
    let mut reader = None;
    let _ = json::read("x", schema()).map_reader(|own| reader.insert(own).clone());
    let reader = reader.unwrap();
    let tricks = BTreeMap::from([
        ("a hundred thousand lists", format!("{{\"n\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000))),
        ("a hundred thousand objects", "{\"n\":".repeat(100_000)),
        ("a number of a megabyte", format!("{{\"n\": {}}}", "9".repeat(1_000_000))),
        ("half of a surrogate pair", "{\"n\": 1, \"t\": \"\\ud800\"}".to_owned()),
        ("nothing but an end", "}".to_owned()),
    ]);
    for (name, text) in tricks {
        let outcome = read(&reader, &path, text.as_bytes(), "TB04").unwrap();
        assert!(outcome.refused, "{name}");
        assert!(outcome.peak <= outcome.bound, "{name}: {outcome:?}");
    }
}
