//! Side inputs as the runner serves them: encoded values by window, and by key where they are asked by key.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashMap;
use tiebeam_core::{Error, Meta, Result, RunId, Timestamp, Window};
use tiebeam_exec::{
    AnyBatch, EdgeSpec, EncodedValues, Harness, KeyedBatch, KeyedSink, SideInputSpec, SideValues,
};

use crate::cancel::{CancelToken, Stop};

#[derive(Default)]
struct Values {
    bytes: Vec<u8>,
    count: usize,
}

impl Values {
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.count += 1;
    }

    fn finish(self) -> EncodedValues {
        EncodedValues { chunks: Arc::from([Bytes::from(self.bytes)]), count: self.count }
    }
}

/// One side input, complete.
enum Ready {
    ByWindow(HashMap<Window, EncodedValues>),
    ByKey(HashMap<Window, HashMap<Vec<u8>, EncodedValues>>),
}

impl Ready {
    fn of(spec: &SideInputSpec, edge: &EdgeSpec, batches: &[Arc<dyn AnyBatch>]) -> Result<Ready> {
        let Some(group) = &spec.group else {
            let mut windows: HashMap<Window, Values> = HashMap::new();
            for batch in batches {
                edge.edge_type.encode_values(&**batch, &mut |value, info| {
                    for window in info.windows.as_slice() {
                        windows.entry(window.clone()).or_default().push(value);
                    }
                    Ok(())
                })?;
            }
            return Ok(Ready::ByWindow(
                windows.into_iter().map(|(w, values)| (w, values.finish())).collect(),
            ));
        };
        let keyed = Arc::new(Mutex::new(HashMap::new()));
        let mut replayer = edge.edge_type.replayer(group.writer(Box::new(ByKey(keyed.clone()))))?;
        for batch in batches {
            replayer.receive(&**batch)?;
        }
        let keyed = std::mem::take(&mut *keyed.lock().unwrap_or_else(PoisonError::into_inner));
        let finish =
            |keys: HashMap<Vec<u8>, Values>| keys.into_iter().map(|(k, v)| (k, v.finish())).collect();
        Ok(Ready::ByKey(keyed.into_iter().map(|(window, keys)| (window, finish(keys))).collect()))
    }
}

struct ByKey(Arc<Mutex<HashMap<Window, HashMap<Vec<u8>, Values>>>>);

impl KeyedSink for ByKey {
    fn accept(&mut self, batch: &KeyedBatch, meta: &Meta) -> Result<()> {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, (key, value)) in batch.iter().enumerate() {
            for window in meta.get(i).windows.as_slice() {
                windows.entry(window.clone()).or_default().entry_ref(key).or_default().push(value);
            }
        }
        Ok(())
    }
}

/// The services of the embedded runner for one job.
pub(crate) struct JobHarness {
    ready: Mutex<HashMap<Arc<str>, Arc<Ready>>>,
    cancel: CancelToken,
    failed: Arc<std::sync::atomic::AtomicBool>,
    run: RunId,
}

impl JobHarness {
    pub(crate) fn new(cancel: CancelToken, failed: Arc<std::sync::atomic::AtomicBool>, run: RunId) -> Self {
        JobHarness { ready: Mutex::default(), cancel, failed, run }
    }

    /// Makes a side input readable.
    pub(crate) fn add(
        &self,
        spec: &SideInputSpec,
        edge: &EdgeSpec,
        batches: &[Arc<dyn AnyBatch>],
    ) -> Result<()> {
        let ready = Arc::new(Ready::of(spec, edge, batches)?);
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.id.clone(), ready);
        Ok(())
    }
}

impl Harness for JobHarness {
    fn side_input(&self, id: &str, window: &Window, key: Option<&[u8]>) -> Result<SideValues> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let values = match (ready.as_deref(), key) {
            (Some(Ready::ByWindow(windows)), None) => windows.get(window).cloned(),
            (Some(Ready::ByKey(windows)), Some(key)) => {
                windows.get(window).and_then(|keys| keys.get(key)).cloned()
            }
            (Some(_), _) => {
                return Err(Error::internal(format!("side input {id} is asked for in the wrong way")));
            }
            (None, _) => return Err(Error::internal(format!("side input {id} is read before it is ready"))),
        };
        let none = || EncodedValues { chunks: Arc::from([]), count: 0 };
        Ok(SideValues::Held(values.unwrap_or_else(none)))
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.asked() == Stop::Cancel || self.failed.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::MIN.max(Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)))
    }
}
