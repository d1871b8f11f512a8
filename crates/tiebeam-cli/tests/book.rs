//! Every block of the book is tried: commands print what the pages say, pipelines are valid, and what can't be tried says why.
//!
//! How blocks are marked is told in docs/README.md.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)] // the tests' own functions, too

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fenced block: where it begins, what its fence says, and what is in it.
#[derive(Debug)]
struct Block {
    line: usize,
    fence: String,
    text: String,
}

impl Block {
    fn language(&self) -> &str {
        self.fence.split([' ', ',']).next().unwrap_or_default()
    }

    /// What it would need to be tried.
    fn needs(&self) -> Option<&str> {
        self.fence.split_once("needs: ").map(|(_, needs)| needs).filter(|needs| !needs.trim().is_empty())
    }

    /// The file that it is.
    fn file(&self) -> Option<&str> {
        let mut words = self.fence.split(' ');
        words.next();
        words.next().filter(|word| word.contains('.') && !word.contains("needs"))
    }
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in page.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(fence), None) => {
                open = Some(Block { line: number + 1, fence: fence.trim().to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block that is not closed");
    blocks
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All pages, by their paths from the root.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs", "docs/engines"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    pages.sort();
    pages
}

/// A page's own folder, in which the repository's examples and fixtures are found.
fn folder_of(blocks: &[Block]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for shared in ["examples", "fixtures"] {
        std::os::unix::fs::symlink(root().join(shared), folder.path().join(shared)).unwrap();
    }
    for block in blocks.iter().filter(|block| block.needs().is_none()) {
        if let Some(file) = block.file() {
            fs::write(folder.path().join(file), &block.text).unwrap();
        }
    }
    folder
}

/// Runs a block as a user would, in the page's shell; gives what was printed.
fn run(folder: &Path, at: &Path, script: &str) -> (String, bool) {
    let tiebeam = Path::new(env!("CARGO_BIN_EXE_tiebeam")).parent().unwrap().to_owned();
    let path = std::env::join_paths(
        std::iter::once(tiebeam).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    // A page that goes to another folder stays there.
    let script = format!("cd '{}' && exec 2>&1\n{script}\npwd > '{}/.at'\n", at.display(), folder.display());
    let output = Command::new("timeout")
        .args(["120", "sh", "-eu", "-c", &script])
        .env("PATH", path.unwrap())
        .env("XDG_RUNTIME_DIR", folder)
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// Whether a line is what the page says; `…` is any text.
fn is_like(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// What differs between what was printed and what the page says. A line of `…` alone stands for any lines.
fn differs(printed: &str, wanted: &str) -> Option<String> {
    let mut left: Vec<&str> = printed.lines().collect();
    let mut missing = Vec::new();
    let mut any = false;
    for line in wanted.lines() {
        if line.trim() == "…" {
            any = true;
            continue;
        }
        match left.iter().position(|seen| is_like(seen, line)) {
            Some(at) => drop(left.remove(at)),
            None => missing.push(line),
        }
    }
    if missing.is_empty() && (any || left.is_empty()) {
        return None;
    }
    Some(format!("not printed: {missing:#?}\nnot on the page: {left:#?}"))
}

#[test]
fn lines_are_compared_but_for_what_is_left_open() {
    assert!(is_like("done in 0.12 s", "done in … s") && is_like("a", "a") && is_like("", ""));
    assert!(!is_like("done in 0.12 s!", "done in … s") && !is_like("ab", "a"));
    assert!(is_like("{\"t\":0.1,\"x\":2,\"in\":3}", "{\"t\":…,\"in\":3}"));
    assert_eq!(differs("b\na\n", "a\nb\n"), None);
    assert_eq!(differs("a\nb\nc\n", "a\n…\n"), None);
    assert!(differs("a\n", "a\na\n").is_some() && differs("a\na\n", "a\n").is_some());
}

/// Tries a page; gives what is wrong with it.
fn try_page(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let blocks = blocks(&text);
    let folder = folder_of(&blocks);
    let mut at = folder.path().to_owned();
    let mut wrong = Vec::new();
    let mut blocks = blocks.iter().peekable();
    while let Some(block) = blocks.next() {
        let place = format!("{page}:{}", block.line);
        if block.needs().is_some() {
            continue;
        }
        match block.language() {
            "sh" => {
                let (printed, went_well) = run(folder.path(), &at, &block.text);
                if let Ok(now) = fs::read_to_string(folder.path().join(".at")) {
                    at = PathBuf::from(now.trim_end());
                }
                if !went_well {
                    wrong.push(format!("{place}: the commands failed:\n{printed}"));
                }
                if let Some(wanted) = blocks.next_if(|next| next.fence == "text")
                    && let Some(difference) = differs(&printed, &wanted.text)
                {
                    wrong.push(format!("{place}: {difference}"));
                }
            }
            // tiebeam-yaml runs this page's pipelines and looks at their rows.
            "yaml" if page == "docs/pipelines-in-yaml.md" => {}
            "yaml" if block.file().is_some() => {}
            "yaml" => {
                fs::write(at.join("block.yaml"), &block.text).unwrap();
                let (printed, went_well) = run(folder.path(), &at, "tiebeam validate block.yaml");
                if !went_well {
                    wrong.push(format!("{place}: {printed}"));
                }
            }
            // Documentation tests of the crate tiebeam.
            "rust" if RUST_PAGES.contains(&page) => {}
            "text" if page == "docs/pipelines-in-yaml.md" => {}
            other => {
                wrong.push(format!("{place}: a block of `{other}` that nothing tries: say what it `needs: `"))
            }
        }
    }
    wrong
}

/// The pages whose Rust the crate tiebeam includes.
const RUST_PAGES: [&str; 5] = [
    "README.md",
    "docs/models.md",
    "docs/handlers.md",
    "docs/updates-and-failures.md",
    "docs/pipelines-in-rust.md",
];

#[test]
fn every_block_of_the_book_is_tried() {
    let pages = pages();
    let wrong: Vec<String> = pages.iter().flat_map(|page| try_page(page)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let facade = fs::read_to_string(root().join("crates/tiebeam/src/lib.rs")).unwrap();
    for page in RUST_PAGES {
        assert!(facade.contains(&format!("include_str!(\"../../../{page}\")")), "{page} is not included");
    }
}

#[test]
fn the_mistake_on_the_page_of_yaml_is_told_as_it_says() {
    let text = fs::read_to_string(root().join("docs/pipelines-in-yaml.md")).unwrap();
    let blocks = blocks(&text);
    let pipeline = &blocks[0].text.replace("century: born", "century: bron");
    let wanted = blocks.iter().find(|block| block.fence == "text").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("people.yaml"), pipeline).unwrap();
    let (printed, _) = run(folder.path(), folder.path(), "tiebeam validate people.yaml || true");
    assert_eq!(printed, wanted.text);
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let beside = root().join(&page).parent().unwrap().to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") && !beside.join(path).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}
