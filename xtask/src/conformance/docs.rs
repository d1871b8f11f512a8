//! The pipelines of Beam YAML's documents: found, made whole, and given data to run on.
//!
//! A document shows whole pipelines, parts of them, lists of providers, templates and tests. Beam's own test of the
//! documents makes a part whole by a source in front of it; here every branch that ends in nothing gets a sink too, so
//! that there is something to compare.

use std::collections::BTreeMap;

use crate::yaml::{self, Node};

/// A pipeline of a document that can be run, or its tests.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Case {
    /// The document and the line where it begins.
    pub(crate) name: String,
    /// The pipeline file.
    pub(crate) file: String,
    /// Its text and the files beside it, by their paths.
    pub(crate) files: BTreeMap<String, String>,
    /// Variables of jinja, as a JSON object.
    pub(crate) variables: Option<&'static str>,
    /// Whether its `tests` are run, not the pipeline.
    pub(crate) tests: bool,
    /// Whether the document shows it as a whole pipeline, not as a part of one.
    pub(crate) whole: bool,
}

/// The values of the variables that the documents' templates have.
const VARIABLES: &str = r#"{"input_pattern": "data/input*.csv", "readFromText": {"path": "data/kinglear.txt"}, "input_path": "data/kinglear.txt", "output_path": "data/filtered"}"#;

/// A stretch of code of a document.
struct Block {
    line: usize,
    /// The file that the line before names.
    file: Option<String>,
    text: String,
}

/// All cases of the documents, `(name, text)` each.
pub(crate) fn cases(documents: &[(String, String)]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (document, text) in documents {
        let blocks = blocks(text);
        let (files, listings) = support(&blocks);
        let mut last = None;
        for block in &blocks {
            let name = format!("{document}:{}", block.line);
            let Some(mut found) = case(block, &files, &listings, &mut last) else { continue };
            for case in &mut found {
                case.name = name.clone();
                case.files.extend(files.clone());
                for text in case.files.values_mut() {
                    *text = stood_in(at_home(text));
                }
            }
            cases.append(&mut found);
        }
    }
    cases
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut before = "";
    for (index, line) in document.lines().enumerate() {
        let line = line.trim_end();
        match (line.starts_with("```"), open.take()) {
            (true, Some(block)) => blocks.push(block),
            (true, None) => {
                let file = before.strip_prefix("<PATH_TO_YOUR_REPO>/").map(str::to_owned);
                open = Some(Block { line: index + 2, file, text: String::new() });
            }
            (false, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (false, None) => {}
        }
        if !line.is_empty() {
            before = line;
        }
    }
    blocks
}

/// Files that pipelines of the document use, and which of them list providers.
fn support(blocks: &[Block]) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut files, mut listings) = (BTreeMap::new(), Vec::new());
    for block in blocks {
        let comment = block.text.lines().next().and_then(|line| line.strip_prefix("# "));
        if block.text.starts_with("- type: yaml") {
            let name = format!("providers-{}.yaml", block.line);
            listings.push(name.clone());
            files.insert(name, block.text.clone());
        } else if let Some(name) = block.file.as_ref().filter(|name| *name != "pipeline.yaml") {
            files.insert(name.clone(), block.text.clone());
        } else if let Some(name) = comment.filter(|name| name.ends_with(".yaml")) {
            files.insert(name.to_owned(), block.text.clone());
        }
    }
    (files, listings)
}

/// The cases that a block makes; `last` is the document's last whole pipeline.
fn case(
    block: &Block,
    files: &BTreeMap<String, String>,
    listings: &[String],
    last: &mut Option<String>,
) -> Option<Vec<Case>> {
    let one = |text: String, whole: bool| Case {
        file: "pipeline.yaml".to_owned(),
        files: BTreeMap::from([("pipeline.yaml".to_owned(), text)]),
        variables: ["{{", "{%"].iter().any(|sign| block.text.contains(sign)).then_some(VARIABLES),
        whole,
        ..Case::default()
    };
    let text = block.text.as_str();
    let tests = text.lines().position(|line| line.starts_with("tests:"));
    if let Some(file) = block.file.as_ref().filter(|name| files.contains_key(*name)) {
        // Of the templates, the one that extends another is a pipeline.
        let case = Case {
            file: file.clone(),
            files: BTreeMap::new(),
            variables: Some(VARIABLES),
            ..one(String::new(), true)
        };
        return text.starts_with("{% extends").then(|| vec![case]);
    }
    if text.contains("pipeline:\n") && !text.starts_with(' ') {
        *last = Some(text.to_owned());
        let mut cases = vec![one(sunk(text), true)];
        if tests.is_some_and(|_| !text.contains("tests: []")) {
            cases[0].files.insert("pipeline.yaml".to_owned(), sunk(&until_tests(text)));
            cases.push(Case { tests: true, ..one(text.to_owned(), true) });
        }
        return Some(cases);
    }
    if tests == Some(0) {
        let pipeline = until_tests(last.as_deref()?);
        return Some(vec![Case { tests: true, ..one(format!("{pipeline}\n{text}"), true) }]);
    }
    let includes = || listings.iter().map(|name| format!("  - include: {name}\n")).collect::<String>();
    if let Some(uses) = text.strip_prefix("transforms:\n") {
        let uses: String =
            uses.lines().filter(|line| line.trim() != "...").map(|line| format!("    {line}\n")).collect();
        let pipeline = sunk(&format!("pipeline:\n  transforms:\n{uses}"));
        return Some(vec![one(format!("{pipeline}providers:\n{}", includes()), true)]);
    }
    if text.starts_with("type: ") && !listings.is_empty() {
        let inside: String = text.lines().map(|line| format!("      {line}\n")).collect();
        let pipeline = sunk(&format!("pipeline:\n  transforms:\n    -{}", &inside[5..]));
        return Some(vec![one(format!("{pipeline}providers:\n{}", includes()), true)]);
    }
    if text.starts_with("- type: ") && !text.starts_with("- type: yaml") {
        return Some(vec![one(part(text)?, false)]);
    }
    None
}

fn until_tests(text: &str) -> String {
    text.lines().take_while(|line| !line.starts_with("tests:")).map(|line| format!("{line}\n")).collect()
}

/// Paths that are not here.
fn at_home(text: &str) -> String {
    [
        ("/path/to/some/", "data/"),
        ("/path/to/", "data/"),
        ("gs://dataflow-samples/shakespeare/", "data/"),
        ("gs://bucket/", "data/"),
        ("gs://MY-BUCKET/wordCounts/", "data/wordCounts"),
        ("gs://data/", "data/"),
        ("<PATH_TO_YOUR_REPO>/", ""),
    ]
    .iter()
    .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The file of transforms in the place of services.
const STAND_INS: &str = "stand-ins.yaml";

/// A pipeline that reads from and writes to Pub/Sub, with files in its place, as transforms of a provider: the pipeline's
/// text stays as it is. So does a transform whose name stands for any that groups.
fn stood_in(text: String) -> String {
    if !text.contains("PubSub") || !text.contains("pipeline:\n") {
        return text;
    }
    // No SQL takes a column that is neither grouped by nor aggregated.
    let grouped = "as c from PCOLLECTION group by col1\"";
    let text = text.replace("as c from PCOLLECTION\"", grouped);
    format!("{text}\nproviders:\n  - include: {STAND_INS}\n")
}

/// What is needed to know of a transform.
struct Told {
    title: String,
    kind: String,
    reads: Vec<String>,
    /// Its outputs but for the main one.
    outputs: Vec<String>,
    has_main: bool,
}

fn told(node: &Node) -> Option<Told> {
    let text = |key: &str| node.get(key).and_then(|node| node.text().ok()).map(str::to_owned);
    let kind = text("type")?;
    let mut reads = Vec::new();
    if let Some(input) = node.get("input") {
        references(input, &mut reads);
    }
    let list = |key: &str| {
        let found = node.get("config").and_then(|config| config.get(key));
        found.and_then(|node| node.list().ok()).unwrap_or(&[]).iter().filter_map(|one| one.text().ok())
    };
    let mut outputs: Vec<String> = Vec::new();
    if kind == "Partition" {
        outputs.extend(list("outputs").map(str::to_owned));
        let unknown = node.get("config").and_then(|config| config.get("unknown_output"));
        outputs.extend(unknown.and_then(|node| node.text().ok()).map(str::to_owned));
    }
    let ends = matches!(kind.as_str(), "Partition" | "AssertEqual") || kind.starts_with("WriteTo");
    let has_main = !ends && node.get("sink").is_none();
    Some(Told { title: text("name").unwrap_or(kind.clone()), kind, reads, outputs, has_main })
}

fn references(node: &Node, into: &mut Vec<String>) {
    match node {
        Node::Text(name) => into.push(name.clone()),
        Node::List(all) => all.iter().for_each(|one| references(one, into)),
        Node::Map(all) => all.iter().for_each(|(_, one)| references(one, into)),
        _ => {}
    }
}

/// A whole pipeline with a sink at every end.
fn sunk(text: &str) -> String {
    let Some(parsed) = yaml::documents(text).ok().and_then(|all| all.into_iter().next()) else {
        return text.to_owned();
    };
    let pipeline = parsed.get("pipeline");
    let Some(list) = pipeline.and_then(|p| p.get("transforms")).and_then(|list| list.list().ok()) else {
        return text.to_owned();
    };
    let is = |key: &str| pipeline.is_some_and(|pipeline| pipeline.get(key).is_some());
    let chain = pipeline.and_then(|p| p.get("type")).and_then(|kind| kind.text().ok()) == Some("chain");
    if is("sink") || is("source") || is("extra_transforms") {
        return text.to_owned();
    }
    let steps: Vec<Told> = list.iter().filter_map(told).collect();
    let sinks = sinks(&steps, chain);
    // The sinks go behind the last line of the transforms, which begins with more than two blanks.
    let mut lines: Vec<&str> = text.lines().collect();
    let end = lines.iter().rposition(|line| line.starts_with("   ") && !line.trim().is_empty());
    let indent = list_indent(text);
    let sinks: Vec<String> = sinks.iter().map(|sink| format!("{indent}{sink}")).collect();
    let top = lines.iter().position(|line| {
        ["providers:", "tests:", "options:"].iter().any(|key| line.trim_start().starts_with(key))
    });
    let at = match (end, top) {
        (_, Some(top)) => top,
        (Some(end), None) => end + 1,
        (None, None) => lines.len(),
    };
    lines.splice(at..at, sinks.iter().map(String::as_str));
    let mut text = lines.join("\n");
    text.push('\n');
    text
}

fn list_indent(text: &str) -> String {
    let first = text
        .lines()
        .skip_while(|line| line.trim() != "transforms:")
        .find(|line| line.trim_start().starts_with("- "));
    first.map(|line| line[..line.len() - line.trim_start().len()].to_owned()).unwrap_or("    ".to_owned())
}

/// A sink for each output that nothing reads.
fn sinks(steps: &[Told], chain: bool) -> Vec<String> {
    if chain {
        let ends = steps.last().is_some_and(|last| last.has_main);
        return if ends {
            vec!["- {type: WriteToJson, config: {path: kept}}".to_owned()]
        } else {
            Vec::new()
        };
    }
    let read = |name: &str| steps.iter().any(|step| step.reads.iter().any(|read| read == name));
    let mut sinks = Vec::new();
    for step in steps {
        let main = (step.has_main && !read(&step.title) && !read(&step.kind)).then(|| step.title.clone());
        let named = step.outputs.iter().map(|output| format!("{}.{output}", step.title));
        for name in main.into_iter().chain(named.filter(|name| !read(name))) {
            let path = format!("kept-{}", name.replace(' ', "-"));
            sinks.push(format!(
                "- {{type: WriteToJson, name: 'Keep {name}', input: '{name}', config: {{path: {path}}}}}"
            ));
        }
    }
    sinks
}

/// A part of a pipeline, made whole.
fn part(text: &str) -> Option<String> {
    let parsed = yaml::documents(text).ok()?.into_iter().next()?;
    let steps: Vec<Told> = parsed.list().ok()?.iter().filter_map(told).collect();
    let chain = steps.iter().all(|step| step.reads.is_empty());
    let mut pipeline = String::from("pipeline:\n");
    if chain {
        pipeline.push_str("  type: chain\n");
    }
    pipeline.push_str("  transforms:\n");
    let mut missing = Vec::new();
    if chain {
        missing.push("input".to_owned());
    }
    for read in steps.iter().flat_map(|step| &step.reads) {
        let own = read.split('.').next().unwrap_or(read);
        let known = steps.iter().any(|step| step.title == own || step.kind == own);
        if !known && !missing.contains(read) {
            missing.push(read.clone());
        }
    }
    for (index, name) in missing.iter().enumerate() {
        let table =
            if text.contains("Partition") { "parted".to_owned() } else { format!("table{}", index + 1) };
        pipeline.push_str(&format!(
            "    - {{type: ReadFromCsv, name: '{name}', config: {{path: data/{table}.csv}}}}\n"
        ));
    }
    if chain && text.contains("windowing:") {
        // Without a time, rows of windows are in none that Beam could write of.
        pipeline
            .push_str("    - {type: AssignTimestamps, config: {timestamp: col2 + 100, language: python}}\n");
    }
    text.lines().for_each(|line| pipeline.push_str(&format!("    {line}\n")));
    sinks(&steps, chain).iter().for_each(|sink| pipeline.push_str(&format!("    {sink}\n")));
    Some(pipeline)
}

/// The files that the cases read: columns named as in the documents, a zero to divide by, keys that meet and that don't.
pub(crate) const DATA: [(&str, &str); 14] = [
    (
        "data/input1.csv",
        "col1,col2,col3\na,1,250.5\nb,2,0.0\na,3,40.0\nzebra crossing,4,120.0\nb,6,10.0\nc,7,90.0\n",
    ),
    // With less than a tenth of bad rows, so that the documents' threshold is not passed. All of `col3` have a point: Beam
    // takes the quotient of two integers for an integer, and writes it as one.
    ("data/input2.csv", "col1,col2,col3\nb,5,101.0\nc,600,300.0\nd,8,1.5\ne,9,2.0\nf,10,3.0\ng,11,4.0\n"),
    ("data/left1.csv", "col1,col2,col3\na,1,7\nzebra crossing,2,8\nb,3,9\n"),
    ("data/right1.csv", "col1,col2,col3\nx,150,7\ny,99,8\nz,300,8\n"),
    ("data/table1.csv", "col1,col2,col3\n12ab,1,2.5\nx,2,0.5\n12ab,3,4.25\nx,0,100.5\nlonger,-7,8.5\n"),
    ("data/table2.csv", "col1,col2,col3\n12ab,one,10.5\nx,12ab,20.5\nother,two,30.5\n"),
    ("data/table3.csv", "col1,col2,col3\n12ab,three,1.5\nnobody,nine,2.5\nx,two,3.5\nx,12ab,4.5\n"),
    ("data/parted.csv", "col1,col2,col3\na,1,2.5\nb,2,0.5\na,3,4.25\nc,4,0.25\n"),
    (
        "data/myPubSubTopic.csv",
        "col1,col2,col3\na,5,1.5\nb,15,2.5\na,50,0.5\na,70,1.5\nb,200,3.5\nc,250,4.5\n",
    ),
    ("data/leftTopic.csv", "col1,col2,col3\na,5,7\nb,50,8\nc,70,7\nd,75,9\n"),
    ("data/rightTopic.csv", "col1,col2,col3\nx,10,7\ny,100,8\nz,90,7\nw,80,9\n"),
    (STAND_INS, STAND_IN_TRANSFORMS),
    ("data/x.tsv", "col1\tcol2\tcol3\nabc\t1\t2.5\n"),
    ("data/kinglear.txt", "Nothing can come of nothing\nspeak again\n"),
];

/// Files in the place of topics; `col2` is a message's second.
const STAND_IN_TRANSFORMS: &str = "\
- type: yaml
  transforms:
    ReadFromPubSub:
      config_schema: {properties: {topic: {type: string}, format: {type: string}, schema: {}}}
      requires_inputs: false
      body: |
        type: chain
        transforms:
          - {type: ReadFromCsv, config: {path: 'data/{{topic}}.csv'}}
          - {type: AssignTimestamps, config: {timestamp: col2, language: python}}
    WriteToPubSub:
      config_schema: {properties: {topic: {type: string}, format: {type: string}}}
      body: |
        type: chain
        transforms:
          - {type: WriteToJson, config: {path: '{{topic}}'}}
    SomeGroupingTransform:
      config_schema: {properties: {arg: {type: string}}}
      body: |
        type: chain
        transforms:
          - {type: Combine, config: {group_by: col1, combine: {col2: sum, col3: max}}}
";

/// Functions that the documents have in files.
pub(crate) const UDF: (&str, &str) = (
    "data/udf.py",
    "def my_mapping(row):\n  return row.col1 + '!'\n\ndef my_filter(row):\n  return row.col2 > 1\n",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn only(document: &str) -> Vec<Case> {
        cases(&[("d.md".to_owned(), document.to_owned())])
    }

    fn text(case: &Case) -> &str {
        &case.files[&case.file]
    }

    #[test]
    fn a_part_gets_a_source_and_a_sink() {
        let [case] =
            only("# Head\n\n```\n- type: Filter\n  config:\n    keep: col2 > 0\n```\n").try_into().unwrap();
        assert_eq!(case.name, "d.md:4");
        assert!(!case.whole);
        assert_eq!(
            text(&case),
            "pipeline:\n  type: chain\n  transforms:\n    \
             - {type: ReadFromCsv, name: 'input', config: {path: data/table1.csv}}\n    - type: Filter\n      config:\n        \
             keep: col2 > 0\n    - {type: WriteToJson, config: {path: kept}}\n"
        );
    }

    #[test]
    fn every_end_of_a_branch_gets_a_sink() {
        let document = "```\n- type: Partition\n  input: input\n  config:\n    outputs: [a, b]\n- type: Filter\n  input: Partition.a\n```\n";
        let [case] = only(document).try_into().unwrap();
        let sinks: Vec<&str> = text(&case).lines().filter(|line| line.contains("WriteToJson")).collect();
        assert_eq!(sinks.len(), 2, "{sinks:?}");
        assert!(
            sinks[0].contains("input: 'Partition.b'") && sinks[1].contains("input: 'Filter'"),
            "{sinks:?}"
        );
    }

    #[test]
    fn pipelines_stay_as_they_are_but_for_paths_and_ends() {
        let document = "```yaml\npipeline:\n  transforms:\n    - type: ReadFromCsv\n      config: {path: /path/to/input*.csv}\n```\n";
        let [case] = only(document).try_into().unwrap();
        assert!(case.whole);
        assert_eq!(
            text(&case),
            "pipeline:\n  transforms:\n    - type: ReadFromCsv\n      config: {path: data/input*.csv}\n    \
             - {type: WriteToJson, name: 'Keep ReadFromCsv', input: 'ReadFromCsv', config: {path: kept-ReadFromCsv}}\n"
        );
    }

    #[test]
    fn tests_belong_to_the_pipeline_before() {
        let document =
            "```\npipeline:\n  transforms: []\n\ntests: []\n```\n\n```\ntests:\n- name: One\n```\n";
        let all = only(document);
        assert_eq!(all.iter().map(|case| case.tests).collect::<Vec<_>>(), [false, true]);
        assert_eq!(text(&all[1]), "pipeline:\n  transforms: []\n\n\ntests:\n- name: One\n");
    }
}
