//! The examples that the command carries: pipeline files with their own small data and models.

use std::path::PathBuf;

use tiebeam::{Error, ErrorKind, Result};

/// An example: its name, its pipeline file, the files it reads.
struct Bundle {
    name: &'static str,
    pipeline: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

macro_rules! file {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../../", $path)) as &[u8])
    };
}

const BUNDLES: [Bundle; 3] = [
    Bundle {
        name: "times-five",
        pipeline: "examples/times-five.yaml",
        files: &[
            file!("examples/times-five.yaml"),
            file!("examples/data/values.csv"),
            file!("fixtures/models/five.pth"),
        ],
    },
    Bundle {
        name: "branch",
        pipeline: "examples/branch.yaml",
        files: &[
            file!("examples/branch.yaml"),
            file!("examples/data/values.csv"),
            file!("fixtures/models/five.onnx"),
            file!("fixtures/models/ten.onnx"),
        ],
    },
    Bundle {
        name: "sequence",
        pipeline: "examples/sequence.yaml",
        files: &[
            file!("examples/sequence.yaml"),
            file!("examples/data/values.csv"),
            file!("fixtures/models/five.pth"),
            file!("fixtures/models/ten.onnx"),
        ],
    },
];

/// An example in a folder of its own, which goes when this does.
pub struct Example {
    _folder: tempfile::TempDir,
    pipeline: &'static str,
}

impl Example {
    /// Unpacks an example and makes its folder the current one, since its paths are relative.
    ///
    /// # Errors
    /// When there is no such example, or nowhere to put it.
    pub fn unpack(name: &str) -> Result<Self> {
        let Some(bundle) = BUNDLES.iter().find(|bundle| bundle.name == name) else {
            let names = BUNDLES.map(|bundle| bundle.name).join(", ");
            let message = format!("there is no example `{name}`");
            return Err(Error::new(ErrorKind::InvalidArgument, "TB0591", message)
                .with_help(format!("examples: {names}")));
        };
        let folder = tempfile::tempdir()?;
        for (path, bytes) in bundle.files {
            let path = folder.path().join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, bytes)?;
        }
        std::env::set_current_dir(folder.path())?;
        Ok(Example { _folder: folder, pipeline: bundle.pipeline })
    }

    /// The pipeline file, from the example's folder.
    pub fn file(&self) -> PathBuf {
        PathBuf::from(self.pipeline)
    }
}

/// The names of all examples.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUNDLES.iter().map(|bundle| bundle.name)
}
