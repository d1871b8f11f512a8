//! The examples that the command carries: pipeline files with their own small data and models.

use std::path::PathBuf;

use tiebeam::{Error, ErrorKind, Result};

/// A file that the command carries: its path and what is in it.
pub type File = (&'static str, &'static [u8]);

/// An example: its name, its pipeline file, the files it reads.
pub struct Bundle {
    name: &'static str,
    pipeline: &'static str,
    /// The pipeline file's text.
    pub pipeline_text: &'static str,
    /// What it reads.
    pub files: &'static [File],
}

macro_rules! file {
    ($path:literal) => {
        ($path, include_bytes!(concat!("../../../", $path)) as &[u8])
    };
}

const TIMES_FIVE: Bundle = Bundle {
    name: "times-five",
    pipeline: "examples/times-five.yaml",
    pipeline_text: include_str!("../../../examples/times-five.yaml"),
    files: &[file!("examples/data/values.csv"), file!("fixtures/models/five.pth")],
};

/// Two models on the same numbers.
pub const BRANCH: Bundle = Bundle {
    name: "branch",
    pipeline: "examples/branch.yaml",
    pipeline_text: include_str!("../../../examples/branch.yaml"),
    files: &[
        file!("examples/data/values.csv"),
        file!("fixtures/models/five.onnx"),
        file!("fixtures/models/ten.onnx"),
    ],
};

/// One model after another.
pub const SEQUENCE: Bundle = Bundle {
    name: "sequence",
    pipeline: "examples/sequence.yaml",
    pipeline_text: include_str!("../../../examples/sequence.yaml"),
    files: &[
        file!("examples/data/values.csv"),
        file!("fixtures/models/five.pth"),
        file!("fixtures/models/ten.onnx"),
    ],
};

const BUNDLES: [Bundle; 3] = [TIMES_FIVE, BRANCH, SEQUENCE];

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
        let pipeline = (bundle.pipeline, bundle.pipeline_text.as_bytes());
        for (path, bytes) in bundle.files.iter().copied().chain([pipeline]) {
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
