//! `cargo xtask drill`: what is asked of the embedded runner beyond the right answer.
//!
//! - `group`: groups of more data than memory, exact, and what that took at most.
//! - `resume`: a job that is killed again and again and goes on each time, until it ends: its output is byte for byte that of
//!   an undisturbed run, and at no time is anything partial to be seen.
//! - `images`: good images among damaged ones and decompression bombs: a prediction for each good one, a reason for each other
//!   one, in bounded memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::{built, say};

type Outcome<T> = Result<T, String>;

/// What the drills are told.
struct Told {
    size: u64,
    memory: u64,
    kills: usize,
    seed: u64,
}

/// The task with its arguments. False where something was wrong.
pub(crate) fn run(arguments: &[&str]) -> Outcome<bool> {
    let mut told = Told { size: 1_000_000_000, memory: 128 << 20, kills: 8, seed: 1 };
    let mut names = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut value = || rest.next().copied().ok_or(format!("`{word}` wants a value"));
        match *word {
            "--size" => told.size = bytes(value()?)?,
            "--memory-limit" => told.memory = bytes(value()?)?,
            "--kills" => told.kills = value()?.parse().map_err(|_| "`--kills` wants a number".to_owned())?,
            "--seed" => told.seed = value()?.parse().map_err(|_| "`--seed` wants a number".to_owned())?,
            "group" | "resume" | "images" => names.push(*word),
            other => return Err(format!("there is no drill `{other}`, only group, resume and images")),
        }
    }
    if names.is_empty() {
        names = vec!["group", "resume", "images"];
    }
    let programs = built::programs(["tiebeam", "large_groups", "hostile_images"])?;
    let (mut passed, mut failed) = (0, 0);
    for name in names {
        let folder = std::env::temp_dir().join(format!("tiebeam-drill-{}", std::process::id()));
        let done = fs::create_dir_all(&folder).map_err(shown).and_then(|()| match name {
            "group" => group(&programs["large_groups"], &told, &folder),
            "images" => images(&programs["hostile_images"], &folder),
            _ => resume(&programs["tiebeam"], &told, &folder),
        });
        let _ = fs::remove_dir_all(&folder);
        match done {
            Ok(text) => {
                passed += 1;
                say(format_args!("drill {name}: ok\n{text}"));
            }
            Err(why) => {
                failed += 1;
                say(format_args!("drill {name}: FAILED: {why}"));
            }
        }
    }
    say(format_args!("drill: {passed} passed, {failed} failed, 0 skipped"));
    Ok(failed == 0)
}

/// `512MiB`, `4GB`.
fn bytes(text: &str) -> Outcome<u64> {
    let units =
        [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000)];
    let unit = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let number: u64 =
        number.trim().parse().map_err(|_| format!("wanted a size such as 512MiB, got `{text}`"))?;
    number.checked_mul(unit).ok_or(format!("`{text}` is too much"))
}

fn shown(error: std::io::Error) -> String {
    error.to_string()
}

/// Groups `--size` bytes in `--memory-limit`.
fn group(program: &Path, told: &Told, folder: &Path) -> Outcome<String> {
    let out = folder.join("out/groups");
    let begun = Instant::now();
    let output = Command::new(program)
        .args(["--threads", "2", "--progress", "none"])
        .arg(format!("--output={}", out.display()))
        .arg(format!("--memory-limit={}", told.memory))
        .arg(format!("--set=bytes={}", told.size))
        .current_dir(folder)
        .output()
        .map_err(shown)?;
    let seconds = begun.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the job failed: {said}"));
    }
    let files = visible(&folder.join("out"))?;
    let verdict: String = files.values().map(|text| String::from_utf8_lossy(text)).collect();
    let verdict = verdict.trim();
    if !verdict.starts_with("exact: ") {
        return Err(format!("the output is `{verdict}`"));
    }
    let peak = peak(&said)?;
    let note = said.lines().find(|line| line.starts_with("note: key")).unwrap_or("note: no key was hot");
    let text = format!(
        "{verdict}\n{note}\n{:.0} MB in {} MiB: peak {} MiB, {seconds:.1} s",
        told.size as f64 / 1e6,
        told.memory >> 20,
        peak >> 10
    );
    // The allocator keeps some of what was given back to it.
    if peak << 10 > told.memory / 8 * 9 + (16 << 20) {
        Err(format!("too much memory: {text}"))
    } else {
        Ok(text)
    }
}

/// The kibibytes that a job says that it took at most.
fn peak(said: &str) -> Outcome<u64> {
    let peak = said.lines().find_map(|line| line.strip_prefix("peak memory: ")).map(str::trim);
    peak.and_then(|text| text.strip_suffix("kB")?.trim().parse().ok())
        .ok_or(format!("the job did not say what it took: {said}"))
}

/// Images of the drill, the damaged among them, and the bombs beside them.
const IMAGES: usize = 10_000;
const DAMAGED: usize = 100;
const BOMBS: usize = 3;

/// The most kibibytes that the images may take.
const IMAGES_PEAK: u64 = 1 << 20;

/// A model's answer for each good image, a reason for each other one. The files' names tell which is which: `00001-green.img`,
/// `00050-empty.img`, `bomb-of-zeros.img`.
fn images(program: &Path, folder: &Path) -> Outcome<String> {
    let run = |command: &mut Command| {
        let output = command.current_dir(folder).output().map_err(shown)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(said) } else { Err(format!("the job failed: {said}")) }
    };
    run(Command::new(program).arg("make").arg(folder.join("in")).arg(IMAGES.to_string()))?;
    let begun = Instant::now();
    let said = run(Command::new(program).args([
        "--threads",
        "2",
        "--progress",
        "none",
        "--input",
        "in",
        "--output",
        "out/classes",
    ]))?;
    let seconds = begun.elapsed().as_secs_f64();
    let (mut good, mut reasons) = (BTreeMap::new(), BTreeMap::new());
    for (name, text) in visible(&folder.join("out"))? {
        let into = if name.starts_with("classes-damaged") { &mut reasons } else { &mut good };
        for line in String::from_utf8_lossy(&text).lines() {
            let (file, rest) = line.split_once('\t').ok_or(format!("`{line}` has no file"))?;
            if into.insert(file.to_owned(), rest.to_owned()).is_some() {
                return Err(format!("{file} is there twice"));
            }
        }
    }
    let mut bombs = 0;
    for file in visible(&folder.join("in/photos"))?.keys() {
        let kind =
            file.strip_suffix(".img").and_then(|stem| stem.split_once('-')).map_or("", |(_, kind)| kind);
        let right = match (good.get(file), reasons.get(file)) {
            (Some(class), None) => class == kind,
            (None, Some(reason)) if file.starts_with("bomb") => {
                bombs += 1;
                reason.starts_with("TB0452\t")
            }
            (None, Some(reason)) => {
                !["red", "green", "blue"].contains(&kind) && reason.len() > "TB0450\t".len()
            }
            _ => false,
        };
        if !right {
            return Err(format!("{file}: class {:?}, reason {:?}", good.get(file), reasons.get(file)));
        }
    }
    let peak = peak(&said)?;
    let text = format!(
        "{} predictions, {} dead letters of which {bombs} are bombs, peak {} MiB, {seconds:.1} s",
        good.len(),
        reasons.len(),
        peak >> 10
    );
    let wanted = (IMAGES - DAMAGED, DAMAGED + BOMBS, BOMBS);
    if (good.len(), reasons.len(), bombs) == wanted && peak <= IMAGES_PEAK { Ok(text) } else { Err(text) }
}

/// Numbers of the job that is killed.
const FILES: usize = 200;
const LINES: usize = 1_000;

const PIPELINE: &str = "
pipeline:
  transforms:
    - type: ReadFromCsv
      name: Read
      config: {path: 'in/*.csv'}
    - type: MapToFields
      name: Shape
      input: Read
      config: {language: python, append: true, fields: {twice: n * 2}}
    - type: WriteToCsv
      name: All
      input: Shape
      config: {path: out/all}
    - type: Combine
      name: Sums
      input: Shape
      config: {group_by: key, combine: {n: sum, twice: max}}
    - type: WriteToCsv
      name: Kept
      input: Sums
      config: {path: out/sums}
";

/// Kills a job `--kills` times.
fn resume(program: &Path, told: &Told, folder: &Path) -> Outcome<String> {
    write_input(folder).map_err(shown)?;
    let begun = Instant::now();
    let undisturbed = start(program, folder)?.wait_with_output().map_err(shown)?;
    let once = begun.elapsed().as_secs_f64();
    if !undisturbed.status.success() {
        return Err(format!("the undisturbed run failed: {}", String::from_utf8_lossy(&undisturbed.stderr)));
    }
    let wanted = visible(&folder.join("out"))?;
    leftovers(folder)?;
    fs::remove_dir_all(folder.join("out")).map_err(shown)?;

    let mut random = told.seed;
    let (mut killed, mut runs, mut ends, mut again, mut halves) = (0, 0, 0, 0, 0);
    while killed < told.kills || ends == 0 {
        runs += 1;
        let mut child = start(program, folder)?;
        // After some more bundles, which are some more than the ones that are done already; zero is at the very start.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let before = bundles_done(folder);
        let more = (random >> 33) as usize % 40;
        while killed < told.kills
            && bundles_done(folder) < before + more
            && child.try_wait().map_err(shown)?.is_none()
        {
            std::thread::yield_now();
        }
        let is_killed = killed < told.kills && child.try_wait().map_err(shown)?.is_none();
        if is_killed {
            child.kill().map_err(shown)?;
        }
        let output = child.wait_with_output().map_err(shown)?;
        halves += look(&wanted, folder, output.status.success())?;
        if output.status.success() {
            ends += 1;
            leftovers(folder)?;
            // More kills are wanted: the job begins anew, over the output that is there.
            again += usize::from(killed < told.kills);
        } else if is_killed {
            killed += 1;
        } else {
            return Err(format!("run {runs} failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(format!(
        "{} lines in {FILES} files: {killed} kills in {runs} runs, {ends} ends ({again} begun anew), output byte for byte that of \
         an undisturbed run of {once:.1} s, no partial file seen, {halves} kills between the names of a commit, nothing left over; \
         {:.1} s in all",
        FILES * LINES,
        begun.elapsed().as_secs_f64()
    ))
}

fn write_input(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder.join("in"))?;
    fs::write(folder.join("p.yaml"), PIPELINE)?;
    for file in 0..FILES {
        let numbers = file * LINES..(file + 1) * LINES;
        let lines: String = numbers.map(|n| format!("k{},{n}\n", n * 7919 % 1009)).collect();
        fs::write(folder.join(format!("in/{file:04}.csv")), format!("key,n\n{lines}"))?;
    }
    Ok(())
}

fn start(program: &Path, folder: &Path) -> Outcome<Child> {
    let arguments =
        ["run", "p.yaml", "--threads", "2", "--state-dir", "state", "--resume", "--progress", "none"];
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(shown)
}

/// The bundles that are written down as done.
fn bundles_done(folder: &Path) -> usize {
    let Ok(stages) = fs::read_dir(folder.join("state/tiebeam-run")) else { return 0 };
    let files = stages.flatten().filter_map(|stage| fs::read_dir(stage.path()).ok()).flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|ending| ending == "done")).count()
}

/// The files of a folder that others see, by name.
fn visible(dir: &Path) -> Outcome<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let Ok(entries) = fs::read_dir(dir) else { return Ok(files) };
    for entry in entries {
        let entry = entry.map_err(shown)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            files.insert(name, fs::read(entry.path()).map_err(shown)?);
        }
    }
    Ok(files)
}

/// Every file that is to be seen must be whole, and all of them there if the job ended well. Gives the number of outputs of
/// which some files had their names already and others not yet: those that were killed in the middle of their commit.
fn look(wanted: &BTreeMap<String, Vec<u8>>, folder: &Path, ended: bool) -> Outcome<usize> {
    let seen = visible(&folder.join("out"))?;
    for (name, bytes) in &seen {
        match wanted.get(name) {
            None => return Err(format!("`{name}` is no file of the output")),
            Some(whole) if whole != bytes => {
                return Err(format!(
                    "`{name}` has {} bytes, not the {} of an undisturbed run",
                    bytes.len(),
                    whole.len()
                ));
            }
            Some(_) => {}
        }
    }
    if ended && seen.len() != wanted.len() {
        return Err(format!("{} files, wanted {}", seen.len(), wanted.len()));
    }
    let of = |files: &BTreeMap<String, Vec<u8>>, prefix: &str| {
        files.keys().filter(|name| name.starts_with(prefix)).count()
    };
    let half = |prefix: &&str| (1..of(wanted, prefix)).contains(&of(&seen, prefix));
    Ok(["all-", "sums-"].iter().filter(|prefix| half(prefix)).count())
}

/// Nothing of ours is left in the folders of the output and of the state.
fn leftovers(folder: &Path) -> Outcome<()> {
    for dir in ["out", "state"] {
        for entry in fs::read_dir(folder.join(dir)).map_err(shown)? {
            let name = entry.map_err(shown)?.file_name().to_string_lossy().into_owned();
            if dir == "state" || name.starts_with('.') {
                return Err(format!("left over in {dir}: {name}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("4GB"), Ok(4_000_000_000));
        assert_eq!(bytes("512MiB"), Ok(512 << 20));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("much").is_err() && bytes("99999999999999GB").is_err());
    }
}
