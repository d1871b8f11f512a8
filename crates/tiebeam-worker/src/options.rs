//! Pipeline options as evidence: what of an option's value travels in every payload, so that a worker that was started with
//! another value can say so.

use std::collections::BTreeMap;

/// Longer values travel as their beginning and a hash.
const LONGEST: usize = 80;
/// How much of a long value is shown.
const SHOWN: usize = 48;
/// The most differences that one message names.
const NAMED: usize = 3;

/// The options as they are compared and shown.
pub(crate) fn shown(options: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    options.iter().map(|(name, value)| (name.clone(), shown_value(name, value))).collect()
}

fn shown_value(name: &str, value: &str) -> String {
    let name = name.to_lowercase();
    if ["secret", "token", "password", "key"].iter().any(|word| name.contains(word)) {
        // Half of the hash: enough to see a difference, too little to tell which of many guesses is the value.
        return format!("hidden #{:08x}", hash(value.as_bytes()) as u32);
    }
    if value.chars().count() <= LONGEST {
        return value.to_owned();
    }
    let start: String = value.chars().take(SHOWN).collect();
    format!("{start}… #{:016x}", hash(value.as_bytes()))
}

/// A fingerprint that options enter; without any it is the graph's own.
pub(crate) fn fingerprint(graph: u64, shown: &BTreeMap<String, String>) -> u64 {
    if shown.is_empty() {
        return graph;
    }
    let mut bytes = graph.to_le_bytes().to_vec();
    for text in shown.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    hash(&bytes)
}

/// What differs between the job's options and the worker's, in words; none if nothing does.
pub(crate) fn difference(
    job: &BTreeMap<String, String>,
    worker: &BTreeMap<String, String>,
) -> Option<String> {
    let names: std::collections::BTreeSet<&String> = job.keys().chain(worker.keys()).collect();
    let told =
        |value: Option<&String>| value.map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
    let mut differences = names.into_iter().filter(|name| job.get(*name) != worker.get(*name)).map(|name| {
        format!("option `{name}` is {} here and {} in the job", told(worker.get(name)), told(job.get(name)))
    });
    let named: Vec<String> = differences.by_ref().take(NAMED).collect();
    let more = differences.count();
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named.join("; ")),
        (false, more) => Some(format!("{}; and {more} options more differ", named.join("; "))),
    }
}

/// FNV-1a, 64 bits: the same in every build.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn secrets_are_hidden_and_long_values_shortened() {
        let long = "x".repeat(LONGEST + 1);
        let all = shown(&options(&[
            ("api_KEY", "hunter2"),
            ("dbPassword", "hunter2"),
            ("token", ""),
            ("factor", "3"),
            ("text", &long),
            ("umlauts", &"ü".repeat(LONGEST)),
        ]));
        assert_eq!(all["factor"], "3");
        assert_eq!(all["umlauts"], "ü".repeat(LONGEST));
        for name in ["api_KEY", "dbPassword", "token"] {
            assert!(all[name].starts_with("hidden #") && all[name].len() == 16, "{}", all[name]);
        }
        assert_eq!(all["api_KEY"], all["dbPassword"]);
        assert_ne!(all["api_KEY"], all["token"]);
        assert!(all["text"].starts_with(&format!("{}… #", "x".repeat(SHOWN))), "{}", all["text"]);
        // The same beginning is not the same value.
        assert_ne!(shown_value("text", &long), shown_value("text", &(long.clone() + "y")));
    }

    #[test]
    fn differences_name_the_option_and_both_values() {
        let (job, worker) =
            (options(&[("factor", "3"), ("path", "a")]), options(&[("factor", "4"), ("path", "a")]));
        assert_eq!(difference(&job, &worker).unwrap(), "option `factor` is `4` here and `3` in the job");
        assert_eq!(difference(&job, &job), None);
        assert_eq!(
            difference(&job, &options(&[("path", "a"), ("x", "")])).unwrap(),
            "option `factor` is not set here and `3` in the job; option `x` is `` here and not set in the job"
        );
        let many = options(&[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")]);
        assert!(difference(&many, &options(&[])).unwrap().ends_with("; and 2 options more differ"));
    }

    #[test]
    fn options_change_the_fingerprint_and_none_leave_it() {
        assert_eq!(fingerprint(7, &options(&[])), 7);
        let prints = [
            fingerprint(7, &options(&[("ab", "c")])),
            fingerprint(7, &options(&[("a", "bc")])),
            fingerprint(8, &options(&[("a", "bc")])),
            fingerprint(7, &options(&[("a", "b"), ("c", "")])),
        ];
        let different: std::collections::BTreeSet<u64> = prints.into_iter().collect();
        assert_eq!(different.len(), prints.len());
    }
}
