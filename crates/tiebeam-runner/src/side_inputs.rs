//! Side inputs as the runner serves them: encoded values by window, and by key where they are asked by key; in memory, or on
//! disk where that does not suffice. Of one on disk that is asked by key, the keys stay in memory.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hashbrown::HashMap;
use tiebeam_core::coder::IterableState;
use tiebeam_core::{Error, Result, RunId, Timestamp, Window};
use tiebeam_exec::{EdgeSpec, EncodedValues, GroupType, Harness, SideInputSpec, SideValues, WindowTable};

use crate::aside::Room;
use crate::cancel::{CancelToken, Stop};
use crate::groups::Values;
use crate::memory::{Charge, Memory};
use crate::runs::merge;
use crate::shuffle::{BundleBlocks, Source};
use crate::spill::{Segment, SpillFile};
use crate::store::Part;

/// One side input, complete.
struct Ready {
    by: By,
    /// What it takes in memory.
    _charge: Charge,
}

enum By {
    Window(HashMap<Window, SideValues>),
    Key(HashMap<Window, HashMap<Vec<u8>, SideValues>>),
    KeyOnDisk { file: Arc<SpillFile>, places: HashMap<Window, HashMap<Box<[u8]>, Place>> },
}

/// Where the values of a key are.
enum Place {
    /// In the file, one after another.
    At(u64, u64),
    /// More than could be held when they were brought together.
    Spread(SideValues),
}

impl Ready {
    fn of(spec: &SideInputSpec, edge: &EdgeSpec, parts: Vec<Part>, memory: &Arc<Memory>) -> Result<Ready> {
        match &spec.group {
            Some(group) => Ready::by_key(&**group, edge, parts, memory),
            None => Ready::by_window(edge, parts, memory),
        }
    }

    fn by_window(edge: &EdgeSpec, parts: Vec<Part>, memory: &Arc<Memory>) -> Result<Ready> {
        let mut windows: WindowTable<Values> = WindowTable::default();
        let mut charge = Charge::new(memory);
        let mut file = None;
        for part in parts {
            part.each(0..part.len(), &mut |batch| {
                let mut bytes = 0;
                edge.edge_type.encode_values(batch, &mut |value, info| {
                    for window in info.windows.as_slice() {
                        windows.get_or_insert_with(window, Values::new).push(value, info.timestamp);
                        bytes += value.len() as u64;
                    }
                    Ok(())
                })?;
                charge.add(bytes);
                if memory.should_spill(charge.bytes()) {
                    let file = match &file {
                        Some(file) => file,
                        None => file.insert(SpillFile::nameless(memory.dir())?),
                    };
                    spill_all(&mut windows, file, memory)?;
                    drop(charge.take());
                }
                Ok(())
            })?;
        }
        let windows = windows.take().into_iter().map(|(window, values)| (window, values.finish()));
        Ok(Ready { by: By::Window(windows.collect()), _charge: charge })
    }

    fn by_key(
        group: &dyn GroupType,
        edge: &EdgeSpec,
        parts: Vec<Part>,
        memory: &Arc<Memory>,
    ) -> Result<Ready> {
        let blocks = BundleBlocks::new(1, memory, &Room::passing(memory));
        let mut replayer = edge.edge_type.replayer(group.writer(blocks.sink()))?;
        for part in parts {
            part.each(0..part.len(), &mut |batch| replayer.receive(batch))?;
        }
        let mut written = blocks.take()?;
        let sources = written.partitions.pop().unwrap_or_default();
        let mut charge = written.into_charge(memory);
        if sources.iter().any(|source| matches!(source, Source::Run(_))) {
            drop(charge.take());
            return Ready::key_on_disk(sources, memory, charge);
        }
        let mut windows: HashMap<Window, HashMap<Vec<u8>, Values>> = HashMap::new();
        for source in &sources {
            let Source::Block(block) = source else { continue };
            for (key, value, info) in (0..block.len()).map(|i| block.entry(i)) {
                for window in info.windows.as_slice() {
                    let keys = windows.entry(window.clone()).or_default();
                    keys.entry_ref(key).or_insert_with(Values::new).push(value, info.timestamp);
                }
            }
        }
        let finish =
            |keys: HashMap<Vec<u8>, Values>| keys.into_iter().map(|(k, v)| (k, v.finish())).collect();
        let windows = windows.into_iter().map(|(window, keys)| (window, finish(keys)));
        Ok(Ready { by: By::Key(windows.collect()), _charge: charge })
    }

    fn key_on_disk(sources: Vec<Source>, memory: &Arc<Memory>, mut charge: Charge) -> Result<Ready> {
        let share = memory.read_share() / 4;
        let mut merge = merge(sources, memory)?;
        let file = SpillFile::nameless(memory.dir())?;
        let mut places: HashMap<Window, HashMap<Box<[u8]>, Place>> = HashMap::new();
        let mut last = Vec::new();
        while let Some(top) = merge.top() {
            let (hash, key) = top.key();
            last.clear();
            last.extend_from_slice(key);
            let mut windows: WindowTable<Values> = WindowTable::default();
            let mut held = 0;
            while let Some(top) = merge.top().filter(|top| top.key() == (hash, &last)) {
                let (value, info) = top.value();
                for window in info.windows.as_slice() {
                    windows.get_or_insert_with(window, Values::new).push(value, info.timestamp);
                    held += value.len();
                }
                if held > share {
                    spill_all(&mut windows, &file, memory)?;
                    held = 0;
                }
                merge.advance()?;
            }
            for (window, values) in windows.take() {
                let place = match values.finish() {
                    SideValues::Held(values) => {
                        let len: usize = values.chunks.iter().map(Bytes::len).sum();
                        let start = file.reserve(len as u64);
                        let mut at = start;
                        for chunk in values.chunks.iter() {
                            file.write_at(at, chunk)?;
                            at += chunk.len() as u64;
                        }
                        Place::At(start, len as u64)
                    }
                    spread @ SideValues::Paged { .. } => Place::Spread(spread),
                };
                charge.add((last.len() + size_of::<Place>()) as u64);
                places.entry(window).or_default().insert(last.as_slice().into(), place);
            }
        }
        Ok(Ready { by: By::KeyOnDisk { file, places }, _charge: charge })
    }
}

fn spill_all(windows: &mut WindowTable<Values>, file: &Arc<SpillFile>, memory: &Memory) -> Result<()> {
    for (window, mut values) in windows.take() {
        values.spill(file, memory)?;
        *windows.get_or_insert_with(&window, Values::new) = values;
    }
    Ok(())
}

/// The bytes of one page of values.
const PAGE: u64 = 1 << 20;

/// Serves a part of a file page by page; the token of a page is where it begins.
struct FilePages(Segment);

impl IterableState for FilePages {
    fn page(&self, _: &[u8], page: Option<&[u8]>) -> Result<(Bytes, Option<Bytes>)> {
        let at = match page {
            None => 0,
            Some(token) => u64::from_le_bytes(token.try_into().map_err(Error::internal)?),
        };
        let len = PAGE.min(self.0.len.saturating_sub(at));
        let bytes = Segment { file: self.0.file.clone(), at: self.0.at + at, len }.read()?;
        let next = at + len;
        let next = (next < self.0.len).then(|| Bytes::copy_from_slice(&next.to_le_bytes()));
        Ok((bytes.into(), next))
    }
}

/// The services of the embedded runner for one job.
pub(crate) struct JobHarness {
    ready: Mutex<HashMap<Arc<str>, Arc<Ready>>>,
    cancel: CancelToken,
    failed: Arc<AtomicBool>,
    run: RunId,
    memory: Arc<Memory>,
}

thread_local! {
    /// The number of the bundle that this thread is at.
    static BUNDLE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Says at which bundle this thread is from now on.
pub(crate) fn at_bundle(number: u64) {
    BUNDLE.set(Some(number));
}

impl JobHarness {
    pub(crate) fn new(cancel: CancelToken, failed: Arc<AtomicBool>, run: RunId, memory: Arc<Memory>) -> Self {
        JobHarness { ready: Mutex::default(), cancel, failed, run, memory }
    }

    /// Makes a side input readable.
    pub(crate) fn add(&self, spec: &SideInputSpec, edge: &EdgeSpec, parts: Vec<Part>) -> Result<()> {
        let ready = Arc::new(Ready::of(spec, edge, parts, &self.memory)?);
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.id.clone(), ready);
        Ok(())
    }
}

impl Harness for JobHarness {
    fn side_input(&self, id: &str, window: &Window, key: Option<&[u8]>) -> Result<SideValues> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let values = match (ready.as_deref().map(|ready| &ready.by), key) {
            (Some(By::Window(windows)), None) => windows.get(window).cloned(),
            (Some(By::Key(windows)), Some(key)) => {
                windows.get(window).and_then(|keys| keys.get(key)).cloned()
            }
            (Some(By::KeyOnDisk { file, places }), Some(key)) => {
                places.get(window).and_then(|keys| keys.get(key)).map(|place| match place {
                    Place::Spread(values) => values.clone(),
                    Place::At(at, len) => {
                        let segment = Segment { file: file.clone(), at: *at, len: *len };
                        SideValues::Paged { token: Bytes::new(), state: Arc::new(FilePages(segment)) }
                    }
                })
            }
            (Some(_), _) => {
                return Err(Error::internal(format!("side input {id} is asked for in the wrong way")));
            }
            (None, _) => return Err(Error::internal(format!("side input {id} is read before it is ready"))),
        };
        let none = || SideValues::Held(EncodedValues { chunks: Arc::from([]), count: 0 });
        Ok(values.unwrap_or_else(none))
    }

    fn bundle_number(&self) -> Option<u64> {
        BUNDLE.get()
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.asked() == Stop::Cancel || self.failed.load(Ordering::Relaxed)
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::MIN.max(Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)))
    }
}
