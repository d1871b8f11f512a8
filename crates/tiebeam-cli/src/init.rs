//! `tiebeam init`: a folder to begin with, with its own small data and model.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tiebeam::launch::{Exit, print_error};
use tiebeam::{Error, ErrorKind, Result};

use crate::examples::{self, File};
use crate::output;

/// The command line of `tiebeam init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder: a new one, or an empty one.
    #[arg(required_unless_present = "list")]
    dir: Option<PathBuf>,
    /// What it begins as; `--list` tells what there is.
    #[arg(long, value_name = "NAME", default_value = "score")]
    template: String,
    /// Lists the templates.
    #[arg(long)]
    list: bool,
}

/// A starter: its pipeline file and what that reads.
struct Template {
    name: &'static str,
    about: &'static str,
    pipeline: &'static str,
    files: &'static [File],
    /// What its output looks like, and where.
    shows: &'static str,
    /// What to type after the first run.
    next: &'static [(&'static str, &'static str)],
}

const TESTED: &[(&str, &str)] = &[
    ("tiebeam test pipeline.yaml", "runs the tests that stand at the file's end"),
    ("tiebeam errors out/refused", "what was refused, and why"),
    ("tiebeam errors out/refused --replay pipeline.yaml", "those once more, when the file was mended"),
    ("tiebeam graph pipeline.yaml", "who reads whom"),
];
const PLAIN: &[(&str, &str)] = &[
    ("tiebeam graph pipeline.yaml", "who reads whom"),
    ("tiebeam validate pipeline.yaml", "what is wrong with it, at once; try a misspelt column"),
];

const TEMPLATES: [Template; 4] = [
    Template {
        name: "score",
        about: "a csv file through a PyTorch model to JSON; what fails goes beside, with tests",
        pipeline: include_str!("../templates/score.yaml"),
        files: &[
            ("data/rooms.csv", include_bytes!("../templates/rooms.csv")),
            ("models/five.pth", include_bytes!("../../../fixtures/models/five.pth")),
        ],
        shows: "out/prices-00000-of-00001",
        next: TESTED,
    },
    Template {
        name: "words",
        about: "the long words of text files, no model",
        pipeline: include_str!("../../../examples/words.yaml"),
        files: &[("examples/data/words.txt", include_bytes!("../../../examples/data/words.txt"))],
        shows: "out/words-00000-of-00001",
        next: PLAIN,
    },
    Template {
        name: "branch",
        about: "the same numbers to two ONNX models at once",
        pipeline: examples::BRANCH.pipeline_text,
        files: examples::BRANCH.files,
        shows: "its answers on the screen",
        next: PLAIN,
    },
    Template {
        name: "sequence",
        about: "one model's answer to the next: PyTorch, then ONNX",
        pipeline: examples::SEQUENCE.pipeline_text,
        files: examples::SEQUENCE.files,
        shows: "its answers on the screen",
        next: PLAIN,
    },
];

/// Makes the folder.
pub fn init(args: &InitArgs) -> Exit {
    let told = match &args.dir {
        _ if args.list => Ok(list()),
        Some(dir) => made(dir, &args.template),
        None => return Exit::BadUsage,
    };
    match told {
        Ok(text) => {
            output::stdout(text.as_bytes());
            Exit::Ok
        }
        Err(error) => {
            print_error(&error);
            if error.kind() == ErrorKind::Output { Exit::OutputUnusable } else { Exit::BadUsage }
        }
    }
}

fn list() -> String {
    let width = TEMPLATES.iter().map(|template| template.name.len()).max().unwrap_or(0);
    let line = |template: &Template| format!("{:width$}  {}\n", template.name, template.about);
    TEMPLATES.iter().map(line).collect()
}

fn made(dir: &Path, name: &str) -> Result<String> {
    let Some(template) = TEMPLATES.iter().find(|template| template.name == name) else {
        let names = TEMPLATES.map(|template| template.name);
        let message = format!("there is no template `{name}`");
        return Err(Error::new(ErrorKind::InvalidArgument, "TB0592", message)
            .with_help(format!("templates: {}", names.join(", "))));
    };
    refuse_full(dir)?;
    let readme = readme(template);
    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("pipeline.yaml".to_owned(), shortened(template.pipeline).into_bytes()),
        ("README.md".to_owned(), readme.into_bytes()),
        (".gitignore".to_owned(), b"out/\n".to_vec()),
    ];
    files.extend(template.files.iter().map(|(path, bytes)| (shortened(path), bytes.to_vec())));
    for (path, bytes) in &files {
        write(&dir.join(path), bytes)?;
    }
    let mut text = format!("made {}\n", dir.display());
    files.sort();
    for (path, _) in &files {
        let _ = writeln!(text, "  {path}");
    }
    let _ = writeln!(text, "\nnow: cd {} && tiebeam run pipeline.yaml", dir.display());
    Ok(text)
}

/// A folder that holds something is somebody's.
fn refuse_full(dir: &Path) -> Result<()> {
    let refused = |message: String| Error::new(ErrorKind::Output, "TB0593", message);
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(refused(format!("the folder {} is not empty", dir.display()))
                .with_help("name a new one: nothing is written over")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(refused(format!("{} cannot be used: {error}", dir.display()))),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let done =
        path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, bytes));
    done.map_err(|error| {
        Error::new(ErrorKind::Output, "TB0593", format!("{} cannot be written: {error}", path.display()))
    })
}

/// The examples' paths as they are in a folder of their own.
fn shortened(text: &str) -> String {
    let text = text.replace("examples/data/", "data/").replace("fixtures/models/", "models/");
    let text = text.replace("{{ output }}", "out/words").replace(" --set output=out/words", "");
    let run = text.lines().find_map(|line| line.strip_prefix("#   tiebeam run examples/"));
    match run.and_then(|rest| rest.split(' ').next()) {
        Some(name) => text.replace(&format!("tiebeam run examples/{name}"), "tiebeam run pipeline.yaml"),
        None => text,
    }
}

fn readme(template: &Template) -> String {
    let mut text = format!("# {}\n\n{}.\n\n", template.name, capital(template.about));
    let _ = writeln!(text, "    tiebeam run pipeline.yaml\n\nIt writes {}. Then:\n", template.shows);
    let width = template.next.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    for (command, does) in template.next {
        let _ = writeln!(text, "    {command:width$}   # {does}");
    }
    text.push_str(
        "\nPut your own files into `data/` and `models/`: `tiebeam models inspect MODEL` tells what a model takes, and\n\
         `tiebeam transforms` what else a pipeline file can do.\n",
    );
    text
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
