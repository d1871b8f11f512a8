//! Staging: the files that a pipeline names, the worker's program and the pipeline itself go to `gs://`, each under a name
//! made of its SHA-256, so that the same file goes up once.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::ResourceHints;
use tiebeam_model::pipeline::{
    ArtifactFilePayload, ArtifactInformation, ArtifactStagingToRolePayload, ArtifactUrlPayload,
    DockerPayload, Environment, Pipeline,
};
use tiebeam_model::{Message, urns};
use tiebeam_portable::artifacts;
use tiebeam_worker::is_own_environment;

use crate::gs::GsPath;
use crate::service::Service;
use crate::storage::{Content, Written, write_once};

/// A file of the job where its workers find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// The name that workers know it by.
    pub name: String,
    /// Where it is.
    pub location: GsPath,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// What was staged.
pub(crate) struct Staged {
    pub(crate) packages: Vec<Package>,
    pub(crate) pipeline: GsPath,
    pub(crate) pipeline_sha256: String,
    /// How many files were not there before.
    pub(crate) uploaded: usize,
}

/// An environment that Dataflow starts, for the request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Image {
    pub(crate) environment: String,
    pub(crate) image: String,
    pub(crate) capabilities: Vec<String>,
}

/// The containers of the pipeline's environments.
///
/// # Errors
/// When steps are to run elsewhere.
pub(crate) fn images(pipeline: &Pipeline) -> Result<Vec<Image>> {
    let components = pipeline.components.clone().unwrap_or_default();
    let used: Vec<&String> =
        components.transforms.values().map(|transform| &transform.environment_id).collect();
    let mut images = Vec::new();
    for (id, environment) in components.environments.iter().filter(|(id, _)| used.contains(id)) {
        if environment.urn != urns::environment::DOCKER {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "TB0773",
                format!("Dataflow runs steps in containers only, not in {}", environment.urn),
            )
            .with_help(
                "add `--environment docker=IMAGE`; see docs/engines/dataflow.md for what the image holds",
            ));
        }
        let payload = DockerPayload::decode(environment.payload.clone()).map_err(Error::internal)?;
        images.push(Image {
            environment: id.clone(),
            image: payload.container_image,
            capabilities: environment.capabilities.clone(),
        });
    }
    Ok(images)
}

/// Puts the worker's program and what the steps need of a machine into the pipeline's environments.
pub(crate) fn equip(pipeline: &mut Pipeline, program: Option<&Path>, hints: &ResourceHints) -> Result<()> {
    let components = pipeline.components.get_or_insert_default();
    let docker =
        |(_, environment): &(&String, &mut Environment)| environment.urn == urns::environment::DOCKER;
    for (id, environment) in components.environments.iter_mut().filter(docker) {
        // Other languages' transforms bring workers of their own.
        if let Some(path) = program.filter(|_| is_own_environment(id)) {
            static_program(path)?;
            let payload = ArtifactFilePayload { path: path.display().to_string(), sha256: String::new() };
            environment.dependencies.push(ArtifactInformation {
                type_urn: urns::artifact::FILE.to_owned(),
                type_payload: payload.encode_to_vec().into(),
                role_urn: urns::artifact::GO_WORKER_BINARY.to_owned(),
                role_payload: Default::default(),
            });
        }
        for (name, value) in hints.to_map() {
            environment.resource_hints.entry(name).or_insert_with(|| value.into());
        }
    }
    Ok(())
}

/// Refuses a program that would not start in a container: not for Linux, or in want of libraries that are not there.
fn static_program(path: &Path) -> Result<()> {
    let refused = |why: &str| {
        Error::new(
            ErrorKind::InvalidArgument,
            "TB0770",
            format!("the worker binary {} {why}", path.display()),
        )
        .with_help("build it static, as deploy/docker/Dockerfile does, or leave `worker_binary` out and use an image that holds it")
    };
    let elf = std::fs::read(path).map_err(|error| refused("cannot be read").with_source(error))?;
    let at = |from: usize, len: usize| {
        let bytes = elf.get(from..from.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    // 64 bit, little endian: what Dataflow's machines are.
    if elf.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return Err(refused("is no program for 64-bit Linux"));
    }
    let table = (|| Some((at(32, 8)? as usize, at(54, 2)? as usize, at(56, 2)? as usize)))();
    let (from, size, count) = table.ok_or_else(|| refused("is cut off"))?;
    for i in 0..count {
        let kind = i
            .checked_mul(size)
            .and_then(|skip| at(from.checked_add(skip)?, 4))
            .ok_or_else(|| refused("is cut off"))?;
        // A program header that names a dynamic loader.
        if kind == 3 {
            return Err(refused("is not static: it asks for a loader and libraries"));
        }
    }
    Ok(())
}

/// Uploads all files that the pipeline names, points the pipeline at them, and uploads the pipeline.
pub(crate) fn stage(service: &Service, pipeline: &mut Pipeline, hear: &dyn Fn(&str)) -> Result<Staged> {
    let mut packages: Vec<Package> = Vec::new();
    let mut uploaded = 0;
    let components = pipeline.components.get_or_insert_default();
    for environment in components.environments.values_mut() {
        for file in &mut environment.dependencies {
            let Some((path, name)) = local(file)? else { continue };
            let sha256 = artifacts::sha256(&path)?;
            let location = service.options.staging_location.join(&format!("{sha256}/{}", object_name(&name)));
            // The same file may stand in several environments.
            if !packages.iter().any(|package| package.location == location) {
                hear(&format!("staging {} to {location}", path.display()));
                let written = write_once(service, &location, &Content::File(path))?;
                uploaded += usize::from(written == Written::Uploaded);
                packages.push(Package { name, location: location.clone(), sha256: sha256.clone() });
            }
            file.type_urn = urns::artifact::URL.to_owned();
            file.type_payload =
                ArtifactUrlPayload { url: location.to_string(), sha256 }.encode_to_vec().into();
        }
    }
    let bytes = pipeline.encode_to_vec();
    let pipeline_sha256 = hex(&Sha256::digest(&bytes));
    let location = service.options.staging_location.join(&format!("{pipeline_sha256}/pipeline.pb"));
    let written = write_once(service, &location, &Content::Bytes(bytes))?;
    uploaded += usize::from(written == Written::Uploaded);
    Ok(Staged { packages, pipeline: location, pipeline_sha256, uploaded })
}

/// The path here and the name there of a file that is to be staged; none for what is on the network already.
fn local(file: &ArtifactInformation) -> Result<Option<(PathBuf, String)>> {
    if file.type_urn == urns::artifact::URL {
        return Ok(None);
    }
    if file.type_urn != urns::artifact::FILE {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "TB0770",
            format!("a file of the pipeline is given as {}, which this client cannot stage", file.type_urn),
        ));
    }
    let payload = ArtifactFilePayload::decode(file.type_payload.clone()).map_err(Error::internal)?;
    let path = PathBuf::from(payload.path);
    let name = match file.role_urn.as_str() {
        // The name that the boot program of Beam's Go image looks for.
        urns::artifact::GO_WORKER_BINARY => "worker".to_owned(),
        urns::artifact::STAGING_TO => {
            ArtifactStagingToRolePayload::decode(file.role_payload.clone())
                .map_err(Error::internal)?
                .staged_name
        }
        _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    Ok(Some((path, name)))
}

/// A name without slashes, or anything else that means something in a path.
fn object_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().map(plain).take(200).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit program with one program header of that kind.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1];
        bytes.resize(64, 0);
        bytes[32] = 64; // where the table is
        bytes[54] = 56; // the size of a row
        bytes[56] = 1; // rows
        bytes.push(kind);
        bytes.resize(64 + 56, 0);
        bytes
    }

    #[test]
    fn only_static_programs_are_sent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker");
        let told = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            static_program(&path)
                .map_err(|error| error.message().rsplit("worker ").next().unwrap().to_owned())
        };
        assert_eq!(told(&elf(1)), Ok(()));
        assert_eq!(told(&elf(3)), Err("is not static: it asks for a loader and libraries".to_owned()));
        assert_eq!(told(b"#!/bin/sh"), Err("is no program for 64-bit Linux".to_owned()));
        assert_eq!(told(&elf(1)[..40]), Err("is cut off".to_owned()));
        assert_eq!(told(&elf(1)[..66]), Err("is cut off".to_owned()));
        let mut far = elf(1);
        far[32..40].fill(0xff);
        assert_eq!(told(&far), Err("is cut off".to_owned()));
    }

    #[test]
    fn names_of_objects_stay_in_their_folder() {
        assert_eq!(object_name("../a b/é.onnx"), ".._a_b__.onnx");
    }
}
