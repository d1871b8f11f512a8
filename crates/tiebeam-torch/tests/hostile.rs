//! Mutated model files of every format: each is refused with an error of the model's kind or read whole; none panics, and none
//! takes more memory than is declared for its length. How: `fixtures/hostile.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they counted

use std::path::{Path, PathBuf};

use prost::Message;
use tiebeam_core::error::{Error, ErrorKind};
use tiebeam_inference::{Tensor, Tensors};
use tiebeam_onnx::proto::{ModelProto, StringStringEntryProto};
use tiebeam_onnx::{Engine, EngineOptions, LoadOptions, OnnxModel};
use tiebeam_torch::StateDict;

#[path = "../../../fixtures/hostile.rs"]
mod hostile;
#[path = "support/zips.rs"]
mod zips;

use hostile::{BESIDE, Outcome, alone, check, counted, mutate};

fn fixture(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models");
    std::fs::read(folder.join(name)).unwrap()
}

/// A state dict: read whole with every tensor, or refused as a model is.
fn state_dict(data: Vec<u8>, bound: usize) -> Result<Outcome, String> {
    let (read, peak) = counted(|| StateDict::from_bytes("m.pth", data));
    let refused = match read {
        Ok(weights) => {
            for (name, tensor) in weights.iter() {
                let (numbers, taken) = counted(|| tensor.to_f32().len());
                if numbers != tensor.len() || tensor.to_tensor().is_err() {
                    return Err(format!("tensor {name} is not what it says"));
                }
                if taken > bound {
                    return Err(format!("tensor {name} takes {taken} bytes"));
                }
            }
            false
        }
        Err(error) if error.kind() == ErrorKind::Model && error.code().starts_with("TB036") => true,
        Err(error) => return Err(format!("{error:?}")),
    };
    Ok(Outcome { refused, peak, bound })
}

const PICKLE: [&[u8]; 12] = [
    b"(",
    b"t",
    b"R",
    b"Q",
    b"b",
    b"cos\nsystem\n",
    b"\x8b\xff\xff\xff\x7f",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"r\xff\xff\xff\x7f",
    b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"h\x00h\x00\x86q\x00",
    b"J\xff\xff\xff\x7f",
];

#[test]
fn pth() {
    let whole = ["five.pth", "layouts.pth", "tiny_conv.pth"].map(fixture);
    check("pth", |mutant, random| {
        let file = &whole[random.below(whole.len())];
        if mutant % 3 == 0 {
            // The archive itself; most of what it holds is guarded by checksums.
            let mut data = file.clone();
            mutate(&mut data, random, &[b"PK\x01\x02", b"\xff\xff\xff\xff", b"../", b"PK\x05\x06"]);
            let bound = data.len() * (64 + 512) + BESIDE;
            return state_dict(data, bound);
        }
        // Its pickle, behind a right checksum, stored or deflated.
        let mut records = zips::stored(file);
        let pickle = &mut records.iter_mut().find(|(name, _)| name.ends_with("/data.pkl")).unwrap().1;
        mutate(pickle, random, &PICKLE);
        let pickle = pickle.len();
        let records: Vec<(&str, &[u8])> =
            records.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let data = if mutant % 3 == 1 { zips::archive(&records) } else { zips::deflated(&records) };
        let bound = data.len() * 64 + pickle * 512 + BESIDE;
        state_dict(data, bound)
    });
}

#[test]
fn what_pickles_make_stays_within_the_bound() {
    let _alone = alone();
    // Each opcode that makes or keeps something, again and again.
    let units: [&[u8]; 14] = [
        b"N",
        b")",
        b"]",
        b"(",
        b"N\x94",
        b")\x94",
        b"N\x85",
        b"\x85",
        b"]Na",
        b"(t",
        b"}NNs",
        b"((NNtl",
        b"h\x00h\x01R",
        b"U\x00",
    ];
    for unit in units {
        for count in [1_000, 100_000, 1_000_000] {
            let start: &[u8] = b"\x80\x04ccollections\nOrderedDict\nq\x00)q\x01";
            let pickle = [start, &unit.repeat(count / unit.len())].concat();
            let file = zips::archive(&[("m/data.pkl", &pickle)]);
            let bound = file.len() * 512 + BESIDE;
            let outcome = state_dict(file, bound).unwrap();
            assert!(
                outcome.refused && outcome.peak <= bound,
                "{} × {count}: {outcome:?}",
                unit.escape_ascii()
            );
        }
    }
}

#[test]
fn pth_before_1_6() {
    let whole = ["five_pre16.pth", "layouts_pre16.pth"].map(fixture);
    check("pth-before-1.6", |_, random| {
        let mut data = whole[random.below(whole.len())].clone();
        // The magic number stays: without it nothing more is looked at.
        let mut rest = data.split_off(14.min(data.len()));
        mutate(&mut rest, random, &PICKLE);
        data.extend(rest);
        let bound = data.len() * 512 + BESIDE;
        state_dict(data, bound)
    });
}

#[test]
fn safetensors() {
    let whole = ["five.safetensors", "ten.safetensors"].map(fixture);
    let words: [&[u8]; 9] = [
        b"[",
        b"{",
        b"\"F64\"",
        b"18446744073709551615",
        b"-1",
        b"[0,0]",
        b"\"__metadata__\":{",
        b"\"linear.bias\":",
        b"1e999",
    ];
    check("safetensors", |mutant, random| {
        let mut data = whole[random.below(whole.len())].clone();
        let bound = |data: &[u8]| data.len() * 512 + BESIDE;
        if mutant % 2 == 0 {
            mutate(&mut data, random, &words);
        } else {
            // The header, its length put right again.
            let length = u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
            let mut header = data[8..8 + length].to_vec();
            mutate(&mut header, random, &words);
            data = [&(header.len() as u64).to_le_bytes()[..], &header, &data[8 + length..]].concat();
        }
        let bound = bound(&data);
        state_dict(data, bound)
    });
}

fn rten() -> LoadOptions {
    let engine = EngineOptions { engine: Engine::Rten, ort_dylib: None, providers: Vec::new() };
    LoadOptions { engine, ..LoadOptions::default() }
}

/// A model on rten: asked once, or refused.
fn onnx(path: &Path, bound: usize) -> Result<Outcome, String> {
    let (loaded, mut peak) = counted(|| OnnxModel::load(path, &rten()));
    let refused = match loaded {
        Ok(model) => {
            let row = Tensor::vector(vec![1.0f32]);
            if model.inputs().len() == 1 && model.check(&row).is_ok() {
                let (ran, taken) = counted(|| model.run::<_, Tensors>(&[row.clone(), row.clone()]));
                if let Err(error) = ran {
                    named(&error, path)?;
                }
                peak = peak.max(taken);
            }
            false
        }
        Err(error) => {
            named(&error, path)?;
            true
        }
    };
    Ok(Outcome { refused, peak, bound })
}

fn named(error: &Error, path: &Path) -> Result<(), String> {
    let begins = format!("model {}", path.display());
    if error.message().starts_with(&begins) { Ok(()) } else { Err(format!("{error:?}")) }
}

/// Writes another file in the place of one: some file systems wait for the disk when one is cut and written again.
fn write_anew(path: &Path, data: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, data).unwrap();
}

/// The model y = 5x with its weight in `w.bin` beside it.
fn with_external_data() -> ModelProto {
    let mut proto = ModelProto::decode(&fixture("five.onnx")[..]).unwrap();
    for weight in &mut proto.graph.as_mut().unwrap().initializer {
        let bytes = weight.raw_data.take().unwrap();
        weight.data_location = 1;
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        weight.external_data =
            vec![entry("location", "w.bin".to_owned()), entry("length", bytes.len().to_string())];
    }
    proto
}

#[test]
fn onnx_with_external_data() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    let secret = outer.path().join("secret");
    std::fs::write(&secret, 9.0f32.to_le_bytes()).unwrap();
    let weights = folder.join("w.bin");
    std::fs::write(&weights, 5.0f32.to_le_bytes()).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&secret, folder.join("link")).unwrap();
    let path = folder.join("m.onnx");
    let proto = with_external_data();
    std::fs::write(&path, proto.encode_to_vec()).unwrap();
    // What the engine makes once for the process is none of a file's.
    OnnxModel::load(&path, &rten()).unwrap();

    let absolute = secret.display().to_string();
    let places =
        ["../secret", "link", "./../secret", "a/../../secret", "..\\secret", "w.bin/", "", ".", &absolute];
    let words: [&[u8]; 8] = [
        b"w.bin",
        b"offset",
        b"length",
        b"../secret",
        b"\xff\xff\xff\xff\x0f",
        b"\x08",
        b"18446744073709551615",
        b"MatMul",
    ];
    check("onnx", |mutant, random| {
        let mut data = match mutant % 3 {
            // Where the weights are: never outside of the folder.
            0 => {
                let mut proto = proto.clone();
                let weights = &mut proto.graph.as_mut().unwrap().initializer;
                let at = random.below(weights.len());
                let place = places[random.below(places.len())];
                place.clone_into(&mut weights[at].external_data[0].value);
                let data = proto.encode_to_vec();
                write_anew(&path, &data);
                return match onnx(&path, data.len() * 1024 + BESIDE)? {
                    Outcome { refused: false, .. } => Err(format!("weights in {place} were read")),
                    outcome => Ok(outcome),
                };
            }
            1 => proto.encode_to_vec(),
            _ => fixture("five.onnx"),
        };
        mutate(&mut data, random, &words);
        write_anew(&path, &data);
        // As many bytes as there may be, or fewer.
        let length = if mutant % 5 == 1 { random.below(9) } else { 4 };
        write_anew(&weights, &vec![0x40; length]);
        onnx(&path, (data.len() + length) * 1024 + BESIDE)
    });
}
