//! `cargo xtask conformance`: us against other people's files.

use std::fs;
use std::path::PathBuf;

use crate::fetch::{self, Fetched};
use crate::{built, say};

mod any;
mod coders;
mod docs;
mod runinference;
mod tables;
mod yaml_docs;

pub(crate) use self::runinference::run as runinference;
use self::yaml_docs::Verdict;

/// Beam's standard_coders.yaml: every example, in every context that it is meant for.
pub(crate) fn coders() -> Result<bool, String> {
    let place = match fetch::package("apache-beam")? {
        Fetched::Ready(place) => place,
        Fetched::Skipped(reason) => {
            say(format_args!("skipped: {reason}"));
            say("coders: 0 passed, 0 failed, 0 skipped");
            return Ok(true);
        }
    };
    let path = place.join("apache_beam/portability/api/standard_coders.yaml");
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let tally = coders::run(&text)?;
    tally.failures.iter().for_each(say);
    tally.skips.iter().for_each(say);
    say(format_args!(
        "coders: {} passed, {} failed, {} skipped",
        tally.passed,
        tally.failures.len(),
        tally.skips.len()
    ));
    Ok(tally.failures.is_empty())
}

/// The pipelines of Beam YAML's documents, here and with Beam Python.
pub(crate) fn yaml_docs() -> Result<bool, String> {
    let place = match fetch::package("apache-beam")? {
        Fetched::Ready(place) => place,
        Fetched::Skipped(reason) => {
            say(format_args!("skipped: {reason}"));
            say("yaml-docs: 0 passed, 0 failed, 0 skipped");
            return Ok(true);
        }
    };
    let folder = place.join("apache_beam/yaml/docs");
    let mut documents = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
        let path = entry.path();
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        documents.push((entry.file_name().to_string_lossy().into_owned(), text));
    }
    documents.sort();
    let version = tiebeam_engines::Versions::built_in()
        .and_then(|all| Ok(all.of("python", "apache-beam")?.to_owned()))?;
    let all = yaml_docs::run(&documents, &version, &tiebeam()?)?;
    let (mut passed, mut failed, mut skipped, mut whole, mut beam_cannot) = (0, 0, 0, 0, 0);
    for (case, verdict) in &all {
        let what = if case.tests { " (tests)" } else { "" };
        match verdict {
            Verdict::Equal => {
                passed += 1;
                whole += usize::from(case.whole);
                say(format_args!("equal: {}{what}", case.name));
            }
            Verdict::Differs(how) => {
                failed += 1;
                say(format_args!("FAILED: {}{what}: {how}", case.name));
            }
            Verdict::Skipped(reason) => {
                skipped += 1;
                beam_cannot += usize::from(case.whole && reason.contains(yaml_docs::CANNOT));
                say(format_args!("skipped: {}{what}: {reason}", case.name));
            }
        }
    }
    let of = all.iter().filter(|(case, _)| case.whole).count();
    say(format_args!(
        "whole pipelines and tests: {of}; Beam runs {} of them; {whole} of these equal; parts of pipelines: {} of {} equal",
        of - beam_cannot,
        passed - whole,
        all.len() - of
    ));
    say(format_args!("yaml-docs: {passed} passed, {failed} failed, {skipped} skipped"));
    Ok(failed == 0)
}

/// Files of Parquet and Avro, here and with pyarrow and fastavro.
pub(crate) fn tables() -> Result<bool, String> {
    tables::run(&tiebeam()?)
}

/// Builds the command and tells where it is.
fn tiebeam() -> Result<PathBuf, String> {
    built::programs(["tiebeam"])?.remove("tiebeam").ok_or_else(|| "cargo built no `tiebeam`".to_owned())
}
