//! Damaged models: an error or a model that runs, never a panic that gets out, an abort or a hang.

use tiebeam_inference::Tensor;
use tiebeam_onnx::{ModelFile, OnnxModel};

use crate::support::*;

/// A small generator, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn mutate(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(changed.len());
        match random.below(5) {
            0 => changed[at] = random.next() as u8,
            1 => changed[at] ^= 1 << random.below(8),
            2 => changed.truncate(at.max(1)),
            3 => changed.insert(at, random.next() as u8),
            _ => {
                let end = (at + random.below(9)).min(changed.len());
                let piece = changed[at..end].to_vec();
                let to = random.below(changed.len());
                changed.splice(to..to, piece);
            }
        }
    }
    changed
}

#[test]
fn mutated_models_are_refused_or_run() {
    let mut random = Random(0x5eed);
    let models = [linear(), two_and_two(), sum_of_any_length(), embedding()];
    let rows =
        [Tensor::scalar(1.0f32), Tensor::vector(vec![1.0f32, 2.0, 3.0]), Tensor::vector(vec![1i64, 2])];
    let (mut loaded, mut refused) = (0, 0);
    // rten's panics are turned into errors; their text is not wanted on the screen a thousand times.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    for round in 0..1_500 {
        let bytes = mutate(&models[round % models.len()], &mut random);
        match OnnxModel::from_bytes("m.onnx", bytes, &rten()) {
            Ok(model) => {
                loaded += 1;
                for row in &rows {
                    if model.inputs().len() == 1 && model.check(row).is_ok() {
                        let _ = model.run::<_, tiebeam_inference::Tensors>(&[row.clone(), row.clone()]);
                    }
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.message().starts_with("model m.onnx: "), "{error:?}");
            }
        }
    }
    std::panic::set_hook(before);
    assert!(loaded > 50 && refused > 500, "both happen: {loaded} loaded, {refused} refused");
}

#[test]
fn random_bytes_are_no_model() {
    let mut random = Random(42);
    for _ in 0..2_000 {
        let length = 1 + random.below(300);
        let mut bytes = (0..length).map(|_| random.next() as u8).collect::<Vec<_>>();
        bytes[0] = 0x08;
        assert!(ModelFile::from_bytes("m.onnx", bytes).is_err());
    }
}
