//! [`RunId`]: which run of a pipeline something belongs to.

use std::fmt;
use std::hash::{BuildHasher, Hasher};

/// One run of a pipeline, on whatever machines. All its processes and all attempts at its bundles share the id; no two runs
/// do. Steps that leave something behind, such as temporary files, name it by the run.
///
/// Shown, and parsed back, as sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId(u64);

impl RunId {
    /// A new run. The randomness is the one that seeds hash maps.
    #[expect(clippy::new_without_default, reason = "a default that is another one each time would surprise")]
    pub fn new() -> Self {
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        RunId(hasher.finish())
    }

    /// The id that [`Display`](fmt::Display) shows; none for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if is_id { u64::from_str_radix(text, 16).ok().map(RunId) } else { None }
    }

    /// An id for one step of the run: the same in all its processes, another for each step.
    #[must_use]
    pub fn of_step(self, step: &str) -> Self {
        // FNV-1a, begun with the run in place of the usual offset.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        RunId(step.bytes().fold(mix(self.0, 0xff), mix))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_shown_and_parsed_back() {
        let run = RunId::new();
        assert_ne!(run, RunId::new());
        assert_eq!(RunId::parse(&run.to_string()), Some(run));
        assert_eq!(RunId(7).to_string(), "0000000000000007");
        for text in ["", "7", "00000000000000007", "+000000000000007", "000000000000000g", "../../../../etc/"]
        {
            assert_eq!(RunId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn each_step_has_its_own() {
        let run = RunId::new();
        assert_eq!(run.of_step("Write"), run.of_step("Write"));
        assert_ne!(run.of_step("Write"), run.of_step("Write-2"));
        assert_ne!(run.of_step("Write"), RunId::new().of_step("Write"));
        assert_ne!(run.of_step(""), run);
    }
}
