//! Who may use a server of ours: everyone on this machine where it listens on loopback; elsewhere only who has the token, over
//! TLS. And the other side of it: addresses that begin with `https://`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tiebeam_core::{Error, ErrorKind, Result};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, Server, ServerTlsConfig};
use tonic::{Request, Status};

/// The variable with the token that goes to `https://` addresses.
pub const TOKEN_VARIABLE: &str = "TIEBEAM_TOKEN";
/// The variable with a file of certificates (PEM) that `https://` addresses may be signed by, beside the system's.
pub const CA_VARIABLE: &str = "TIEBEAM_CA_FILE";

/// The shortest token that a server takes: what is shorter is guessed.
const SHORTEST: usize = 16;

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0719", message)
}

/// A secret that only the two sides of a connection know. It shows nothing of itself.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token that `${env:NAME}` or `${file:PATH}` stands for, without the blanks around it.
    ///
    /// # Errors
    /// For any other text, which command lines and files would show to everyone; when there is no such variable or file;
    /// for a token that is shorter than 16 characters or holds what a header can't.
    pub fn of_reference(reference: &str) -> Result<Token> {
        let inner = reference.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let found = match inner.and_then(|inner| inner.split_once(':')) {
            Some(("env", name)) => {
                std::env::var(name).map_err(|_| wrong(format!("there is no variable {name}")))?
            }
            Some(("file", path)) => std::fs::read_to_string(path)
                .map_err(|error| wrong(format!("the token cannot be read from {path}")).with_source(error))?,
            _ => {
                return Err(wrong("a token is named and not told".to_owned())
                    .with_help("write `${env:NAME}` or `${file:PATH}`: what is on a command line is seen by everyone on the machine"));
            }
        };
        Token::new(found.trim())
    }

    fn new(text: &str) -> Result<Token> {
        if text.len() < SHORTEST {
            return Err(wrong(format!(
                "a token has at least {SHORTEST} characters, this one {}",
                text.len()
            ))
            .with_help("`openssl rand -hex 32` makes one"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("a token is made of visible ASCII characters".to_owned()));
        }
        Ok(Token(text.into()))
    }

    /// In a time that does not tell how much of it was right.
    fn is(&self, other: &str) -> bool {
        let (own, other) = (self.0.as_bytes(), other.as_bytes());
        own.len() == other.len() && own.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

/// What a server asks of those who connect. By default nothing, which does on loopback only.
#[derive(Clone, Default)]
pub struct Guard {
    tls: Option<Identity>,
    token: Option<Token>,
    is_open: bool,
}

impl Guard {
    /// TLS by a certificate and its key (PEM files), and a token.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn new(certificate: &Path, key: &Path, token: Token) -> Result<Guard> {
        let read = |what: &str, path: &Path| {
            std::fs::read(path).map_err(|error| {
                wrong(format!("the {what} cannot be read from {}", path.display())).with_source(error)
            })
        };
        let identity = Identity::from_pem(read("certificate", certificate)?, read("key", key)?);
        Ok(Guard { tls: Some(identity), token: Some(token), is_open: false })
    }

    /// Nothing, wherever the server listens: whoever reaches it can use it.
    pub fn open() -> Guard {
        Guard { is_open: true, ..Guard::default() }
    }

    /// Whether everyone is let in who reaches the server.
    pub fn is_open(&self) -> bool {
        self.is_open || (self.tls.is_none() && self.token.is_none())
    }

    /// Whether a server may listen there with this guard.
    ///
    /// # Errors
    /// Where others can reach it and nothing keeps them out.
    pub fn check(&self, address: SocketAddr) -> Result<()> {
        if address.ip().is_loopback() || self.is_open || (self.tls.is_some() && self.token.is_some()) {
            return Ok(());
        }
        Err(wrong(format!("{address} can be reached from other machines, and nothing keeps them out")).with_help(
            "add `--tls-cert FILE --tls-key FILE --token '${env:NAME}'`, or listen at 127.0.0.1; Beam's engines offer neither TLS nor a token: where a network keeps others out, `--insecure` lets everyone in who reaches the port",
        ))
    }

    /// A server that speaks TLS if it is to.
    pub(crate) fn server(&self) -> Result<Server> {
        let server = Server::builder();
        match &self.tls {
            None => Ok(server),
            Some(identity) => {
                server.tls_config(ServerTlsConfig::new().identity(identity.clone())).map_err(|error| {
                    wrong("the certificate and its key cannot be used".to_owned()).with_source(error)
                })
            }
        }
    }

    /// Refuses calls without the token.
    pub(crate) fn door(&self) -> Door {
        Door(self.token.clone())
    }
}

/// Lets calls in that bring the token.
#[derive(Clone)]
pub(crate) struct Door(Option<Token>);

impl Interceptor for Door {
    fn call(&mut self, request: Request<()>) -> std::result::Result<Request<()>, Status> {
        let Some(token) = &self.0 else { return Ok(request) };
        let told = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        match told.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(told) if token.is(told) => Ok(request),
            Some(_) => Err(Status::unauthenticated("the token is not the one that this server wants")),
            None => Err(Status::unauthenticated(format!(
                "this server wants a token: set {TOKEN_VARIABLE} where you ask it"
            ))),
        }
    }
}

/// Brings a token to every call.
#[derive(Clone, Default)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// What a client has for servers at `https://` addresses.
#[derive(Default)]
pub(crate) struct Credentials {
    token: Option<Token>,
    authorities: Option<PathBuf>,
}

impl Credentials {
    /// Those of this process's environment.
    pub(crate) fn of_environment() -> Result<Credentials> {
        let token = std::env::var(TOKEN_VARIABLE).ok().map(|text| Token::new(text.trim())).transpose()?;
        Ok(Credentials { token, authorities: std::env::var_os(CA_VARIABLE).map(PathBuf::from) })
    }

    /// The token for calls by TLS: others would show it to everyone on the way.
    pub(crate) fn bearer(&self, is_tls: bool) -> Result<Bearer> {
        let Some(token) = self.token.as_ref().filter(|_| is_tls) else { return Ok(Bearer::default()) };
        let mut value = MetadataValue::try_from(format!("Bearer {}", token.0)).map_err(Error::internal)?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    /// How servers prove who they are: by the system's authorities, and those of the file.
    pub(crate) fn tls(&self) -> Result<ClientTlsConfig> {
        let config = ClientTlsConfig::new().with_native_roots();
        match &self.authorities {
            None => Ok(config),
            Some(path) => {
                let pem = std::fs::read(path).map_err(|error| {
                    wrong(format!("the certificates of {CA_VARIABLE} cannot be read from {}", path.display()))
                        .with_source(error)
                })?;
                Ok(config.ca_certificate(Certificate::from_pem(pem)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef";

    #[test]
    fn tokens_are_named_and_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{LONG}\n")).unwrap();
        let token = Token::of_reference(&format!("${{file:{}}}", path.display())).unwrap();
        assert!(token.is(LONG) && !token.is("0123456789abcdeg") && !token.is("0123456789abcde"));
        assert_eq!(format!("{token:?}"), "Token(…)");
        for (reference, wanted) in [
            (LONG, "a token is named and not told"),
            ("${env:TIEBEAM_NO_SUCH_VARIABLE}", "there is no variable TIEBEAM_NO_SUCH_VARIABLE"),
            ("${file:/no/such/file}", "the token cannot be read from /no/such/file"),
            ("${x:y}", "a token is named and not told"),
        ] {
            assert_eq!(Token::of_reference(reference).unwrap_err().message(), wanted);
        }
        assert_eq!(
            Token::new("short").unwrap_err().message(),
            "a token has at least 16 characters, this one 5"
        );
        assert!(Token::new("0123456789 abcdef").is_err() && Token::new("0123456789abcdeé").is_err());
    }

    #[test]
    fn what_others_reach_is_guarded_or_not_opened() {
        let guard = Guard::default();
        for address in ["127.0.0.1:1", "[::1]:1"] {
            guard.check(address.parse().unwrap()).unwrap();
        }
        for address in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1"] {
            let error = guard.check(address.parse().unwrap()).unwrap_err();
            assert_eq!(
                error.message(),
                format!("{address} can be reached from other machines, and nothing keeps them out")
            );
            Guard::open().check(address.parse().unwrap()).unwrap();
            // Half of it is no guard.
            let half = Guard { token: Some(Token::new(LONG).unwrap()), ..Guard::default() };
            assert!(half.check(address.parse().unwrap()).is_err());
        }
    }

    /// A server with a certificate of its own for `localhost`, asked by a client.
    fn asked(
        credentials: impl FnOnce(PathBuf) -> Credentials,
        scheme: &str,
    ) -> std::result::Result<String, String> {
        use crate::pool::{PoolWorkers, WorkerPool};
        use crate::wire::{connect_as, runtime};
        use tiebeam_model::fn_api::StopWorkerRequest;
        use tiebeam_model::fn_api::beam_fn_external_worker_pool_client::BeamFnExternalWorkerPoolClient;

        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let guard = Guard::new(&certificate, &key, Token::new(LONG).unwrap()).unwrap();
        let workers = PoolWorkers::Processes { program: "false".into(), arguments: Vec::new() };
        let pool = WorkerPool::start_guarded(SocketAddr::from(([127, 0, 0, 1], 0)), workers, &guard).unwrap();
        let address = format!("{scheme}localhost:{}", pool.address().port());
        let credentials = credentials(certificate);
        runtime().unwrap().block_on(async {
            let wire = connect_as("the pool", &address, &credentials).await.map_err(|e| format!("{e:?}"))?;
            let request = StopWorkerRequest { worker_id: "nobody".to_owned() };
            let answer = BeamFnExternalWorkerPoolClient::new(wire).stop_worker(request).await;
            answer.map(|answer| answer.into_inner().error).map_err(|status| status.message().to_owned())
        })
    }

    #[test]
    fn a_guarded_server_lets_in_who_trusts_it_and_has_the_token() {
        let token = |text: &str| Some(Token::new(text).unwrap());
        let right = |authorities| Credentials { token: token(LONG), authorities: Some(authorities) };
        assert_eq!(asked(right, "https://"), Ok(String::new()));
        assert_eq!(
            asked(|authorities| Credentials { token: None, authorities: Some(authorities) }, "https://"),
            Err("this server wants a token: set TIEBEAM_TOKEN where you ask it".to_owned())
        );
        assert_eq!(
            asked(|a| Credentials { token: token("fedcba9876543210"), authorities: Some(a) }, "https://"),
            Err("the token is not the one that this server wants".to_owned())
        );
        let unknown =
            asked(|_| Credentials { token: token(LONG), authorities: None }, "https://").unwrap_err();
        assert!(unknown.contains("UnknownIssuer") || unknown.contains("certificate"), "{unknown}");
        assert!(asked(right, "").is_err(), "without TLS nobody answers");
        let missing = |_| Credentials { token: None, authorities: Some("/no/such/file".into()) };
        let error = asked(missing, "https://").unwrap_err();
        assert!(
            error.contains("the certificates of TIEBEAM_CA_FILE cannot be read from /no/such/file"),
            "{error}"
        );
    }

    #[test]
    fn a_token_does_not_travel_in_the_clear() {
        let credentials = Credentials { token: Some(Token::new(LONG).unwrap()), authorities: None };
        assert!(credentials.bearer(false).unwrap().0.is_none());
        assert_eq!(credentials.bearer(true).unwrap().0.unwrap(), format!("Bearer {LONG}"));
    }
}
