//! A model of the world: magika 1.0.3, which tells the type of a file by its first and last bytes.

use tiebeam_inference::Tensor;
use tiebeam_onnx::OnnxModel;

use crate::support::*;

#[test]
fn magika_agrees_on_every_engine() {
    let Some(path) = cached(&|path| path.ends_with("models/standard_v3_3/model.onnx")) else {
        eprintln!("magika is not tried: its model is not in the cache (`cargo xtask fetch magika`)");
        return;
    };
    let text = b"fn main() { println!(\"{}\", 6 * 7); } // a small program in Rust ";
    let rows = (0..3usize).map(|shift| {
        let token = |i: usize| if i < 1500 { i32::from(text[(i + shift) % text.len()]) } else { 256 };
        Tensor::vector((0..2048).map(token).collect::<Vec<i32>>())
    });
    let rows = rows.collect::<Vec<_>>();
    let mut answers: Vec<Vec<Tensor>> = Vec::new();
    for options in engines() {
        let model = OnnxModel::load(&path, &options).unwrap();
        rows.iter().for_each(|row| model.check(row).unwrap());
        let batch: Vec<Tensor> = model.run(&rows).unwrap();
        for (row, answer) in rows.iter().zip(&batch) {
            assert_eq!(answer.shape(), [214]);
            let single: Vec<Tensor> = model.run(std::slice::from_ref(row)).unwrap();
            close(&single[0], answer, "a row of a batch and the row alone");
            let sum = answer.as_slice::<f32>().unwrap().iter().sum::<f32>();
            assert!((sum - 1.0).abs() < 1e-3, "probabilities: {sum}");
        }
        answers.push(batch);
    }
    if let [rten, ort] = &answers[..] {
        rten.iter().zip(ort).for_each(|(a, b)| close(a, b, "rten and ONNX Runtime"));
    }
}

fn close(a: &Tensor, b: &Tensor, what: &str) {
    let (a, b) = (a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && worst < 1e-4, "{what}: {worst}");
}
