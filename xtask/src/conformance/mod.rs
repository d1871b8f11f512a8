//! `cargo xtask conformance`: us against other people's files.

use std::fs;

use crate::fetch::{self, Fetched};
use crate::say;

mod any;
mod coders;

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
