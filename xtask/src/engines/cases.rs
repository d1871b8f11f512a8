//! `engines/cases.toml`: the pipelines that must say the same on every engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiebeam_engines::Kind;
use toml_edit::{DocumentMut, Item, Table, TableLike};

use super::folder;
use crate::fetch;

/// Where a case's lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Files,
    Stdout,
}

/// One pipeline.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// An example of the crate tiebeam, or `tiebeam`.
    pub(crate) program: String,
    arguments: Vec<String>,
    pub(crate) output: Output,
    /// Files, and the package that they come with.
    needs: Vec<(String, String)>,
    engines: Vec<Kind>,
    options: Vec<String>,
    flags: Vec<String>,
    /// Configuration for Flink; the case has an engine of its own where it is not empty.
    pub(crate) flink: BTreeMap<String, String>,
    pub(crate) patience: Duration,
}

impl Case {
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        self.engines.contains(&kind)
    }

    /// Why it can't run here.
    pub(crate) fn lacks(&self) -> Result<Option<String>, String> {
        let cache = fetch::cache()?;
        let missing = self.needs.iter().find(|(path, _)| !Path::new(&placed(path, &cache, None)).exists());
        Ok(missing.map(|(path, package)| {
            format!("{} is not here (cargo xtask fetch {package})", placed(path, &cache, None))
        }))
    }

    /// The program's arguments on the embedded runner.
    pub(crate) fn embedded(&self, out: &Path) -> Result<Vec<String>, String> {
        let cache = fetch::cache()?;
        let own = self.arguments.iter().map(|argument| placed(argument, &cache, Some(out)));
        Ok(own.chain(["--progress", "none"].map(str::to_owned)).collect())
    }

    /// The program's arguments on an engine.
    pub(crate) fn portable(&self, out: &Path, endpoint: &str) -> Result<Vec<String>, String> {
        let mut arguments = self.embedded(out)?;
        arguments.extend(["--runner", "portable", "--job-endpoint", endpoint].map(str::to_owned));
        if !self.flags.iter().any(|flag| flag == "--environment" || flag.starts_with("--environment=")) {
            arguments.extend(["--environment", "loopback"].map(str::to_owned));
        }
        arguments.extend(self.flags.iter().cloned());
        for option in &self.options {
            arguments.extend(["--option".to_owned(), option.clone()]);
        }
        Ok(arguments)
    }
}

fn placed(text: &str, cache: &Path, out: Option<&Path>) -> String {
    let text = text.replace("{cache}", &cache.display().to_string());
    match out {
        Some(out) => text.replace("{out}", &out.display().to_string()),
        None => text,
    }
}

/// All cases.
pub(crate) fn read() -> Result<Vec<Case>, String> {
    let path: PathBuf = folder().join("cases.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("engines/cases.toml: {e}"))
}

fn parse(text: &str) -> Result<Vec<Case>, String> {
    let document: DocumentMut = text.parse().map_err(|e| format!("{e}"))?;
    if let Some((name, _)) = document.iter().find(|(name, _)| *name != "case") {
        return Err(format!("there is no `{name}`, only [[case]]"));
    }
    let tables = document.get("case").and_then(Item::as_array_of_tables);
    let cases: Vec<Case> = tables.into_iter().flatten().map(case).collect::<Result<_, _>>()?;
    match cases.iter().enumerate().find(|(at, case)| cases[..*at].iter().any(|other| other.name == case.name))
    {
        Some((_, twice)) => Err(format!("two cases are `{}`", twice.name)),
        None => Ok(cases),
    }
}

const KEYS: [&str; 10] =
    ["name", "program", "arguments", "output", "needs", "engines", "options", "flags", "flink", "seconds"];

fn case(table: &Table) -> Result<Case, String> {
    let name = text(table, "name").ok_or("a case has no name")?;
    let wrong = |what: &str| format!("case `{name}`: {what}");
    // A misspelt key would be a check that is not made.
    if let Some((key, _)) = table.iter().find(|(key, _)| !KEYS.contains(key)) {
        return Err(wrong(&format!("there is no `{key}`, only {}", KEYS.join(", "))));
    }
    let list =
        |key: &str| strings(table, key).ok_or_else(|| wrong(&format!("`{key}` is no list of strings")));
    let engines: Vec<Kind> = match table.contains_key("engines") {
        true => list("engines")?.iter().map(|name| name.parse()).collect::<Result<_, _>>()?,
        false => Kind::ALL.to_vec(),
    };
    let pair = |text: String| match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(wrong(&format!("wanted KEY=VALUE in `flink`, got `{text}`"))),
    };
    let seconds = table.get("seconds").map_or(Some(180), Item::as_integer);
    Ok(Case {
        program: text(table, "program").ok_or_else(|| wrong("it has no program"))?,
        arguments: list("arguments")?,
        output: match text(table, "output").as_deref() {
            Some("files") => Output::Files,
            Some("stdout") => Output::Stdout,
            _ => return Err(wrong("`output` is \"files\" or \"stdout\"")),
        },
        needs: needs(table).ok_or_else(|| wrong("`needs` is a list of { path, fetch }"))?,
        engines,
        options: list("options")?,
        flags: list("flags")?,
        flink: list("flink")?.into_iter().map(pair).collect::<Result<_, _>>()?,
        patience: seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs)
            .ok_or_else(|| wrong("`seconds` is no number"))?,
        name,
    })
}

fn text(table: &dyn TableLike, key: &str) -> Option<String> {
    table.get(key).and_then(Item::as_str).map(str::to_owned)
}

/// A list of strings, empty where there is none.
fn strings(table: &Table, key: &str) -> Option<Vec<String>> {
    let Some(item) = table.get(key) else { return Some(Vec::new()) };
    item.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
}

fn needs(table: &Table) -> Option<Vec<(String, String)>> {
    let Some(item) = table.get("needs") else { return Some(Vec::new()) };
    let one = |value: &toml_edit::Value| {
        let table = value.as_inline_table()?;
        Some((table.get("path")?.as_str()?.to_owned(), table.get("fetch")?.as_str()?.to_owned()))
    };
    item.as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole() {
        let cases = read().unwrap();
        assert!(!cases.is_empty());
        for case in &cases {
            let arguments = case.embedded(Path::new("/o")).unwrap();
            assert!(!arguments.iter().any(|argument| argument.contains('{')), "{arguments:?}");
            assert_eq!(
                case.output == Output::Files,
                arguments.iter().any(|argument| argument.contains("/o/")),
                "{}: whose output is read from files writes them where they are read",
                case.name
            );
        }
    }

    const ONE: &str = "[[case]]\nname = \"a\"\nprogram = \"p\"\noutput = \"files\"\n";

    #[test]
    fn arguments_say_where_and_on_what() {
        let text = format!(
            "{ONE}arguments = [\"--output\", \"{{out}}/x\"]\noptions = [\"parallelism=4\"]\nflink = [\"a.b=1=2\"]\nengines = [\"spark\"]\nseconds = 5\n"
        );
        let case = parse(&text).unwrap().remove(0);
        assert!(case.is_for(Kind::Spark) && !case.is_for(Kind::Prism));
        assert_eq!(case.flink, BTreeMap::from([("a.b".to_owned(), "1=2".to_owned())]));
        assert_eq!(case.patience, Duration::from_secs(5));
        assert_eq!(case.embedded(Path::new("/o")).unwrap(), ["--output", "/o/x", "--progress", "none"]);
        let portable = case.portable(Path::new("/o"), "127.0.0.1:1").unwrap().join(" ");
        assert_eq!(
            portable,
            "--output /o/x --progress none --runner portable --job-endpoint 127.0.0.1:1 --environment loopback --option parallelism=4"
        );
        let case = parse(&format!("{ONE}flags = [\"--environment\", \"process\"]\n")).unwrap().remove(0);
        let portable = case.portable(Path::new("/o"), "h:1").unwrap().join(" ");
        assert_eq!(portable, "--progress none --runner portable --job-endpoint h:1 --environment process");
    }

    #[test]
    fn mistakes_are_told() {
        for (text, want) in [
            ("[[case]]\n", "a case has no name"),
            (
                &format!("{ONE}engine = []\n"),
                "case `a`: there is no `engine`, only name, program, arguments, output, needs, engines, options, flags, flink, seconds",
            ),
            (
                &format!("{ONE}engines = [\"storm\"]\n"),
                "there is no engine `storm`, only python, prism, flink-local, flink-cluster, spark",
            ),
            (&format!("{ONE}{ONE}"), "two cases are `a`"),
            (&format!("{ONE}flags = [1]\n"), "case `a`: `flags` is no list of strings"),
            (&format!("{ONE}flink = [\"x\"]\n"), "case `a`: wanted KEY=VALUE in `flink`, got `x`"),
            (&format!("{ONE}needs = [\"x\"]\n"), "case `a`: `needs` is a list of { path, fetch }"),
            (&format!("{ONE}seconds = -1\n"), "case `a`: `seconds` is no number"),
            ("[[case]]\nname = \"a\"\nprogram = \"p\"\n", "case `a`: `output` is \"files\" or \"stdout\""),
            ("cases = 1\n", "there is no `cases`, only [[case]]"),
        ] {
            assert_eq!(parse(text).map(|_| ()).unwrap_err(), want);
        }
    }
}
