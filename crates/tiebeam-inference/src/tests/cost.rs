//! What the way through the step costs, beside the model.

use std::sync::Arc;

use super::{Bench, Fake, FakeClock, global};
use crate::batching::Batching;
use crate::handler::ModelHandler;
use crate::{RunInference, Tensor};

/// Allocations of 100 bundles' worth of batches of 256 scalars, model and results included.
fn allocations(batching: Batching, rescue: bool) -> u64 {
    allocations_of(Fake::new(|batch: &[Tensor]| Ok(batch.to_vec())).with_batching(batching), rescue)
}

fn allocations_of(handler: impl ModelHandler<Example = Tensor, Inference = Tensor>, rescue: bool) -> u64 {
    let transform = RunInference::new(handler).with_clock(Arc::new(FakeClock::default()));
    let bench = if rescue { Bench::rescued(transform) } else { Bench::new(transform) };
    let mut instance = bench.instance();
    instance.setup().unwrap();
    instance.results.lock().unwrap().reserve(300_000);
    let batches: Vec<_> = (0..1000).map(|_| global((0..256).map(|x| Tensor::scalar(x as f32)))).collect();
    let counted = allocation_counter::measure(|| instance.bundle(batches).unwrap());
    assert_eq!(instance.results.lock().unwrap().len(), 256_000);
    counted.count_total
}

#[test]
fn scalars_cost_no_allocation_each() {
    for (batching, rescue) in [
        (Batching::fixed(256), false),
        (Batching::fixed(256), true),
        (Batching::fixed(1000), false),
        (Batching::default(), false),
    ] {
        let count = allocations(batching.clone(), rescue);
        // 1000 batches come in; each way in, through the model and out takes a few vectors.
        assert!(count < 30_000, "{count} allocations for 256,000 scalars with {batching:?}");
    }
}

#[test]
fn lengths_and_weights_cost_no_allocation_each() {
    let batching = Batching { max_batch_weight: Some(50_000), ..Batching::fixed(64) };
    for (rescue, most) in [(false, 70_000), (true, 70_000)] {
        let handler = Fake::new(|batch: &[Tensor]| Ok(batch.to_vec())).with_batching(batching.clone());
        let length = |tensor: &Tensor| tensor.to_scalar::<f32>().unwrap_or(0.0) as usize * 3;
        let handler =
            handler.with_length_fn(length).with_element_size_fn(move |tensor| length(tensor) as u64);
        let count = allocations_of(handler, rescue);
        // Each batch that comes in falls into seven classes, and each of those is batched, ordered and put back.
        assert!(count < most, "{count} allocations for 256,000 scalars in length classes");
    }
}
