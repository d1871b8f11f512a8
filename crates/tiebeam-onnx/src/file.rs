//! Reading model files: what a file is, whether it is whole, and where its weights are. No engine sees a file before it
//! went through here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tiebeam_core::error::{Error, ErrorKind, Result};

use crate::proto::{
    EXTERNAL, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, data_type,
};

/// The weights of a model that was written in two pieces.
const WEIGHTS: &str = "weights.bin";

/// Where weights begin that are mapped into memory: at multiples of this.
const PAGE: usize = 4096;

/// A model that was read and found sound, before any engine has it. Clones share its bytes.
#[derive(Clone)]
pub struct ModelFile {
    name: String,
    path: Option<PathBuf>,
    bytes: Bytes,
    proto: ModelProto,
    sha256: String,
    external: BTreeMap<String, ExternalFile>,
}

/// Fetches a file of the model's folder.
type Beside<'a> = &'a dyn Fn(&Path) -> Result<PathBuf>;

/// The bytes of a model's file.
fn bytes_of(name: &str, path: &Path) -> Result<Bytes> {
    let bytes = std::fs::read(path).map_err(|e| {
        let error = match e.kind() {
            std::io::ErrorKind::NotFound => model_error("TB0330", name, "there is no such file"),
            std::io::ErrorKind::IsADirectory => {
                model_error("TB0330", name, "this is a directory, not a file")
            }
            _ => model_error("TB0330", name, "the file cannot be read"),
        };
        error.with_source(e)
    })?;
    Ok(Bytes::from(bytes))
}

/// A file of weights next to the model.
#[derive(Clone)]
struct ExternalFile {
    path: PathBuf,
    length: u64,
}

/// An error of kind [`Model`](ErrorKind::Model) that names the model.
pub(crate) fn model_error(code: &'static str, name: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Model, code, format!("model {name}: {what}"))
}

impl ModelFile {
    /// Reads a model from a file. `sha256`, where given, is the hex digest that the file must have (of the `.onnx` file
    /// itself; weights in files beside it are not covered).
    ///
    /// # Errors
    /// Of kind [`Model`](ErrorKind::Model), naming the path and what is wrong with it: missing, empty, cut off, something
    /// else than ONNX (and what it looks like), another digest, weights outside of the model's own folder.
    pub fn open(path: &Path, sha256: Option<&str>) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = bytes_of(&name, path)?;
        ModelFile::read(name, Some(path.to_owned()), bytes, sha256, None)
    }

    /// Reads a model that was fetched into a file; `name` stands for it in errors and reports. `beside` fetches a file of weights
    /// by its place in the model's own folder.
    ///
    /// # Errors
    /// As [`open`](ModelFile::open), and what `beside` says.
    pub fn fetched(
        name: impl Into<String>,
        path: &Path,
        sha256: Option<&str>,
        beside: &dyn Fn(&Path) -> Result<PathBuf>,
    ) -> Result<Self> {
        let name = name.into();
        let bytes = bytes_of(&name, path)?;
        ModelFile::read(name, None, bytes, sha256, Some(beside))
    }

    /// Takes a model that is in memory already. `name` stands for it in errors and reports.
    ///
    /// # Errors
    /// As [`open`](ModelFile::open); weights in other files are refused, since there is no folder.
    pub fn from_bytes(name: impl Into<String>, bytes: impl Into<Bytes>) -> Result<Self> {
        ModelFile::read(name.into(), None, bytes.into(), None, None)
    }

    fn read(
        name: String,
        path: Option<PathBuf>,
        bytes: Bytes,
        wanted: Option<&str>,
        beside: Option<Beside<'_>>,
    ) -> Result<Self> {
        let sha256 = hex(&Sha256::digest(&bytes));
        if let Some(wanted) = wanted
            && !wanted.eq_ignore_ascii_case(&sha256)
        {
            let what = format!("its SHA-256 is {sha256}, wanted {wanted}");
            return Err(
                model_error("TB0333", &name, what).with_help("fetch the file anew, or correct `sha256`")
            );
        }
        if bytes.is_empty() {
            return Err(model_error("TB0331", &name, "the file is empty"));
        }
        if let Some(looks) = looks_like(&bytes) {
            return Err(model_error("TB0331", &name, format!("not an ONNX model, this looks like {looks}")));
        }
        let proto = ModelProto::decode(bytes.clone()).map_err(|e| {
            model_error("TB0331", &name, format!("not an ONNX model, or cut off or damaged ({e})"))
        })?;
        let mut file = ModelFile { name, path, bytes, proto, sha256, external: BTreeMap::new() };
        if let Some(beside) = beside {
            file.fetch_weights(beside)?;
        }
        file.check()?;
        Ok(file)
    }

    /// Brings the files of weights here that are in the model's folder of a store.
    fn fetch_weights(&mut self, beside: Beside<'_>) -> Result<()> {
        let mut locations = BTreeSet::new();
        for_each_tensor(&self.proto, &mut |tensor| {
            if tensor.data_location == EXTERNAL
                && let Ok(external) = External::of(tensor)
            {
                locations.insert(external.location);
            }
        });
        for location in locations {
            // Others are refused by the check, before anything is fetched from there.
            if !is_inside(&location) {
                return self.check();
            }
            let parts = Path::new(&location).components().filter(|part| *part != Component::CurDir);
            let path = beside(&parts.collect::<PathBuf>())?;
            let length = path.metadata()?.len();
            self.external.insert(location, ExternalFile { path, length });
        }
        Ok(())
    }

    /// The path, or the name that a model in memory was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The message as it was read.
    pub fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// The graph; every model that was opened has one.
    pub fn graph(&self) -> &GraphProto {
        static NOTHING: std::sync::LazyLock<GraphProto> = std::sync::LazyLock::new(GraphProto::default);
        self.proto.graph.as_ref().unwrap_or(&NOTHING)
    }

    /// The digest of the file, in hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The bytes of the file and of the weights beside it.
    pub fn num_bytes(&self) -> u64 {
        self.bytes.len() as u64 + self.external.values().map(|file| file.length).sum::<u64>()
    }

    /// The bytes of weights in files beside the model.
    pub(crate) fn external_bytes(&self) -> u64 {
        self.external.values().map(|file| file.length).sum()
    }

    /// Where the file is, unless it came from memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The model in one piece: as it was read, or with the weights of other files put in.
    ///
    /// # Errors
    /// When such a file can't be read.
    pub fn self_contained(&self) -> Result<Bytes> {
        if self.external.is_empty() {
            return Ok(self.bytes.clone());
        }
        Ok(Bytes::from(self.whole()?.encode_to_vec()))
    }

    /// Writes the model into a folder in two pieces, itself and its larger weights, each of these where a page of memory begins,
    /// so that an engine can map them. Gives the model's path.
    pub(crate) fn write_apart(&self, folder: &Path) -> std::io::Result<PathBuf> {
        let mut proto = match self.external.is_empty() {
            true => self.proto.clone(),
            false => self.whole().map_err(std::io::Error::other)?,
        };
        let mut weights = BufWriter::new(File::create(folder.join(WEIGHTS))?);
        let mut offset = 0;
        for tensor in proto.graph.iter_mut().flat_map(|graph| &mut graph.initializer) {
            let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= PAGE) else { continue };
            weights.write_all(&raw)?;
            let filled = raw.len().next_multiple_of(PAGE);
            weights.write_all(&[0; PAGE][..filled - raw.len()])?;
            tensor.data_location = EXTERNAL;
            let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
            tensor.external_data = vec![
                entry("location", WEIGHTS.to_owned()),
                entry("offset", offset.to_string()),
                entry("length", raw.len().to_string()),
            ];
            offset += filled;
        }
        weights.flush()?;
        let path = folder.join("model.onnx");
        std::fs::write(&path, proto.encode_to_vec())?;
        Ok(path)
    }

    /// The message with the weights of other files put in.
    fn whole(&self) -> Result<ModelProto> {
        let mut files = BTreeMap::new();
        for (location, file) in &self.external {
            let bytes = std::fs::read(&file.path).map_err(|e| {
                model_error(
                    "TB0332",
                    &self.name,
                    format!("its weights in {} cannot be read", file.path.display()),
                )
                .with_source(e)
            })?;
            files.insert(location.as_str(), Bytes::from(bytes));
        }
        let mut proto = self.proto.clone();
        let mut missing = None;
        for_each_tensor_mut(&mut proto, &mut |tensor| {
            if tensor.data_location != EXTERNAL {
                return;
            }
            let span = External::of(tensor).ok().and_then(|external| {
                let bytes = files.get(external.location.as_str())?;
                let end = external.end(bytes.len() as u64).filter(|end| *end <= bytes.len() as u64)?;
                Some(bytes.slice(external.offset as usize..end as usize))
            });
            match span {
                Some(span) => {
                    tensor.raw_data = Some(span);
                    tensor.external_data.clear();
                    tensor.data_location = 0;
                }
                None => missing = Some(tensor.name.clone()),
            }
        });
        match missing {
            // The lengths were right at opening: the file has changed since.
            Some(tensor) => {
                Err(model_error("TB0332", &self.name, format!("weight {tensor} is gone from its file")))
            }
            None => Ok(proto),
        }
    }

    /// What every engine takes for granted.
    fn check(&mut self) -> Result<()> {
        let invalid = |what: String| Err(model_error("TB0332", &self.name, what));
        let Some(graph) = &self.proto.graph else {
            return Err(model_error("TB0331", &self.name, "not an ONNX model: there is no graph in it"));
        };
        if self.proto.opset_import.is_empty() {
            let what =
                "it does not say which version of ONNX's operators it needs: cut off, or written by format 2";
            return invalid(what.to_owned());
        }
        if graph.output.is_empty() {
            return invalid("the graph has no outputs".to_owned());
        }
        if let Some(i) = graph.input.iter().chain(&graph.output).position(|value| value.name.is_empty()) {
            return invalid(format!("value {} of its inputs and outputs has no name", i + 1));
        }
        let mut first = Ok(());
        let mut external = std::mem::take(&mut self.external);
        let folder = self.path.as_deref().map(|path| path.parent().filter(|p| !p.as_os_str().is_empty()));
        let folder = folder.map(|folder| folder.unwrap_or(Path::new(".")));
        for_each_tensor(&self.proto, &mut |tensor| {
            if first.is_ok() {
                first = check_tensor(tensor, folder, &mut external);
            }
        });
        if let Err(what) = first {
            return invalid(what);
        }
        self.external = external;
        Ok(())
    }
}

/// Where the numbers of a tensor are, as its `external_data` says.
struct External {
    location: String,
    offset: u64,
    length: Option<u64>,
}

impl External {
    fn of(tensor: &TensorProto) -> Result<Self, String> {
        let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text
                .parse::<u64>()
                .map(Some)
                .map_err(|_| format!("weight {}: its {key} in another file is `{text}`", tensor.name)),
        };
        let location = entry("location").filter(|location| !location.is_empty());
        Ok(External {
            location: location
                .ok_or_else(|| format!("weight {}: no file is named for it", tensor.name))?
                .to_owned(),
            offset: number("offset")?.unwrap_or(0),
            length: number("length")?,
        })
    }

    /// Where the numbers end in a file of `file` bytes; none when that overflows.
    fn end(&self, file: u64) -> Option<u64> {
        match self.length {
            Some(length) => self.offset.checked_add(length),
            None => Some(file).filter(|file| *file >= self.offset),
        }
    }
}

/// The bytes that a tensor's numbers take, where ONNX fixes it and the shape is sound.
fn wanted_bytes(tensor: &TensorProto) -> Result<Option<u64>, String> {
    let mut count = 1u64;
    for dim in &tensor.dims {
        let dim = u64::try_from(*dim).ok();
        count = dim
            .and_then(|dim| count.checked_mul(dim))
            .filter(|count| *count <= 1 << 48)
            .ok_or_else(|| format!("weight {}: its shape is {:?}", tensor.name, tensor.dims))?;
    }
    let width = match tensor.data_type {
        data_type::FLOAT | data_type::INT32 | data_type::UINT32 => 4,
        data_type::UINT8 | data_type::INT8 | data_type::BOOL => 1,
        data_type::UINT16 | data_type::INT16 | data_type::FLOAT16 | data_type::BFLOAT16 => 2,
        data_type::INT64 | data_type::DOUBLE | data_type::UINT64 | data_type::COMPLEX64 => 8,
        data_type::COMPLEX128 => 16,
        _ => return Ok(None),
    };
    Ok(Some(count * width))
}

/// Whether a tensor holds what its shape says: a lying one would make an engine allocate more than the file has.
fn check_tensor(
    tensor: &TensorProto,
    folder: Option<&Path>,
    files: &mut BTreeMap<String, ExternalFile>,
) -> Result<(), String> {
    if tensor.data_type == data_type::UNDEFINED {
        return Ok(());
    }
    let wanted = wanted_bytes(tensor)?;
    let there = if tensor.data_location == EXTERNAL {
        Some(check_external(tensor, folder, files)?)
    } else if let Some(raw) = &tensor.raw_data {
        Some(raw.len() as u64)
    } else {
        let single = [tensor.float_data.len(), tensor.int32_data.len(), tensor.int64_data.len()];
        let others = [tensor.double_data.len(), tensor.uint64_data.len(), tensor.string_data.len()];
        let numbers = single.into_iter().chain(others).max().unwrap_or(0) as u64;
        // The typed fields may hold narrow numbers in wide ones: only count them.
        let count = tensor.dims.iter().map(|dim| *dim as u64).product::<u64>();
        let complex = matches!(tensor.data_type, data_type::COMPLEX64 | data_type::COMPLEX128);
        let packed = wanted.is_none() && tensor.data_type != data_type::STRING;
        if !complex && !packed && numbers != count {
            let name = &tensor.name;
            return Err(format!("weight {name}: {numbers} numbers for the shape {:?}", tensor.dims));
        }
        None
    };
    match (wanted, there) {
        (Some(wanted), Some(there)) if wanted != there => Err(format!(
            "weight {}: {there} bytes for the shape {:?} of {}, wanted {wanted}",
            tensor.name,
            tensor.dims,
            data_type::name(tensor.data_type).unwrap_or("an unknown type"),
        )),
        _ => Ok(()),
    }
}

/// Whether a place is in the model's own folder, or below.
fn is_inside(location: &str) -> bool {
    let normal = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    Path::new(location).components().all(normal) && !location.contains('\\')
}

/// The bytes that another file has for a tensor. That file must be in the model's own folder, or below.
fn check_external(
    tensor: &TensorProto,
    folder: Option<&Path>,
    files: &mut BTreeMap<String, ExternalFile>,
) -> Result<u64, String> {
    let external = External::of(tensor)?;
    let location = Path::new(&external.location);
    if folder.is_none() && files.is_empty() && is_inside(&external.location) {
        return Err(format!(
            "its weights are in another file, {}, but it came from memory",
            location.display()
        ));
    }
    if !is_inside(&external.location) {
        return Err(format!(
            "its weights are in {}, outside of the model's own folder: refused",
            location.display()
        ));
    }
    if let Some(folder) = folder
        && !files.contains_key(&external.location)
    {
        let path = folder.join(location);
        let unreadable = |e| format!("its weights are in {}, which cannot be read ({e})", path.display());
        let real = path.canonicalize().map_err(unreadable)?;
        let root = folder.canonicalize().map_err(unreadable)?;
        if !real.starts_with(&root) {
            return Err(format!(
                "its weights are in {}, a link out of the model's own folder: refused",
                location.display()
            ));
        }
        let metadata = real.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(format!("its weights are in {}, which is not a file", path.display()));
        }
        files.insert(external.location.clone(), ExternalFile { path: real, length: metadata.len() });
    }
    let length = files.get(&external.location).map_or(0, |file| file.length);
    match external.end(length) {
        Some(end) if end <= length => Ok(end - external.offset),
        _ => Err(format!(
            "weight {} ends behind the end of {} ({length} bytes): the file is cut off or another one",
            tensor.name,
            location.display()
        )),
    }
}

/// Every tensor of a model: weights, constants, those in the bodies of loops and branches, and in functions.
fn for_each_tensor<'a>(model: &'a ModelProto, f: &mut impl FnMut(&'a TensorProto)) {
    fn nodes<'a>(nodes: &'a [NodeProto], f: &mut impl FnMut(&'a TensorProto)) {
        for attribute in nodes.iter().flat_map(|node| &node.attribute) {
            attribute.t.iter().chain(&attribute.tensors).for_each(&mut *f);
            attribute.g.iter().chain(&attribute.graphs).for_each(|inner| graph(inner, f));
        }
    }
    fn graph<'a>(graph: &'a GraphProto, f: &mut impl FnMut(&'a TensorProto)) {
        graph.initializer.iter().for_each(&mut *f);
        let sparse = graph.sparse_initializer.iter();
        sparse.flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)).for_each(&mut *f);
        nodes(&graph.node, f);
    }
    model.graph.iter().for_each(|inner| graph(inner, f));
    model.functions.iter().for_each(|function| nodes(&function.node, f));
}

/// As [`for_each_tensor`], to change them.
fn for_each_tensor_mut(model: &mut ModelProto, f: &mut impl FnMut(&mut TensorProto)) {
    fn nodes(nodes: &mut [NodeProto], f: &mut impl FnMut(&mut TensorProto)) {
        for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
            attribute.t.iter_mut().chain(&mut attribute.tensors).for_each(&mut *f);
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|inner| graph(inner, f));
        }
    }
    fn graph(graph: &mut GraphProto, f: &mut impl FnMut(&mut TensorProto)) {
        graph.initializer.iter_mut().for_each(&mut *f);
        let sparse = graph.sparse_initializer.iter_mut();
        sparse.flat_map(|sparse| sparse.values.iter_mut().chain(&mut sparse.indices)).for_each(&mut *f);
        nodes(&mut graph.node, f);
    }
    model.graph.iter_mut().for_each(|inner| graph(inner, f));
    model.functions.iter_mut().for_each(|function| nodes(&mut function.node, f));
}

/// Every node of a model, with those in the bodies of loops and branches, and in functions.
pub(crate) fn for_each_node<'a>(model: &'a ModelProto, f: &mut impl FnMut(&'a NodeProto)) {
    fn walk<'a>(nodes: &'a [NodeProto], f: &mut impl FnMut(&'a NodeProto)) {
        for node in nodes {
            f(node);
            let inner =
                node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
            inner.for_each(|graph| walk(&graph.node, f));
        }
    }
    model.graph.iter().for_each(|graph| walk(&graph.node, f));
    model.functions.iter().for_each(|function| walk(&function.node, f));
}

/// What a file that is no ONNX model looks like by its first bytes; none when it may be one.
fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let has = |text: &[u8]| bytes[..bytes.len().min(4096)].windows(text.len()).any(|window| window == text);
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).trim_start().to_ascii_lowercase();
    if starts(b"PK\x03\x04") {
        return Some(if has(b"data.pkl") || has(b"/version") {
            "a PyTorch file (zip)"
        } else {
            "a zip file"
        });
    }
    if head.starts_with("<!doctype") || head.starts_with("<html") || head.starts_with("<?xml") {
        return Some("HTML: a web page was saved in place of the model");
    }
    if head.starts_with("version https://git-lfs") {
        return Some("a Git LFS pointer: fetch the file itself with `git lfs pull`");
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some("a TensorFlow Lite model");
    }
    if bytes.get(4..8) == Some(b"ORTM") {
        return Some("ONNX Runtime's own format (.ort)");
    }
    if bytes.get(8) == Some(&b'{') && bytes.get(6..8) == Some(&[0, 0]) {
        return Some("safetensors");
    }
    let magics: [(&[u8], &str); 12] = [
        (b"\x80\x02", "a Python pickle, perhaps a PyTorch file of before 1.6"),
        (b"\x80\x04", "a Python pickle"),
        (b"\x80\x05", "a Python pickle"),
        (b"\x89HDF", "HDF5, perhaps a Keras model"),
        (b"GGUF", "GGUF"),
        (b"RTEN", "rten's own format (.rten)"),
        (b"\x1f\x8b", "a gzip file: unpack it first"),
        (b"\x7fELF", "a program"),
        (b"\x89PNG", "an image"),
        (b"\xff\xd8\xff", "an image"),
        (b"%PDF", "a PDF"),
        (b"\x93NUMPY", "a numpy array"),
    ];
    if let Some((_, name)) = magics.iter().find(|(magic, _)| starts(magic)) {
        return Some(name);
    }
    if head.starts_with('{') || head.starts_with('[') {
        return Some("JSON");
    }
    // No message starts with these: a text, then.
    let text = head.len() > 8 && head.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    (text && !starts(b"\x08")).then_some("text")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
