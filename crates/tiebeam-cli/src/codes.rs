//! The error codes, from the lists that the crates keep.

/// One line of a list: the code, what it means, what to do.
pub struct Code {
    pub code: &'static str,
    pub means: &'static str,
    pub cure: &'static str,
}

/// The lists, joined when the command is built.
const LISTS: &str = include_str!(concat!(env!("OUT_DIR"), "/errors.md"));

/// All codes.
pub fn codes() -> impl Iterator<Item = Code> {
    LISTS.lines().filter_map(|line| {
        let mut parts = line.trim_matches('|').splitn(3, '|').map(str::trim);
        let code = parts.next().filter(|code| code.starts_with("TB"))?;
        Some(Code { code, means: parts.next()?, cure: parts.next().unwrap_or_default() })
    })
}
