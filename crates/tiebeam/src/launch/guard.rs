//! The flags that say who may use a server of ours.

use std::path::PathBuf;

use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_portable::{Guard, Token};

/// Who may use a server that others can reach: needed wherever it does not listen on loopback.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct GuardFlags {
    /// The certificate (PEM) that the server proves itself by; with --tls-key and --token.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// What those who connect must know: `${env:NAME}` or `${file:PATH}`.
    #[arg(long, value_name = "REFERENCE")]
    pub token: Option<String>,
    /// Lets in whoever reaches the port: Beam's engines offer neither TLS nor a token.
    #[arg(long)]
    pub insecure: bool,
}

impl GuardFlags {
    /// Takes these flags out of a program's arguments; gives what is left.
    ///
    /// # Errors
    /// When a flag has no value.
    pub(super) fn split(arguments: &[String]) -> Result<(GuardFlags, Vec<String>)> {
        let (mut flags, mut left) = (GuardFlags::default(), Vec::new());
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--insecure" {
                flags.insecure = true;
                continue;
            }
            let (name, told) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), None),
            };
            if !["--tls-cert", "--tls-key", "--token"].contains(&name) {
                left.push(argument.clone());
                continue;
            }
            let value = told
                .or_else(|| rest.next().cloned())
                .ok_or_else(|| usage(format!("`{name}` wants a value")))?;
            match name {
                "--tls-cert" => flags.tls_cert = Some(value.into()),
                "--tls-key" => flags.tls_key = Some(value.into()),
                _ => flags.token = Some(value),
            }
        }
        Ok((flags, left))
    }

    /// What they mean.
    ///
    /// # Errors
    /// When some are missing or say the opposite of others, or a file or a token can't be used.
    pub fn guard(&self) -> Result<Guard> {
        match (&self.tls_cert, &self.tls_key, &self.token, self.insecure) {
            (None, None, None, false) => Ok(Guard::default()),
            (None, None, None, true) => Ok(Guard::open()),
            (Some(certificate), Some(key), Some(token), false) => {
                Guard::new(certificate, key, Token::of_reference(token)?)
            }
            (.., true) => Err(usage("`--insecure` goes with neither a certificate nor a token".to_owned())),
            _ => Err(usage("`--tls-cert`, `--tls-key` and `--token` go together".to_owned())),
        }
    }
}

fn usage(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0533", message)
        .with_help("a token on a connection without TLS can be read by everyone on its way")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(arguments: &[&str]) -> Result<(GuardFlags, Vec<String>)> {
        GuardFlags::split(&arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn guards_are_told_from_a_workers_own_arguments() {
        let (flags, left) =
            split(&["--set", "a=--token", "--token=t", "--tls-cert", "c", "--tls-key", "k", "x"]).unwrap();
        assert_eq!(left, ["--set", "a=--token", "x"]);
        assert_eq!(
            (flags.tls_cert, flags.tls_key, flags.token),
            (Some("c".into()), Some("k".into()), Some("t".into()))
        );
        assert!(split(&["--insecure"]).unwrap().0.insecure);
        assert_eq!(split(&["--token"]).unwrap_err().message(), "`--token` wants a value");
    }

    #[test]
    fn half_a_guard_is_refused() {
        let refused = |arguments: &[&str]| {
            let Err(error) = split(arguments).unwrap().0.guard() else { panic!("{arguments:?} is a guard") };
            error.message().to_owned()
        };
        let together = "`--tls-cert`, `--tls-key` and `--token` go together";
        assert_eq!(refused(&["--token", "${env:X}"]), together);
        assert_eq!(refused(&["--tls-cert", "c", "--tls-key", "k"]), together);
        assert_eq!(
            refused(&["--insecure", "--token", "${env:X}"]),
            "`--insecure` goes with neither a certificate nor a token"
        );
        assert_eq!(
            refused(&["--tls-cert", "c", "--tls-key", "k", "--token", "plain"]),
            "a token is named and not told"
        );
    }
}
