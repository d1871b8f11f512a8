//! Variables of the environment that models want to be set before they are loaded: [`with_env_vars`].
//!
//! [`with_env_vars`]: crate::ModelHandler::with_env_vars
#![allow(unsafe_code)] // the only way to change the environment of a process that runs: see `set`

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::{Mutex, PoisonError};

use tiebeam_core::error::{Error, ErrorKind, Result};

/// A variable can't be set, or not to what is wanted.
const CODE: &str = "TB0349";

/// Variables with their values. Values may be secrets: no error shows them.
pub(crate) type EnvVars = Vec<(String, String)>;

/// What was set in this process.
static SET: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Sets variables in this process, for all of it and for good. To be called before the model that wants them is loaded.
///
/// # Errors
/// `InvalidArgument` for a name or value that no environment can hold, and for a variable that was set to another value before: one of the
/// two models would get what it did not ask for.
pub fn set(variables: &[(String, String)]) -> Result<()> {
    let mut known = SET.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, value) in variables {
        possible(name, value)?;
        match known.get(name) {
            Some(earlier) if earlier == value => continue,
            Some(_) => {
                let message =
                    format!("env_vars: `{name}` is wanted in two ways by models of the same process");
                return Err(Error::new(ErrorKind::InvalidArgument, CODE, message)
                    .with_help("give each of them a process of its own: `isolation: process`"));
            }
            None => {}
        }
        if std::env::var_os(name).as_deref() != Some(OsStr::new(value)) {
            // SAFETY: Rust's own readers and writers of the environment wait for each other. What remains are readers in C on other
            // threads. A step's model is loaded before the runner has threads, and by an engine's worker before its first batch. Only
            // a model for keys that is loaded later, and wants a variable that none before it wanted, sets it while others compute, as
            // Beam's do; what reads the environment in C at that very moment is not protected from it. `isolation: process` is.
            unsafe { std::env::set_var(name, value) };
        }
        known.insert(name.to_owned(), value.to_owned());
    }
    Ok(())
}

/// Refuses what no environment can hold.
///
/// # Errors
/// `InvalidArgument`, naming the variable.
pub fn possible(name: &str, value: &str) -> Result<()> {
    let wrong = if name.is_empty() {
        "a variable without a name"
    } else if name.contains(['=', '\0']) {
        "a name with `=` or a zero byte in it"
    } else if value.contains('\0') {
        "a value with a zero byte in it"
    } else {
        return Ok(());
    };
    let message = format!("env_vars: {wrong}: {name:?}");
    Err(Error::new(ErrorKind::InvalidArgument, CODE, message).with_help("wanted such as OMP_NUM_THREADS: 1"))
}
