//! [`StateDict`]: the named tensors of a PyTorch file, read without running anything of it.
//!
//! Three formats: torch's zip archive (1.6 and later), the concatenated pickles before it, and safetensors. Reading
//! takes memory and time in proportion to the file, whatever is in it; tensors share the file's bytes. At most: 64 times the
//! file for records that were deflated, and 512 bytes for each byte of the pickle (`tests/hostile.rs` counts).

mod archive;
mod detect;
mod globals;
mod legacy;
mod pickle;
mod rebuild;
mod resolve;
mod safetensors;
mod tensor;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tricks;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tiebeam_core::error::{Error, ErrorKind, Result};

pub use tensor::{ScalarType, StateTensor};

use archive::Archive;
use resolve::{Contents, Storages};

/// The named tensors of a file, in the file's order, with what stood beside them.
///
/// ```no_run
/// let weights = tiebeam_torch::StateDict::open("five.pth")?;
/// for (name, tensor) in weights.iter() {
///     println!("{name}: {} {:?}", tensor.dtype().name(), tensor.shape());
/// }
/// # Ok::<(), tiebeam_core::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StateDict {
    tensors: Vec<(String, StateTensor)>,
    places: HashMap<String, usize>,
    metadata: Vec<(String, String)>,
    file: String,
    file_bytes: u64,
    sha256: String,
}

impl StateDict {
    /// Reads a file.
    ///
    /// # Errors
    /// Of kind [`Model`](ErrorKind::Model), naming the file and what is wrong: missing, empty, cut off, damaged,
    /// another format, code in a pickle (refused by name), a whole model instead of a state dict.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => format!("model file {file} does not exist"),
                _ => format!("model file {file} can't be read"),
            };
            Error::new(ErrorKind::Model, "TB0360", message).with_source(error)
        };
        let about = std::fs::metadata(path).map_err(unreadable)?;
        if about.is_dir() {
            return Err(Error::new(
                ErrorKind::Model,
                "TB0360",
                format!("model file {file} is a directory, not a state dict"),
            ));
        }
        if !about.is_file() {
            // A pipe or device could go on for ever.
            let message = format!("model file {file} is not a regular file");
            return Err(Error::new(ErrorKind::Model, "TB0360", message));
        }
        let data = std::fs::read(path).map_err(unreadable)?;
        StateDict::from_bytes(&file, data)
    }

    /// Reads a file that is in memory; `file` is its name in messages.
    ///
    /// # Errors
    /// As [`open`](StateDict::open).
    pub fn from_bytes(file: &str, data: impl Into<Bytes>) -> Result<Self> {
        let data = data.into();
        let mut contents = if data.starts_with(b"PK\x03\x04") {
            from_archive(&data, file)?
        } else if data.starts_with(legacy::MAGIC) {
            let (object, mut storages) = legacy::read(&data, file)?;
            resolve::contents(&object, &mut storages, file)?
        } else if safetensors::is(&data) {
            let (tensors, metadata) = safetensors::read(&data, file)?;
            Contents { tensors, metadata }
        } else {
            return Err(detect::foreign(&data, file));
        };
        if contents.tensors.is_empty() {
            return Err(Error::new(ErrorKind::Model, "TB0368", format!("{file} holds no tensors")));
        }
        // What DataParallel and torch.compile put before every name.
        for prefix in ["module.", "_orig_mod.", "module."] {
            if contents.tensors.iter().all(|(name, _)| name.len() > prefix.len() && name.starts_with(prefix))
            {
                for (name, _) in &mut contents.tensors {
                    name.drain(..prefix.len());
                }
            }
        }
        let places = contents.tensors.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        Ok(StateDict {
            tensors: contents.tensors,
            places,
            metadata: contents.metadata,
            file: file.to_owned(),
            file_bytes: data.len() as u64,
            sha256: hex(&Sha256::digest(&data)),
        })
    }

    /// One without tensors.
    pub(crate) fn none() -> Self {
        StateDict {
            tensors: Vec::new(),
            places: HashMap::new(),
            metadata: Vec::new(),
            file: String::new(),
            file_bytes: 0,
            sha256: String::new(),
        }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&StateTensor> {
        self.places.get(name).map(|at| &self.tensors[*at].1)
    }

    /// All tensors by name, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &StateTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none; never so for one that was read.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Numbers and short texts that stood beside the tensors, as Python prints them.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The file's name, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's size in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The file's SHA-256, in lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The state dict as it is, if its file's SHA-256 is the wanted one (hex, in any case).
    ///
    /// # Errors
    /// When it is another file.
    pub fn verified(self, sha256: &str) -> Result<Self> {
        if self.sha256.eq_ignore_ascii_case(sha256) {
            return Ok(self);
        }
        Err(Error::new(
            ErrorKind::Model,
            "TB0367",
            format!("model file {} has the SHA-256 {}, wanted {sha256}", self.file, self.sha256),
        ))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn big_endian(file: &str) -> Error {
    Error::new(
        ErrorKind::Model,
        "TB0364",
        format!("{file} was written by a big-endian machine, which is not read"),
    )
    .with_help("load it with torch on any machine and save it again")
}

fn from_archive(data: &Bytes, file: &str) -> Result<Contents> {
    let mut archive = Archive::open(data.clone(), file)?;
    // torch puts everything into one folder, named after the file.
    let mut prefixes: Vec<String> = archive
        .names()
        .filter_map(|name| name.strip_suffix("/data.pkl"))
        .filter(|prefix| !prefix.contains('/'))
        .map(str::to_owned)
        .collect();
    prefixes.sort();
    let Some(prefix) = prefixes.first().cloned() else {
        return Err(detect::foreign_archive(&archive, file));
    };
    let code = format!("{prefix}/code/");
    if archive
        .names()
        .any(|name| name.strip_prefix(&prefix) == Some("/constants.pkl") || name.starts_with(&code))
    {
        return Err(globals::whole_model(&format!("{file} is a TorchScript archive")));
    }
    if let Some((order, _)) = archive.read(&format!("{prefix}/byteorder"))?
        && order.as_ref() != b"little"
    {
        return Err(big_endian(file));
    }
    let Some((pickle, base)) = archive.read(&format!("{prefix}/data.pkl"))? else {
        return Err(detect::foreign_archive(&archive, file));
    };
    let object = pickle::unpickle(&pickle, 0, file, base)?;
    resolve::contents(&object, &mut Storages::Records { archive, prefix, read: HashMap::new() }, file)
}
