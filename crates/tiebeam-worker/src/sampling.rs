//! [`Sampler`]: some elements of each PCollection, for a runner that shows them to people.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tiebeam_core::{CoderSpec, Result};
use tiebeam_exec::{AnyBatch, EdgeSpec, EdgeType, Tap};
use tiebeam_model::fn_api::sample_data_response::ElementList;
use tiebeam_model::fn_api::{SampleDataRequest, SampleDataResponse, SampledElement};
use tiebeam_model::{prost_types, urns};

use crate::lower::Lowered;

/// The elements that are kept of a PCollection: the last ones.
const KEPT: usize = 10;
/// The first are all taken, and then one of so many.
const ONE_OF: u64 = 1_000;
/// An element that is longer is no sample but a burden.
const LONGEST: usize = 1 << 20;

/// What was sampled by all bundles of a worker, until somebody asks.
#[derive(Default)]
pub(crate) struct Sampler(Mutex<HashMap<String, Arc<Samples>>>);

#[derive(Default)]
struct Samples {
    seen: AtomicU64,
    kept: Mutex<VecDeque<SampledElement>>,
}

impl Sampler {
    /// What looks at an edge of a stage; none where its elements can't be shown.
    pub(crate) fn tap(&self, lowered: &Lowered, edge: &EdgeSpec) -> Option<Arc<dyn Tap>> {
        let pcollection = lowered.pcollections.get(&edge.id)?;
        let coder = lowered.element_coders.get(&edge.id)?;
        // Values that lie with the runner would be fetched, however many they are, only to be shown.
        let lie_with_runner =
            |port: &crate::lower::Port| holds(&port.element, &[urns::coder::STATE_BACKED_ITERABLE]);
        let iterables = [urns::coder::ITERABLE, urns::coder::STATE_BACKED_ITERABLE];
        if holds(coder, &iterables) && lowered.sources.iter().any(lie_with_runner) {
            return None;
        }
        let edge_type = edge.edge_type.with_coder(coder).ok()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = all.entry(pcollection.clone()).or_default().clone();
        Some(Arc::new(SampleTap { samples, edge_type }))
    }

    /// Gives the samples of those PCollections, or of all if none is named, and forgets them.
    pub(crate) fn take(&self, request: &SampleDataRequest) -> SampleDataResponse {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |id: &String| request.pcollection_ids.is_empty() || request.pcollection_ids.contains(id);
        let taken = all.iter().filter(|(id, _)| wanted(id)).filter_map(|(id, samples)| {
            let elements =
                Vec::from(std::mem::take(&mut *samples.kept.lock().unwrap_or_else(PoisonError::into_inner)));
            (!elements.is_empty()).then(|| (id.clone(), ElementList { elements }))
        });
        SampleDataResponse { element_samples: taken.collect() }
    }
}

fn holds(coder: &CoderSpec, urns: &[&str]) -> bool {
    urns.contains(&coder.urn.as_str()) || coder.components.iter().any(|component| holds(component, urns))
}

struct SampleTap {
    samples: Arc<Samples>,
    /// With the coder that the runner has for the PCollection.
    edge_type: Arc<dyn EdgeType>,
}

impl Tap for SampleTap {
    fn pass(&self, batch: &dyn AnyBatch) -> Result<usize> {
        let len = batch.len() as u64;
        let first = self.samples.seen.fetch_add(len, Ordering::Relaxed);
        let beginning = first..(first + len).min(KEPT as u64);
        let later = first.max(KEPT as u64).next_multiple_of(ONE_OF);
        for index in beginning.chain((later..first + len).step_by(ONE_OF as usize)) {
            self.keep(batch, (index - first) as usize);
        }
        Ok(batch.len())
    }
}

impl SampleTap {
    fn keep(&self, batch: &dyn AnyBatch, index: usize) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sample_timestamp = Some(prost_types::Timestamp {
            seconds: since.as_secs().cast_signed(),
            nanos: since.subsec_nanos().cast_signed(),
        });
        let mut keep = |encoded: &[u8], _: &_| {
            if encoded.len() <= LONGEST {
                let element =
                    SampledElement { element: encoded.to_vec().into(), sample_timestamp, exception: None };
                let mut kept = self.samples.kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(element);
            }
            Ok(())
        };
        // An element that can't be encoded is no sample; the step that writes it will say what is wrong with it.
        drop(self.edge_type.encode_values(&*batch.slice(index..index + 1), &mut keep));
    }
}
