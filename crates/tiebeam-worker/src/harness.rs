//! The [`Harness`] of a worker: side inputs and state-backed iterables over the state channel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tiebeam_core::coder::{IterableState, WindowCoder};
use tiebeam_core::{CoderSpec, Error, ErrorKind, Result, RunId, Timestamp, Window};
use tiebeam_exec::{Access, Harness, SideValues, WireCoders};
use tiebeam_model::Message;
use tiebeam_model::fn_api::{
    StateGetRequest, StateKey, StateRequest, process_bundle_request, state_key, state_request, state_response,
};

use crate::cache::{Page, PageKey, Scope, StateCache};
use crate::fn_api::FnApi;

/// Where a side input is found on the runner's side.
#[derive(Debug, Clone)]
pub(crate) struct SidePort {
    /// The transform that reads it, by the descriptor's id.
    pub(crate) transform: String,
    /// Its name within that transform.
    pub(crate) local: String,
    /// How it is served.
    pub(crate) access: Access,
    /// How its windows are written.
    pub(crate) window: WindowCoder,
    /// How its values (and keys) are written.
    pub(crate) element: CoderSpec,
}

/// The services for one stage instance; it serves one bundle after another.
pub(crate) struct WorkerHarness {
    sides: HashMap<Arc<str>, SidePort>,
    run: RunId,
    bundle: Mutex<Option<BundleChannel>>,
}

/// The runner, as one bundle reaches it.
#[derive(Clone)]
pub(crate) struct BundleChannel {
    pub(crate) api: Arc<dyn FnApi>,
    pub(crate) instruction: Arc<str>,
    cache: Arc<StateCache>,
    /// By transform and side input.
    tokens: Arc<HashMap<(String, String), Bytes>>,
}

static REQUESTS: AtomicU64 = AtomicU64::new(0);

impl BundleChannel {
    /// The runner `api` for a bundle. What was read under one of these tokens in an earlier bundle is not read again.
    pub(crate) fn new(
        api: &Arc<dyn FnApi>,
        instruction: &str,
        cache: &Arc<StateCache>,
        tokens: &[process_bundle_request::CacheToken],
    ) -> Self {
        let sides = tokens.iter().filter_map(|token| match &token.r#type {
            Some(process_bundle_request::cache_token::Type::SideInput(side)) => {
                Some(((side.transform_id.clone(), side.side_input_id.clone()), token.token.clone()))
            }
            _ => None,
        });
        BundleChannel {
            api: api.clone(),
            instruction: instruction.into(),
            cache: cache.clone(),
            tokens: Arc::new(sides.collect()),
        }
    }

    /// How long pages of that side input may be used.
    fn scope(&self, transform: &str, side: &str) -> Scope {
        match self.tokens.get(&(transform.to_owned(), side.to_owned())) {
            Some(token) => Scope::Token(token.clone()),
            None => Scope::Bundle(self.instruction.clone()),
        }
    }

    /// One page of state, and the token of the next while there is one.
    fn page(&self, key: &StateKey, token: Option<&[u8]>) -> Result<Page> {
        let id = format!("s{}", REQUESTS.fetch_add(1, Ordering::Relaxed));
        let get =
            StateGetRequest { continuation_token: token.map(Bytes::copy_from_slice).unwrap_or_default() };
        let response = self.api.state(StateRequest {
            id: id.clone(),
            instruction_id: self.instruction.to_string(),
            state_key: Some(key.clone()),
            request: Some(state_request::Request::Get(get)),
        })?;
        let refused = |message: String| Error::new(ErrorKind::Io, "TB0547", message);
        if !response.error.is_empty() {
            return Err(refused(format!("the runner refused a state request: {}", response.error)));
        }
        match response.response {
            Some(state_response::Response::Get(get)) => {
                let next = (!get.continuation_token.is_empty()).then_some(get.continuation_token);
                if next.is_some() && next.as_deref() == token {
                    return Err(refused(
                        "the runner names the same page of state as the next one for ever".to_owned(),
                    ));
                }
                Ok((get.data, next))
            }
            _ => Err(refused("the runner answered a state request with something else".to_owned())),
        }
    }
}

impl IterableState for BundleChannel {
    fn page(&self, token: &[u8], page: Option<&[u8]>) -> Result<Page> {
        let runner = state_key::Runner { key: Bytes::copy_from_slice(token) };
        BundleChannel::page(self, &StateKey { r#type: Some(state_key::Type::Runner(runner)) }, page)
    }
}

/// The pages of one side input, window and key.
struct SidePages {
    channel: BundleChannel,
    key: StateKey,
    encoded: Bytes,
    scope: Scope,
}

impl IterableState for SidePages {
    fn page(&self, _: &[u8], page: Option<&[u8]>) -> Result<Page> {
        let key = PageKey {
            scope: self.scope.clone(),
            state: self.encoded.clone(),
            page: page.map(Bytes::copy_from_slice),
        };
        self.channel.cache.get(key, || self.channel.page(&self.key, page))
    }
}

impl WorkerHarness {
    pub(crate) fn new(sides: HashMap<Arc<str>, SidePort>, run: RunId) -> Self {
        WorkerHarness { sides, run, bundle: Mutex::new(None) }
    }

    /// Serves that bundle from now on.
    pub(crate) fn begin(&self, channel: BundleChannel) {
        *self.bundle.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
    }

    fn channel(&self) -> Result<BundleChannel> {
        self.bundle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| Error::internal("a side input was asked for outside a bundle"))
    }

    fn side(&self, id: &str) -> Result<&SidePort> {
        self.sides
            .get(id)
            .ok_or_else(|| Error::internal(format!("side input `{id}` is not in this stage's descriptor")))
    }
}

impl Harness for WorkerHarness {
    fn side_input(&self, id: &str, window: &Window, key: Option<&[u8]>) -> Result<SideValues> {
        let side = self.side(id)?;
        let mut encoded = Vec::new();
        side.window.encode(window, &mut encoded)?;
        let (transform_id, side_input_id) = (side.transform.clone(), side.local.clone());
        let window = Bytes::from(encoded);
        let r#type = match (side.access, key) {
            (Access::Iterable, None) => state_key::Type::IterableSideInput(state_key::IterableSideInput {
                transform_id,
                side_input_id,
                window,
            }),
            (Access::Multimap, Some(key)) => {
                state_key::Type::MultimapSideInput(state_key::MultimapSideInput {
                    transform_id,
                    side_input_id,
                    window,
                    key: Bytes::copy_from_slice(key),
                })
            }
            (access, key) => {
                let asked = if key.is_some() { "one key" } else { "all values" };
                return Err(Error::internal(format!(
                    "side input `{id}` is {access:?} and was asked for {asked}"
                )));
            }
        };
        let channel = self.channel()?;
        let key = StateKey { r#type: Some(r#type) };
        let encoded = Bytes::from(key.encode_to_vec());
        let scope = channel.scope(&side.transform, &side.local);
        let state = Arc::new(SidePages { channel, key, encoded, scope });
        Ok(SideValues::Paged { token: Bytes::new(), state })
    }

    fn run(&self) -> RunId {
        self.run
    }

    fn wire_coders(&self, id: &str) -> Option<WireCoders> {
        let side = self.sides.get(id)?;
        match (side.access, side.element.components.as_slice()) {
            (Access::Multimap, [key, value]) => {
                Some(WireCoders { key: Some(key.clone()), value: value.clone() })
            }
            _ => Some(WireCoders { key: None, value: side.element.clone() }),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.channel().is_ok_and(|channel| channel.api.is_cancelled(&channel.instruction))
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

/// Processing time.
pub(crate) fn now() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
}
