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

/// What an end is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Right {
    /// These lines, sorted.
    Lines(Vec<String>),
    /// A failure of which the program says all of these.
    Failure(Vec<String>),
}

/// Something that runs beside a case and says where it listens.
#[derive(Debug)]
pub(crate) struct Service {
    /// What stands for its address, in braces.
    pub(crate) name: String,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

/// What stands for a text that is known only when a case runs, by its name.
pub(crate) type Places = BTreeMap<String, String>;

/// One pipeline.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// An example of the crate tiebeam, `tiebeam`, or what [`Case::is_foreign`] says.
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) output: Output,
    /// What is right, where it is not what the embedded runner gives.
    pub(crate) right: Option<Right>,
    /// Whether the embedded runner runs it.
    embedded: bool,
    /// Files, and the package that they come with.
    needs: Vec<(String, String)>,
    /// What must be installed beside the engine.
    pub(crate) requires: Vec<String>,
    engines: Vec<Kind>,
    options: Vec<String>,
    flags: Vec<String>,
    pub(crate) services: Vec<Service>,
    /// A shell script that makes ready what the case finds.
    pub(crate) before: Option<String>,
    /// A shell script that `{worker}` names.
    pub(crate) worker: Option<String>,
    /// Configuration for Flink; the case has an engine of its own where it is not empty.
    pub(crate) flink: BTreeMap<String, String>,
    pub(crate) patience: Duration,
}

/// Programs that are none of ours: they are told where the engine is by `{endpoint}`.
const FOREIGN: [&str; 2] = ["python", "java"];

impl Case {
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        self.engines.contains(&kind)
    }

    /// Whether the embedded runner runs it.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded && !self.is_foreign()
    }

    /// Whether its program is none of ours.
    pub(crate) fn is_foreign(&self) -> bool {
        FOREIGN.contains(&self.program.as_str())
    }

    /// The programs of ours that it runs.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &str> {
        let own = self.services.iter().map(|service| &service.program).chain([&self.program]);
        own.map(String::as_str).filter(|name| !FOREIGN.contains(name))
    }

    /// Why it can't run here.
    pub(crate) fn lacks(&self) -> Result<Option<String>, String> {
        let places = Places::from([("cache".to_owned(), fetch::cache()?.display().to_string())]);
        let missing = self.needs.iter().find(|(path, _)| !Path::new(&placed(path, &places)).exists());
        Ok(missing.map(|(path, package)| {
            format!("{} is not here (cargo xtask fetch {package})", placed(path, &places))
        }))
    }

    /// The program's arguments on the embedded runner.
    pub(crate) fn embedded(&self, places: &Places) -> Vec<String> {
        let own = self.arguments.iter().map(|argument| placed(argument, places));
        own.chain(["--progress", "none"].map(str::to_owned)).collect()
    }

    /// The program's arguments on an engine.
    pub(crate) fn portable(&self, places: &Places, endpoint: &str) -> Vec<String> {
        let mut places = places.clone();
        places.insert("endpoint".to_owned(), endpoint.to_owned());
        if self.is_foreign() {
            return self.arguments.iter().map(|argument| placed(argument, &places)).collect();
        }
        let mut arguments = self.embedded(&places);
        arguments.extend(["--runner", "portable", "--job-endpoint", endpoint].map(str::to_owned));
        if !self.flags.iter().any(|flag| flag == "--environment" || flag.starts_with("--environment=")) {
            arguments.extend(["--environment", "loopback"].map(str::to_owned));
        }
        arguments.extend(self.flags.iter().map(|flag| placed(flag, &places)));
        for option in &self.options {
            arguments.extend(["--option".to_owned(), option.clone()]);
        }
        arguments
    }
}

/// A text with all that stands in braces put in its place.
pub(crate) fn placed(text: &str, places: &Places) -> String {
    places.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
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

const KEYS: [&str; 17] = [
    "name",
    "program",
    "arguments",
    "output",
    "expected",
    "fails",
    "embedded",
    "needs",
    "requires",
    "engines",
    "options",
    "flags",
    "services",
    "before",
    "worker",
    "flink",
    "seconds",
];

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
    let right = match (table.contains_key("expected"), table.contains_key("fails")) {
        (true, true) => return Err(wrong("a case that `fails` has no lines that are `expected`")),
        (true, false) => {
            let mut lines = list("expected")?;
            lines.sort_unstable();
            Some(Right::Lines(lines))
        }
        (false, true) => Some(Right::Failure(list("fails")?)),
        (false, false) => None,
    };
    let embedded = table.get("embedded").map_or(Some(true), Item::as_bool);
    let case = Case {
        program: text(table, "program").ok_or_else(|| wrong("it has no program"))?,
        arguments: list("arguments")?,
        output: match text(table, "output").as_deref() {
            Some("files") => Output::Files,
            Some("stdout") => Output::Stdout,
            None if matches!(right, Some(Right::Failure(_))) => Output::Files,
            _ => return Err(wrong("`output` is \"files\" or \"stdout\"")),
        },
        right,
        embedded: embedded.ok_or_else(|| wrong("`embedded` is true or false"))?,
        needs: needs(table).ok_or_else(|| wrong("`needs` is a list of { path, fetch }"))?,
        requires: list("requires")?,
        engines,
        options: list("options")?,
        flags: list("flags")?,
        services: services(table)
            .ok_or_else(|| wrong("`services` is a list of { name, program, arguments }"))?,
        before: text(table, "before"),
        worker: text(table, "worker"),
        flink: list("flink")?.into_iter().map(pair).collect::<Result<_, _>>()?,
        patience: seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs)
            .ok_or_else(|| wrong("`seconds` is no number"))?,
        name,
    };
    match (&case.right, case.is_embedded()) {
        (None, false) => Err(format!(
            "case `{}`: what is right is neither `expected` nor what the embedded runner gives",
            case.name
        )),
        _ => Ok(case),
    }
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

fn services(table: &Table) -> Option<Vec<Service>> {
    let Some(item) = table.get("services") else { return Some(Vec::new()) };
    let one = |value: &toml_edit::Value| {
        let table = value.as_inline_table()?;
        let arguments = table.get("arguments")?.as_array()?;
        Some(Service {
            name: table.get("name")?.as_str()?.to_owned(),
            program: table.get("program")?.as_str()?.to_owned(),
            arguments: arguments.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        })
    };
    item.as_array()?.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(names: &[(&str, &str)]) -> Places {
        names.iter().map(|(name, place)| ((*name).to_owned(), (*place).to_owned())).collect()
    }

    #[test]
    fn the_file_is_whole() {
        let cases = read().unwrap();
        assert!(!cases.is_empty());
        for case in &cases {
            let mut known =
                places(&[("out", "/o/"), ("files", "/f"), ("cache", "/c"), ("root", "/r"), ("java", "/j")]);
            known.extend(case.services.iter().map(|service| (service.name.clone(), "h:2".to_owned())));
            if case.worker.is_some() {
                known.insert("worker".to_owned(), "/w".to_owned());
            }
            let arguments = case.portable(&known, "h:1");
            let unknown = |argument: &String| argument.contains('{') && !argument.starts_with("--jinja");
            assert!(!arguments.iter().any(unknown), "{arguments:?}");
            if matches!(case.right, Some(Right::Failure(_))) {
                continue;
            }
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
        let known = places(&[("out", "/o")]);
        assert_eq!(case.embedded(&known), ["--output", "/o/x", "--progress", "none"]);
        let portable = case.portable(&known, "127.0.0.1:1").join(" ");
        assert_eq!(
            portable,
            "--output /o/x --progress none --runner portable --job-endpoint 127.0.0.1:1 --environment loopback --option parallelism=4"
        );
        let process = "flags = [\"--environment\", \"process={worker}\"]\n";
        let case = parse(&format!("{ONE}{process}")).unwrap().remove(0);
        let portable = case.portable(&places(&[("worker", "/w")]), "h:1").join(" ");
        assert_eq!(portable, "--progress none --runner portable --job-endpoint h:1 --environment process=/w");
    }

    #[test]
    fn cases_say_what_is_right_and_what_runs_beside() {
        let text = "[[case]]\nname = \"a\"\nprogram = \"python\"\noutput = \"stdout\"\nexpected = [\"b\", \"a\"]\n\
            arguments = [\"x.py\", \"{endpoint}\", \"{pool}\"]\nrequires = [\"python\"]\n\
            services = [{ name = \"pool\", program = \"branch\", arguments = [\"worker\"] }]\n";
        let case = parse(text).unwrap().remove(0);
        assert!(case.is_foreign() && !case.is_embedded());
        assert_eq!(case.right, Some(Right::Lines(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(case.programs().collect::<Vec<_>>(), ["branch"]);
        assert_eq!(case.portable(&places(&[("pool", "h:2")]), "h:1"), ["x.py", "h:1", "h:2"]);
        let case = parse(&format!("{ONE}fails = [\"no\"]\nembedded = false\n")).unwrap().remove(0);
        assert_eq!(case.right, Some(Right::Failure(vec!["no".to_owned()])));
        assert!(!case.is_embedded());
    }

    #[test]
    fn mistakes_are_told() {
        for (text, want) in [
            ("[[case]]\n", "a case has no name"),
            (
                &format!("{ONE}engine = []\n"),
                "case `a`: there is no `engine`, only name, program, arguments, output, expected, fails, embedded, needs, requires, engines, options, flags, services, before, worker, flink, seconds",
            ),
            (
                &format!("{ONE}engines = [\"storm\"]\n"),
                "there is no engine `storm`, only python, prism, flink-local, flink-cluster, spark",
            ),
            (&format!("{ONE}{ONE}"), "two cases are `a`"),
            (&format!("{ONE}flags = [1]\n"), "case `a`: `flags` is no list of strings"),
            (&format!("{ONE}flink = [\"x\"]\n"), "case `a`: wanted KEY=VALUE in `flink`, got `x`"),
            (&format!("{ONE}needs = [\"x\"]\n"), "case `a`: `needs` is a list of { path, fetch }"),
            (
                &format!("{ONE}services = [{{}}]\n"),
                "case `a`: `services` is a list of { name, program, arguments }",
            ),
            (
                &format!("{ONE}embedded = false\n"),
                "case `a`: what is right is neither `expected` nor what the embedded runner gives",
            ),
            (
                &format!("{ONE}expected = []\nfails = []\n"),
                "case `a`: a case that `fails` has no lines that are `expected`",
            ),
            (&format!("{ONE}seconds = -1\n"), "case `a`: `seconds` is no number"),
            ("[[case]]\nname = \"a\"\nprogram = \"p\"\n", "case `a`: `output` is \"files\" or \"stdout\""),
            ("cases = 1\n", "there is no `cases`, only [[case]]"),
        ] {
            assert_eq!(parse(text).map(|_| ()).unwrap_err(), want);
        }
    }
}
