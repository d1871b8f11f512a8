//! What the process of a model may not do: use the network, start programs, write files but its own, take more memory than it
//! was allowed.

use std::path::PathBuf;

use tiebeam_core::error::{Error, ErrorKind, Result};

/// What a process of a model is held to.
#[derive(Debug, Clone, Default)]
pub(super) struct Bounds {
    pub(super) memory: Option<u64>,
    pub(super) writable: Vec<PathBuf>,
    pub(super) is_trusted: bool,
}

fn refused(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Unsupported, "TB0348", format!("the process of a model can't be confined: {what}"))
        .with_source(error)
        .with_help(
            "where the system has no such means, say `trusted`: the process is apart, and not confined",
        )
}

/// Holds this thread, and all that it starts, to these bounds. There is no way back.
///
/// # Errors
/// When the system lacks the means, or refuses them.
#[cfg(target_os = "linux")]
pub(super) fn confine(bounds: &Bounds, scratch: &std::path::Path) -> Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    // An abort that is expected leaves no file of the size of a model.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| refused("no limit of core files", error))?;
    if let Some(bytes) = bounds.memory {
        // What is written to counts, not files that are mapped.
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        setrlimit(Resource::Data, limit).map_err(|error| refused("no limit of memory", error))?;
    }
    if bounds.is_trusted {
        return Ok(());
    }
    confine_files(bounds, scratch).map_err(|error| refused("Landlock", error))?;
    confine_calls().map_err(|error| refused("seccomp", error))
}

/// Other systems have no means that we know.
#[cfg(not(target_os = "linux"))]
pub(super) fn confine(bounds: &Bounds, _: &std::path::Path) -> Result<()> {
    if bounds.is_trusted && bounds.memory.is_none() {
        return Ok(());
    }
    Err(refused("this system has neither Landlock nor seccomp", "only Linux has"))
}

/// Files may be made and changed in the folder of this process only, and where the user allows it.
#[cfg(target_os = "linux")]
fn confine_files(
    bounds: &Bounds,
    scratch: &std::path::Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
        RulesetCreatedAttr, RulesetStatus, Scope,
    };

    let writes = AccessFs::from_write(ABI::V3);
    let scope = Scope::from_all(ABI::V6);
    // The writes are what it is for; what newer kernels can do beside them is taken where it is.
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_write(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(writes)?
        .scope(scope)?
        .create()?;
    let own = [scratch.to_owned(), PathBuf::from("/dev/null")];
    let mut created = ruleset;
    for path in own.iter().chain(&bounds.writable) {
        let allowed = if path.is_dir() { writes } else { writes & AccessFs::from_file(ABI::V3) };
        created = created.add_rule(PathBeneath::new(PathFd::new(path)?, allowed))?;
    }
    match created.restrict_self()?.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel enforces nothing of it".into()),
        _ => Ok(()),
    }
}

/// No sockets, no other programs.
#[cfg(target_os = "linux")]
fn confine_calls() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use seccompiler::{SeccompAction, SeccompFilter, apply_filter};

    // Requests through io_uring pass by such a filter, so there are none.
    let calls =
        [libc::SYS_socket, libc::SYS_execve, libc::SYS_execveat, libc::SYS_io_uring_setup, libc::SYS_ptrace];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EACCES as u32);
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}
