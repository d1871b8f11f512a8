//! Who we are to Google's services: where a token comes from, and how long it lasts. No secret is ever shown.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tiebeam_core::{Error, ErrorKind, Result};

use crate::clock::{Clock, since_epoch};
use crate::http::{Answer, Call, Http, escaped, safe_endpoint};

/// What a token lets one do.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// A token is renewed this long before it ends.
const MARGIN: Duration = Duration::from_secs(120);
/// How long a token from `gcloud`, which does not say it, is taken to last.
const UNTOLD: Duration = Duration::from_secs(30 * 60);
/// The metadata server of Google's machines, unless `GCE_METADATA_HOST` names another.
const METADATA: &str = "metadata.google.internal";

/// A text that is shown as dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(crate) fn bare(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where tokens come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A token that was given; it can't be renewed.
    Given(Secret),
    /// A JSON file with the key of a service account or the refresh token of a user.
    File(PathBuf),
    /// The metadata server of the machine that we run on, `HOST[:PORT]`.
    Metadata(String),
    /// A program that prints a token: `gcloud auth print-access-token`.
    Program(PathBuf, Vec<String>),
}

impl Source {
    /// The sources to ask, in their order. Where one was named, by the option `token` or by a variable, it is the only one:
    /// acting as somebody else than was said would be worse than failing.
    pub fn of_environment(token: Option<&Secret>, variable: impl Fn(&str) -> Option<String>) -> Vec<Source> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if let Some(token) = token {
            return vec![Source::Given(token.clone())];
        }
        if let Some(token) = variable("TIEBEAM_GCP_TOKEN") {
            return vec![Source::Given(Secret::new(token.trim()))];
        }
        if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
            return vec![Source::File(path.into())];
        }
        let host = variable("GCE_METADATA_HOST").unwrap_or_else(|| METADATA.to_owned());
        let print = ["auth", "print-access-token"].map(str::to_owned).to_vec();
        vec![Source::Metadata(host), Source::Program("gcloud".into(), print)]
    }
}

struct Token {
    secret: Secret,
    /// When it has to be renewed; never where that is impossible.
    until: Option<SystemTime>,
}

/// Gives tokens, and renews them.
pub(crate) struct Credentials {
    sources: Vec<Source>,
    http: Http,
    near: Http,
    token: Mutex<Option<Token>>,
}

impl Credentials {
    pub(crate) fn new(sources: Vec<Source>, clock: &Arc<dyn Clock>) -> Credentials {
        Credentials {
            sources,
            http: Http::new(clock.clone()),
            near: Http::near(clock.clone()),
            token: Mutex::new(None),
        }
    }

    /// A token that is valid now.
    pub(crate) fn token(&self) -> Result<Secret> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.http.clock.now();
        if let Some(token) = token.as_ref().filter(|token| token.until.is_none_or(|until| now < until)) {
            return Ok(token.secret.clone());
        }
        let fresh = self.fetch()?;
        Ok(token.insert(fresh).secret.clone())
    }

    /// Whether there is any use in asking again after a token was refused; forgets it if so.
    pub(crate) fn renew(&self) -> bool {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let renewable = token.as_ref().is_some_and(|token| token.until.is_some());
        if renewable {
            *token = None;
        }
        renewable
    }

    fn fetch(&self) -> Result<Token> {
        let mut misses: Vec<String> = Vec::new();
        for source in &self.sources {
            match source {
                Source::Given(secret) => {
                    let secret = fit(secret.bare(), "the token that was given")?;
                    return Ok(Token { secret, until: None });
                }
                Source::File(path) => return self.of_file(path),
                Source::Metadata(host) => match self.of_metadata(host) {
                    Some(token) => return token,
                    None => misses.push(format!("no metadata server at {host}")),
                },
                Source::Program(program, arguments) => match self.of_program(program, arguments) {
                    Ok(token) => return Ok(token),
                    Err(miss) => misses.push(miss),
                },
            }
        }
        Err(Error::new(
            ErrorKind::InvalidArgument,
            "TB0761",
            format!("no Google Cloud credentials were found: {}", misses.join("; ")),
        )
        .with_help(
            "set TIEBEAM_GCP_TOKEN to an access token, or GOOGLE_APPLICATION_CREDENTIALS to a key file, or log in by `gcloud auth login`",
        ))
    }

    /// The token in an answer of a token service or of the metadata server.
    fn of_answer(&self, answer: &Answer, what: &str) -> Result<Token> {
        if !answer.is_success() {
            // The answer to a refused key holds no secret; it says what is wrong with the key.
            let words = answer.words();
            return Err(refused(format!("{what} gave no token: {words}")));
        }
        let body = answer.json(what)?;
        let token = body["access_token"]
            .as_str()
            .ok_or_else(|| refused(format!("{what} answered without a token")))?;
        let lasts = Duration::from_secs(body["expires_in"].as_u64().unwrap_or(0));
        let until = self.http.clock.now() + lasts.saturating_sub(MARGIN);
        Ok(Token { secret: fit(token, what)?, until: Some(until) })
    }

    fn of_file(&self, path: &PathBuf) -> Result<Token> {
        let named = format!("the credentials file {}", path.display());
        let text = std::fs::read(path)
            .map_err(|error| refused(format!("{named} cannot be read")).with_source(error))?;
        // A JSON error's own words may cite what stands there, which may be a key.
        let key: Value =
            serde_json::from_slice(&text).map_err(|_| refused(format!("{named} is not JSON")))?;
        let field = |name: &str| key[name].as_str().ok_or_else(|| refused(format!("{named} lacks `{name}`")));
        let uri = key["token_uri"].as_str().unwrap_or("https://oauth2.googleapis.com/token");
        let uri = safe_endpoint("token_uri", uri)?;
        let form = match field("type")? {
            "service_account" => {
                let assertion = self.assertion(field("client_email")?, field("private_key")?, &key, &uri)?;
                vec![
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
                    ("assertion", assertion),
                ]
            }
            "authorized_user" => vec![
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", field("client_id")?.to_owned()),
                ("client_secret", field("client_secret")?.to_owned()),
                ("refresh_token", field("refresh_token")?.to_owned()),
            ],
            other => {
                return Err(refused(format!("{named} is of type `{other}`")).with_help(
                    "wanted service_account or authorized_user; for others: TIEBEAM_GCP_TOKEN=$(gcloud auth application-default print-access-token)",
                ));
            }
        };
        let form: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let call = Call::new("POST", uri)
            .header("content-type", "application/x-www-form-urlencoded")
            .bytes(form.join("&").into_bytes());
        let what = format!("the token service of {named}");
        self.of_answer(&self.http.call(&what, &call)?, &what)
    }

    /// A service account's word that it is itself: RFC 7523.
    fn assertion(&self, email: &str, pem: &str, key: &Value, audience: &str) -> Result<String> {
        let unusable = || refused(format!("the private key of {email} cannot be used"));
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| unusable())?;
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| unusable())?;
        let mut head = json!({"alg": "RS256", "typ": "JWT"});
        if let Some(id) = key["private_key_id"].as_str() {
            head["kid"] = json!(id);
        }
        let now = since_epoch(&*self.http.clock).as_secs();
        let claims = json!({"iss": email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now + 3600});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| unusable())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// None where there is no such server.
    fn of_metadata(&self, host: &str) -> Option<Result<Token>> {
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let answer = self.near.once(&Call::new("GET", url).header("metadata-flavor", "Google")).ok()?;
        // Networks that answer for every name are not Google's machines.
        (answer.header("metadata-flavor") == Some("Google"))
            .then(|| self.of_answer(&answer, "the metadata server"))
    }

    fn of_program(&self, program: &PathBuf, arguments: &[String]) -> Result<Token, String> {
        let named = format!("{} {}", program.display(), arguments.join(" "));
        let output = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|_| format!("`{}` is not installed", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("no word").trim();
            return Err(format!("`{named}` failed: {first}"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let secret = fit(text.trim(), &named).map_err(|error| error.message().to_owned())?;
        Ok(Token { secret, until: Some(self.http.clock.now() + UNTOLD) })
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0762", message)
}

/// A token that can stand in a header: what is not one must not get there, nor into an error.
fn fit(text: &str, from: &str) -> Result<Secret> {
    let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(Secret::new(text)) } else { Err(refused(format!("what {from} gave is no token"))) }
}
