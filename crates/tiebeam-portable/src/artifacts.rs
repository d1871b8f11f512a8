//! Files on their way: from the client to the engine (staging), and from the engine to workers (retrieval).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_model::job::artifact_request_wrapper::Request;
use tiebeam_model::job::artifact_response_wrapper::Response;
use tiebeam_model::job::artifact_retrieval_service_client::ArtifactRetrievalServiceClient;
use tiebeam_model::job::artifact_staging_service_client::ArtifactStagingServiceClient;
use tiebeam_model::job::{
    ArtifactResponseWrapper, GetArtifactRequest, GetArtifactResponse, ResolveArtifactsRequest,
    ResolveArtifactsResponse,
};
use tiebeam_model::pipeline::{ArtifactFilePayload, ArtifactInformation, ArtifactStagingToRolePayload};
use tiebeam_model::{Message, urns};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::wire::{connect, connect_worker, refused, runtime};

/// A piece of a file on the wire: below the 4 MiB that gRPC servers take unless told.
const PIECE: usize = 2 << 20;
/// Pieces that wait for the network.
pub(crate) const WAITING: usize = 4;

/// A file that a job takes along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Where it is here.
    pub path: PathBuf,
    /// The name that workers know it by.
    pub name: String,
}

impl StagedFile {
    /// A file that workers find by its path in the pipeline.
    pub fn of(path: &Path) -> StagedFile {
        // Engines make file names of it: a short one, and another for each path.
        let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let last = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        StagedFile { path: path.to_owned(), name: format!("{digest}-{}", safe(&last)) }
    }
}

/// Describes a file for the pipeline's environment, with its SHA-256.
///
/// # Errors
/// When it can't be read.
pub fn describe(file: &StagedFile) -> Result<ArtifactInformation> {
    let payload = ArtifactFilePayload { path: file.path.display().to_string(), sha256: sha256(&file.path)? };
    let role = ArtifactStagingToRolePayload { staged_name: file.name.clone() };
    Ok(ArtifactInformation {
        type_urn: urns::artifact::FILE.to_owned(),
        type_payload: payload.encode_to_vec().into(),
        role_urn: urns::artifact::STAGING_TO.to_owned(),
        role_payload: role.encode_to_vec().into(),
    })
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "TB0711", format!("the file {} cannot be read", path.display()))
        .with_source(error)
}

/// The SHA-256 of a file, in hex.
///
/// # Errors
/// When it can't be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|error| unreadable(path, error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(|error| unreadable(path, error))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Hands an engine the files that it asks for, until it has all.
///
/// Only files that the pipeline itself names are given: `offered` are their descriptions.
///
/// # Errors
/// When the engine can't be reached, asks for something else, or a file can't be read.
pub(crate) async fn stage(address: &str, token: &str, offered: &[ArtifactInformation]) -> Result<()> {
    let channel = connect("the engine's artifact staging service", address).await?;
    let mut client = ArtifactStagingServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let (answers, outgoing) = mpsc::channel(WAITING);
    let gone = |_| Error::new(ErrorKind::Io, "TB0712", "the engine stopped taking files");
    let hello = ArtifactResponseWrapper { staging_token: token.to_owned(), ..Default::default() };
    answers.send(hello).await.map_err(gone)?;
    let failed = || refused("handing files to the engine");
    let requests = client.reverse_artifact_retrieval_service(ReceiverStream::new(outgoing)).await;
    let mut requests = requests.map_err(failed())?.into_inner();
    while let Some(wrapper) = requests.message().await.map_err(failed())? {
        match wrapper.request {
            Some(Request::ResolveArtifact(request)) => {
                let replacements = request.artifacts;
                let response = Response::ResolveArtifactResponse(ResolveArtifactsResponse { replacements });
                answers.send(last(response)).await.map_err(gone)?;
            }
            Some(Request::GetArtifact(request)) => {
                let path = offered_path(request, offered)?;
                let mut file = open(&path)?;
                while let Some(data) = next_piece(&mut file, &path)? {
                    let response = Response::GetArtifactResponse(GetArtifactResponse { data });
                    let wrapper = ArtifactResponseWrapper { response: Some(response), ..Default::default() };
                    answers.send(wrapper).await.map_err(gone)?;
                }
                let end = Response::GetArtifactResponse(GetArtifactResponse::default());
                answers.send(last(end)).await.map_err(gone)?;
            }
            None => {}
        }
    }
    Ok(())
}

/// The next piece of a file, of a size that goes through every gRPC server; none at its end.
pub(crate) fn next_piece(file: &mut File, path: &Path) -> Result<Option<Bytes>> {
    let mut piece = vec![0; PIECE];
    let n = file.read(&mut piece).map_err(|error| unreadable(path, error))?;
    piece.truncate(n);
    Ok((n > 0).then(|| Bytes::from(piece)))
}

/// Opens a file that travels.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| unreadable(path, error))
}

fn last(response: Response) -> ArtifactResponseWrapper {
    ArtifactResponseWrapper { is_last: true, response: Some(response), ..Default::default() }
}

fn offered_path(request: GetArtifactRequest, offered: &[ArtifactInformation]) -> Result<PathBuf> {
    let refused =
        |what: &str| Error::new(ErrorKind::Io, "TB0713", format!("the engine asked for a file that {what}"));
    let wanted = request.artifact.ok_or_else(|| refused("it does not name"))?;
    // Engines may change the role, never what the file is.
    let is_offered =
        offered.iter().any(|one| one.type_urn == wanted.type_urn && one.type_payload == wanted.type_payload);
    if !is_offered {
        return Err(refused("the pipeline does not take along"));
    }
    let payload = ArtifactFilePayload::decode(wanted.type_payload).map_err(Error::user)?;
    Ok(PathBuf::from(payload.path))
}

/// Where files that came with the job lie in this process, by the name under which they were staged.
static FETCHED: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());

/// The file that was staged under that name, in this worker.
pub fn fetched(name: &str) -> Option<PathBuf> {
    FETCHED.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
}

/// Where a file of that path in the pipeline lies in this worker, if it came with the job.
pub fn placed(path: &Path) -> Option<PathBuf> {
    fetched(&StagedFile::of(path).name)
}

/// Fetches a job's files into a folder of this machine and remembers them for the worker's steps.
///
/// # Errors
/// As [`fetch`].
pub(crate) fn fetch_files(
    address: &str,
    worker: &str,
    files: &[ArtifactInformation],
    folder: Option<&Path>,
) -> Result<()> {
    for (file, path) in fetch("the engine's artifact service", address, worker, files, folder)? {
        FETCHED.lock().unwrap_or_else(PoisonError::into_inner).insert(staged_name(&file), path);
    }
    Ok(())
}

/// Fetches what an environment of an expansion service's wants, and describes it as files of this machine.
///
/// # Errors
/// As [`fetch`].
pub(crate) fn fetch_foreign(
    address: &str,
    files: &[ArtifactInformation],
) -> Result<Vec<ArtifactInformation>> {
    let fetched = fetch("the expansion service", address, "expansion", files, None)?;
    let here = fetched.into_iter().map(|(file, path)| {
        let payload = ArtifactFilePayload { path: path.display().to_string(), sha256: sha256(&path)? };
        Ok(ArtifactInformation {
            type_urn: urns::artifact::FILE.to_owned(),
            type_payload: payload.encode_to_vec().into(),
            ..file
        })
    });
    here.collect()
}

/// Fetches files into a folder of this machine, unless they are there from an earlier time; checks their SHA-256. Gives each
/// with where it lies.
///
/// # Errors
/// When the service can't be reached, a file is not the one that was staged, or the disk is full.
fn fetch(
    what: &str,
    address: &str,
    asker: &str,
    files: &[ArtifactInformation],
    folder: Option<&Path>,
) -> Result<Vec<(ArtifactInformation, PathBuf)>> {
    let folder = folder.map_or_else(std::env::temp_dir, Path::to_path_buf).join("tiebeam-artifacts");
    std::fs::create_dir_all(&folder).map_err(|error| unwritable(&folder, error))?;
    runtime()?.block_on(async {
        let (channel, identity) = connect_worker(what, address, asker).await?;
        let mut client = ArtifactRetrievalServiceClient::with_interceptor(channel, identity)
            .max_decoding_message_size(usize::MAX);
        let request = ResolveArtifactsRequest {
            artifacts: files.to_vec(),
            preferred_urns: vec![urns::artifact::FILE.to_owned()],
        };
        let resolved =
            client.resolve_artifacts(request).await.map_err(refused("asking for the job's files"))?;
        let mut fetched = Vec::new();
        for file in resolved.into_inner().replacements {
            let name = staged_name(&file);
            let wanted = ArtifactFilePayload::decode(file.type_payload.clone()).map_err(Error::user)?.sha256;
            // Named by content: workers of other jobs on this machine may have fetched it.
            let known = folder.join(if wanted.is_empty() { safe(&name) } else { wanted.clone() });
            let is_there = !wanted.is_empty() && known.is_file();
            if !is_there {
                // A name of its own, gone if this fails: a pool's workers share a process, and two TaskManagers of
                // Flink give theirs the same id.
                let mut draft = NamedTempFile::with_prefix_in(format!("{}.", safe(&name)), &folder)
                    .map_err(|error| unwritable(&folder, error))?;
                let mut hash = Sha256::new();
                let request = GetArtifactRequest { artifact: Some(file.clone()) };
                let mut pieces =
                    client.get_artifact(request).await.map_err(refused("fetching a file"))?.into_inner();
                while let Some(piece) = pieces.message().await.map_err(refused("fetching a file"))? {
                    hash.update(&piece.data);
                    draft.write_all(&piece.data).map_err(|error| unwritable(draft.path(), error))?;
                }
                is_wanted(&name, hash, &wanted)?;
                draft.persist(&known).map_err(|failed| unwritable(&known, failed.error))?;
            }
            fetched.push((file, known));
        }
        Ok(fetched)
    })
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        "TB0714",
        format!("a file that comes with the job cannot be written to {}", path.display()),
    )
    .with_source(error)
}

/// Whether what came has the SHA-256 of what was staged, where that is known.
fn is_wanted(name: &str, found: Sha256, wanted: &str) -> Result<()> {
    let found: String = found.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if wanted.is_empty() || found == wanted {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Io,
        "TB0715",
        format!("the file `{name}` that comes with the job has SHA-256 {found}, wanted {wanted}"),
    )
    .with_retryable(true))
}

/// The name under which a file was staged; its path's last part where its role has none.
fn staged_name(file: &ArtifactInformation) -> String {
    if file.role_urn == urns::artifact::STAGING_TO
        && let Ok(role) = ArtifactStagingToRolePayload::decode(file.role_payload.clone())
    {
        return role.staged_name;
    }
    let payload = ArtifactFilePayload::decode(file.type_payload.clone()).unwrap_or_default();
    payload.path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// A name without ways out of its folder.
fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().map(plain).collect::<String>().trim_start_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_the_pipeline_names_are_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, b"abc").unwrap();
        let mine = describe(&StagedFile { path: path.clone(), name: "m".to_owned() }).unwrap();
        let request =
            |artifact: &ArtifactInformation| GetArtifactRequest { artifact: Some(artifact.clone()) };
        let mut renamed = mine.clone();
        renamed.role_payload = Bytes::new();
        assert_eq!(offered_path(request(&renamed), std::slice::from_ref(&mine)).unwrap(), path);
        let mut foreign = mine.clone();
        let other = ArtifactFilePayload { path: "/etc/passwd".to_owned(), sha256: String::new() };
        foreign.type_payload = other.encode_to_vec().into();
        let error = offered_path(request(&foreign), &[mine]).unwrap_err();
        assert_eq!(error.code(), "TB0713");
    }

    #[test]
    fn names_stay_in_their_folder() {
        assert_eq!(safe("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(safe("model-1.onnx"), "model-1.onnx");
    }

    #[test]
    fn a_file_is_described_with_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"abc").unwrap();
        let wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&path).unwrap(), wanted);
        assert!(sha256(&folder.path().join("none")).is_err());
    }
}
