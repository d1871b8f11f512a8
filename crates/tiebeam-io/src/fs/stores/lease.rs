//! A claim on an output in a store: an object that only one can make, and that its holder renews.
//!
//! A store does not know when a process dies. So a claim lapses when it was not renewed for a while, by the store's own
//! clock: whoever wants it writes a probe beside it and compares the times that the store gave both.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutResult, UpdateVersion};
use tokio::sync::Mutex;

use super::super::{Lock, OWN_PREFIX};
use super::{Store, runtime, wait};

pub(super) struct Lease {
    inner: Arc<dyn ObjectStore>,
    key: Path,
    /// The version that is ours; none once it was lost or given up.
    version: Arc<Mutex<Option<UpdateVersion>>>,
    renewal: Option<tokio::task::JoinHandle<()>>,
}

impl Lease {
    /// Takes the claim, if nobody has it or its holder has given no sign for the length of a lease.
    pub(super) fn take(store: &Store, key: Path, owner: &str) -> io::Result<Option<Lease>> {
        let body = Bytes::copy_from_slice(owner.as_bytes());
        let made = match put(store, &key, &body, PutMode::Create)? {
            Some(made) => made,
            None => match lapsed(store, &key)? {
                Some(version) => match put(store, &key, &body, PutMode::Update(version))? {
                    Some(made) => made,
                    None => return Ok(None),
                },
                None => return Ok(None),
            },
        };
        let version = Arc::new(Mutex::new(Some(UpdateVersion::from(made))));
        let renewal = runtime()?.spawn(renew(
            store.inner.clone(),
            key.clone(),
            body,
            version.clone(),
            store.settings.lease / 3,
        ));
        Ok(Some(Lease { inner: store.inner.clone(), key, version, renewal: Some(renewal) }))
    }

    fn give_up(&mut self) -> io::Result<()> {
        if let Some(renewal) = self.renewal.take() {
            renewal.abort();
        }
        let (inner, key, version) = (self.inner.clone(), self.key.clone(), self.version.clone());
        let done = wait(async move {
            let Some(ours) = version.lock().await.take() else { return Ok(()) };
            // Somebody else's by now, if we were silent for too long.
            match inner.head(&key).await {
                Ok(there) if there.e_tag == ours.e_tag => inner.delete(&key).await,
                Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(e) => Err(e),
            }
        })?;
        match done {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(e) => Err(super::store::as_io(&e, &[])),
        }
    }
}

/// A conditional write; none when its condition does not hold.
fn put(store: &Store, key: &Path, body: &Bytes, mode: PutMode) -> io::Result<Option<PutResult>> {
    let (inner, key, body) = (store.inner.clone(), key.clone(), body.clone());
    let done = wait(async move { inner.put_opts(&key, body.into(), mode.into()).await })?;
    match done {
        Ok(made) => Ok(Some(made)),
        Err(
            StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } | StoreError::NotFound { .. },
        ) => Ok(None),
        Err(e) => Err(super::store::as_io(&e, &store.secrets)),
    }
}

/// The version of a claim whose holder is silent.
fn lapsed(store: &Store, key: &Path) -> io::Result<Option<UpdateVersion>> {
    let (inner, held, lease) = (store.inner.clone(), key.clone(), store.settings.lease);
    let probe = Path::parse(format!("{key}{OWN_PREFIX}clock-{}", tiebeam_core::RunId::new()))
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    store.ask(async move {
        let claim = match inner.head(&held).await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            claim => claim?,
        };
        inner.put(&probe, Bytes::new().into()).await?;
        let now = inner.head(&probe).await;
        match inner.delete(&probe).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(e),
        }
        let silent = now?.last_modified.signed_duration_since(claim.last_modified);
        let is_dead = silent.to_std().is_ok_and(|silent| silent >= lease);
        Ok(is_dead.then_some(UpdateVersion { e_tag: claim.e_tag, version: claim.version }))
    })
}

async fn renew(
    inner: Arc<dyn ObjectStore>,
    key: Path,
    body: Bytes,
    version: Arc<Mutex<Option<UpdateVersion>>>,
    every: Duration,
) {
    loop {
        tokio::time::sleep(every).await;
        let mut held = version.lock().await;
        let Some(ours) = held.clone() else { return };
        match inner.put_opts(&key, body.clone().into(), PutMode::Update(ours).into()).await {
            Ok(made) => *held = Some(made.into()),
            Err(StoreError::Precondition { .. } | StoreError::NotFound { .. }) => {
                *held = None;
                return;
            }
            // A store that is ill is asked again next time; the claim may lapse, and then is lost.
            Err(_) => {}
        }
    }
}

impl Lock for Lease {
    fn remove(mut self: Box<Self>) -> io::Result<()> {
        self.give_up()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.renewal.is_some() {
            let _ = self.give_up();
        }
    }
}
