//! Object stores: `gs://`, `s3://`, `az://`, and files of web servers by `https://`.
//!
//! Each bucket is one [`Store`], a [`FileSystem`](super::FileSystem) whose paths are whole URLs. Async is inside only: a small
//! runtime does the requests, and callers wait for it.

mod fetch;
mod http;
mod lease;
mod store;
mod transfer;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ObjectStore, RetryConfig, StaticCredentialProvider};
use tiebeam_core::{Error, ErrorKind, Result};

pub use fetch::{Cache, Fetching, fetch};
pub use store::Store;

/// The variable with the hosts that `https://` files may come from, with commas between them.
pub const HTTPS_HOSTS: &str = "TIEBEAM_HTTPS_HOSTS";

/// How stores are reached.
#[derive(Clone)]
pub struct Settings {
    /// Options of `object_store`, such as `google_base_url`, `aws_region` or `azure_storage_account_name`; by default those
    /// that the environment has.
    pub options: Vec<(String, String)>,
    /// The hosts that files of web servers may come from: `example.org`, `*.example.org`, `127.0.0.1:8000`.
    pub https_hosts: Arc<[String]>,
    /// How often a request that failed is made again.
    pub retries: usize,
    /// The first pause before that; later ones are twice as long, up to 30 seconds.
    pub first_pause: Duration,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long a claim on an output outlives the last sign of its job.
    pub lease: Duration,
}

impl fmt::Debug for Settings {
    /// Values of options may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.options.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings").field("options", &names).field("https_hosts", &self.https_hosts).finish()
    }
}

impl Settings {
    /// What the environment says: the variables of each cloud's own tools, and [`HTTPS_HOSTS`].
    pub fn of_environment() -> Settings {
        Settings::of_variables(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The same of some variables.
    pub fn of_variables(variables: impl IntoIterator<Item = (String, String)>) -> Settings {
        let mut options = Vec::new();
        let mut hosts: Vec<String> = Vec::new();
        for (name, value) in variables {
            let trimmed = value.trim();
            if trimmed.is_empty() {
                continue;
            }
            match name.as_str() {
                HTTPS_HOSTS => hosts.extend(
                    trimmed.split(',').map(|h| h.trim().to_ascii_lowercase()).filter(|h| !h.is_empty()),
                ),
                "TIEBEAM_GCP_TOKEN" => options.push(("google_bearer_token".into(), trimmed.into())),
                "STORAGE_EMULATOR_HOST" => {
                    let url =
                        if trimmed.contains("://") { trimmed.into() } else { format!("http://{trimmed}") };
                    options.push(("google_base_url".into(), url));
                    options.push(("google_skip_signature".into(), "true".into()));
                }
                "AWS_ENDPOINT_URL_S3" => options.push(("aws_endpoint_url".into(), trimmed.into())),
                name if ["GOOGLE_", "AWS_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix)) => {
                    options.push((name.to_ascii_lowercase(), trimmed.into()));
                }
                _ => {}
            }
        }
        Settings { options, https_hosts: hosts.into(), ..Settings::default() }
    }

    fn retry(&self) -> RetryConfig {
        let backoff = BackoffConfig {
            init_backoff: self.first_pause,
            max_backoff: Duration::from_secs(30).max(self.first_pause),
            base: 2.0,
        };
        RetryConfig { backoff, max_retries: self.retries, retry_timeout: Duration::from_secs(300) }
    }

    /// The values that must not be shown.
    fn secrets(&self) -> Vec<String> {
        let secret = |name: &str| {
            ["key", "secret", "token", "password", "sas", "service_account", "credential"]
                .iter()
                .any(|word| name.contains(word))
        };
        let values = self.options.iter().filter(|(name, _)| secret(name)).map(|(_, value)| value.clone());
        values.filter(|value| value.len() >= 4 && value != "true" && value != "false").collect()
    }
}

impl Default for Settings {
    /// No options, no hosts; six retries from 200 ms on, two minutes a request, claims of a minute.
    fn default() -> Self {
        Settings {
            options: Vec::new(),
            https_hosts: Arc::new([]),
            retries: 6,
            first_pause: Duration::from_millis(200),
            timeout: Duration::from_secs(120),
            lease: Duration::from_secs(60),
        }
    }
}

/// The stores by scheme and bucket, so that connections and tokens are kept.
static STORES: Mutex<BTreeMap<String, Arc<Store>>> = Mutex::new(BTreeMap::new());

/// Says how one bucket (`gs://bucket`, `https://host`) is reached, in place of what the environment says.
///
/// # Errors
/// `InvalidArgument` for options that make no store.
pub fn configure(bucket: &str, settings: Settings) -> Result<()> {
    let place = Place::parse(bucket)?;
    let store = Arc::new(place.open(&settings)?);
    STORES.lock().unwrap_or_else(PoisonError::into_inner).insert(place.root, store);
    Ok(())
}

/// Whether URLs of that scheme belong here.
pub fn is_known(scheme: &str) -> bool {
    ["gs", "s3", "az", "https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// The store of a URL.
///
/// # Errors
/// `InvalidArgument` for a URL without a bucket, a host that is not allowed, or options that make no store.
pub fn of_url(url: &str) -> Result<Arc<Store>> {
    let place = Place::parse(url)?;
    let mut stores = STORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(store) = stores.get(&place.root) {
        return Ok(store.clone());
    }
    let store = Arc::new(place.open(&Settings::of_environment())?);
    stores.insert(place.root, store.clone());
    Ok(store)
}

/// An access token of Google Cloud, of whom the environment says: `TIEBEAM_GCP_TOKEN`, a key file (`GOOGLE_APPLICATION_CREDENTIALS`), what
/// `gcloud auth application-default login` left, or the machine's service account. It is remembered while it is valid.
///
/// # Errors
/// `InvalidArgument` where there is none.
pub fn google_token() -> Result<String> {
    static PROVIDER: Mutex<Option<GcpCredentialProvider>> = Mutex::new(None);
    let none = |error: object_store::Error| {
        let why = store::words(&error, &Settings::of_environment().secrets());
        // Where it was looked for: the error of a file does not name it.
        let file = std::env::var("GOOGLE_APPLICATION_CREDENTIALS").unwrap_or_default();
        let from = if file.is_empty() { String::new() } else { format!(" by the key file {file}") };
        let message = format!("no access token of Google Cloud{from}: {why}");
        Error::new(ErrorKind::InvalidArgument, "TB0462", message)
            .with_help("set TIEBEAM_GCP_TOKEN, or GOOGLE_APPLICATION_CREDENTIALS to a key file, or log in by `gcloud auth application-default login`")
    };
    let known = PROVIDER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let provider = match known {
        Some(provider) => provider,
        None => {
            // A machine that is not Google's has nobody to ask, and should not wait long to learn it.
            let settings =
                Settings { retries: 2, timeout: Duration::from_secs(10), ..Settings::of_environment() };
            let place = Place::parse("gs://token")?;
            let builder = place.google(&settings).with_skip_signature(false);
            let made = builder
                .with_retry(settings.retry())
                .with_http_connector(http::Connector::new(&settings, false))
                .build()
                .map_err(none)?;
            let mut provider = PROVIDER.lock().unwrap_or_else(PoisonError::into_inner);
            provider.insert(made.credentials().clone()).clone()
        }
    };
    let asked = wait(async move { provider.get_credential().await }).map_err(Error::from)?;
    Ok(asked.map_err(none)?.bearer.clone())
}

/// A URL's scheme and bucket.
struct Place {
    scheme: &'static str,
    bucket: String,
    /// `scheme://bucket`.
    root: String,
}

impl Place {
    fn parse(url: &str) -> Result<Place> {
        let refused = |why: &str, help: &str| {
            Error::new(ErrorKind::InvalidArgument, "TB0447", format!("`{}` {why}", shown(url)))
                .with_help(help)
        };
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let known = ["gs", "s3", "az", "https", "http"].into_iter().find(|k| scheme.eq_ignore_ascii_case(k));
        let Some(scheme) = known else {
            return Err(refused("is no URL of an object store", "wanted gs://, s3://, az:// or https://"));
        };
        let bucket = rest.split('/').next().unwrap_or_default();
        if bucket.contains('@') {
            return Err(refused("has a name or password in it", "credentials come from the environment"));
        }
        if bucket.is_empty()
            || bucket.contains(['*', '?', '#', '[', '\\'])
            || bucket.contains(char::is_whitespace)
        {
            return Err(refused(
                "names no bucket",
                "wanted scheme://bucket/path, without wildcards in the bucket",
            ));
        }
        let web = scheme.starts_with("http");
        if web && rest.contains(['?', '#']) {
            return Err(refused("has a query or fragment", "only plain paths of web servers can be read"));
        }
        let bucket = if web { bucket.to_ascii_lowercase() } else { bucket.to_owned() };
        let root = format!("{scheme}://{bucket}");
        Ok(Place { scheme, bucket, root })
    }

    fn open(&self, settings: &Settings) -> Result<Store> {
        let web = self.scheme.starts_with("http");
        if web && !http::is_allowed(self.scheme, &self.bucket, &settings.https_hosts) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0448",
                format!("files of {} are not allowed", self.root),
            )
            .with_help(match self.scheme {
                "http" => format!("plain http is for this machine alone; name it in {HTTPS_HOSTS}"),
                _ => format!("set {HTTPS_HOSTS}={} if this host is to be trusted", self.bucket),
            }));
        }
        let inner = self.build(settings, http::Connector::new(settings, web)).map_err(|e| {
            let why = store::words(&e, &settings.secrets());
            Error::new(ErrorKind::InvalidArgument, "TB0447", format!("cannot use {}: {why}", self.root))
                .with_help("docs/files.md tells which variables name an account and its credentials")
        })?;
        Ok(Store::new(self.root.clone(), inner, settings, web))
    }

    /// A bucket of Google's by the settings' options.
    fn google(&self, settings: &Settings) -> GoogleCloudStorageBuilder {
        let start = GoogleCloudStorageBuilder::new().with_bucket_name(&self.bucket);
        let options = settings.options.iter();
        let known = options.filter_map(|(k, v)| Some((k.parse::<GoogleConfigKey>().ok()?, v)));
        let named = known.filter(|(key, _)| !matches!(key, GoogleConfigKey::Bucket));
        named.fold(start, |builder, (key, value)| builder.with_config(key, value))
    }

    fn build(
        &self,
        settings: &Settings,
        http: http::Connector,
    ) -> object_store::Result<Arc<dyn ObjectStore>> {
        let retry = settings.retry();
        let options = settings.options.iter();
        // What other programs have in the environment under the same prefixes is not ours to judge.
        Ok(match self.scheme {
            "gs" => {
                let mut builder = self.google(settings);
                if builder.get_config_value(&GoogleConfigKey::SkipSignature).is_some_and(|v| v == "true") {
                    // Uploads would ask the metadata server for a token that then is not sent.
                    let nobody = GcpCredential { bearer: String::new() };
                    builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
                }
                Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
            }
            "s3" => {
                let start = AmazonS3Builder::new().with_bucket_name(&self.bucket);
                let known = options.filter_map(|(k, v)| Some((k.parse::<AmazonS3ConfigKey>().ok()?, v)));
                let named = known.filter(|(key, _)| !matches!(key, AmazonS3ConfigKey::Bucket));
                let builder = named.fold(start, |builder, (key, value)| builder.with_config(key, value));
                Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
            }
            "az" => {
                let start = MicrosoftAzureBuilder::new().with_container_name(&self.bucket);
                let known = options.filter_map(|(k, v)| Some((k.parse::<AzureConfigKey>().ok()?, v)));
                let named = known.filter(|(key, _)| !matches!(key, AzureConfigKey::ContainerName));
                let builder = named.fold(start, |builder, (key, value)| builder.with_config(key, value));
                Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
            }
            _ => {
                let builder = HttpBuilder::new().with_url(&self.root);
                Arc::new(builder.with_retry(retry).with_http_connector(http).build()?)
            }
        })
    }
}

/// A URL as errors show it: no name and password before the host, nothing behind a `?`.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    let path = match scheme.to_ascii_lowercase().starts_with("http") {
        true => path.split(['?', '#']).next().unwrap_or_default(),
        false => path,
    };
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

/// Does a request on the runtime and waits for it. Works on any thread, those of another runtime too.
fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let (send, receive) = std::sync::mpsc::sync_channel(1);
    runtime()?.spawn(async move {
        let _ = send.send(work.await);
    });
    receive.recv().map_err(|_| io::Error::other("a request was given up"))
}

fn runtime() -> io::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<io::Result<tokio::runtime::Runtime>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(64)
            .thread_name("tiebeam-stores")
            .enable_time()
            .build()
    });
    made.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))
}
