//! `tiebeam top` and `tiebeam tap`: looking at a job that runs with `--ui`.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tiebeam::launch::ui::{Known, json_at, known_jobs};
use tiebeam::launch::{Exit, print_error};
use tiebeam::{Error, ErrorKind, Result};

use crate::output;

/// The command line of `tiebeam top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The job: its address, name or process. Without it the only one that runs; where there are several, they are listed.
    job: Option<String>,
    /// Once, and not again until the job ends.
    #[arg(long)]
    once: bool,
    /// The whole status as JSON, once.
    #[arg(long)]
    json: bool,
}

/// The command line of `tiebeam tap`.
#[derive(Debug, Args)]
pub struct TapArgs {
    /// The job: its address, name or process; `-` is the only one that runs.
    job: String,
    /// The step, as `tiebeam top` names it.
    step: String,
    /// How many elements.
    #[arg(short = 'n', long = "count", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    count: u16,
    /// How many seconds it waits for them.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=600))]
    wait: u64,
}

/// Shows the counts of a job until it ends.
pub fn top(args: &TopArgs) -> Exit {
    let address = match find(args.job.as_deref()) {
        Ok(Found::One(address)) => address,
        Ok(Found::Several(jobs)) => {
            output::stdout(listed(&jobs).as_bytes());
            return Exit::Ok;
        }
        Err(error) => {
            print_error(&error);
            return Exit::BadUsage;
        }
    };
    let redraws = std::io::stdout().is_terminal() && !args.once;
    let mut shown = 0;
    loop {
        let status = match json_at(address, "/status", &[], Duration::ZERO) {
            Ok((200, status)) => status,
            // It answered before: it is done.
            _ if shown > 0 => {
                output::stderr("the job has ended\n");
                return Exit::Ok;
            }
            Ok((_, problem)) => return told(&problem),
            Err(error) => {
                print_error(&error);
                return Exit::JobFailed;
            }
        };
        let text = if args.json { format!("{status:#}\n") } else { table(&status) };
        if redraws && shown > 0 {
            output::stdout(format!("\x1b[{shown}A\x1b[J").as_bytes());
        }
        output::stdout(text.as_bytes());
        if args.once || args.json {
            return Exit::Ok;
        }
        shown = text.lines().count();
        // The page is looked at once a second, as a person does.
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Shows the next elements that leave a step.
pub fn tap(args: &TapArgs) -> Exit {
    let wanted = Some(args.job.as_str()).filter(|job| *job != "-");
    let address = match find(wanted) {
        Ok(Found::One(address)) => address,
        Ok(Found::Several(jobs)) => {
            output::stderr(&listed(&jobs));
            return Exit::BadUsage;
        }
        Err(error) => {
            print_error(&error);
            return Exit::BadUsage;
        }
    };
    let (count, wait) = (args.count.to_string(), args.wait.to_string());
    let query = [("step", args.step.as_str()), ("n", &count), ("wait", &wait)];
    match json_at(address, "/tap", &query, Duration::from_secs(args.wait)) {
        Ok((200, taken)) => {
            let elements = taken["elements"].as_array().map(Vec::as_slice).unwrap_or_default();
            if elements.is_empty() {
                output::stderr(&format!("nothing left `{}` in {wait} s: it is done, or waits\n", args.step));
            }
            for element in elements {
                output::stdout(format!("{}\n", element["value"]).as_bytes());
            }
            Exit::Ok
        }
        Ok((_, problem)) => told(&problem),
        Err(error) => {
            print_error(&error);
            Exit::JobFailed
        }
    }
}

/// What a job said instead of an answer.
fn told(problem: &Value) -> Exit {
    output::stderr(&format!(
        "error[TB0596]: {}\n",
        problem["error"].as_str().unwrap_or("the job gave no answer")
    ));
    if let Some(steps) = problem["steps"].as_array() {
        let steps: Vec<&str> = steps.iter().filter_map(Value::as_str).collect();
        output::stderr(&format!("  help: steps here: {}\n", steps.join(", ")));
    }
    Exit::BadUsage
}

enum Found {
    One(SocketAddr),
    Several(Vec<Known>),
}

/// The job that is meant.
fn find(wanted: Option<&str>) -> Result<Found> {
    if let Some(address) = wanted.and_then(address) {
        return Ok(Found::One(address));
    }
    let mut jobs = known_jobs();
    jobs.retain(|job| {
        // A note whose job was killed leads nowhere.
        let answers = std::net::TcpStream::connect_timeout(&job.address, Duration::from_millis(500)).is_ok();
        if !answers {
            job.forget();
        }
        answers
    });
    let is = |job: &&Known| wanted.is_none_or(|wanted| job.job == wanted || job.pid.to_string() == wanted);
    let found: Vec<Known> = jobs.iter().filter(is).cloned().collect();
    let help = "start one with `tiebeam run FILE --ui`";
    match (found.as_slice(), wanted) {
        ([only], _) => Ok(Found::One(only.address)),
        ([], Some(wanted)) => {
            let message = format!("no job `{wanted}` that can be looked at runs on this machine");
            let help = if jobs.is_empty() { help.to_owned() } else { listed(&jobs).trim_end().to_owned() };
            Err(Error::new(ErrorKind::InvalidArgument, "TB0596", message).with_help(help))
        }
        ([], None) => {
            let message = "no job that can be looked at runs on this machine";
            Err(Error::new(ErrorKind::InvalidArgument, "TB0596", message).with_help(help))
        }
        _ => Ok(Found::Several(found)),
    }
}

/// `IP:PORT`, `localhost:PORT`, or either behind `http://`.
fn address(text: &str) -> Option<SocketAddr> {
    let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let local = || format!("127.0.0.1:{}", text.strip_prefix("localhost:")?).parse().ok();
    text.parse().ok().or_else(local)
}

fn listed(jobs: &[Known]) -> String {
    let mut text = "several jobs run here: name one by its address\n".to_owned();
    for job in jobs {
        let _ = writeln!(text, "  {}  {} (process {})", job.address, job.job, job.pid);
    }
    text
}

fn table(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let seconds = status["seconds"].as_f64().unwrap_or(0.0);
    let mut out = format!(
        "{}: {} on {}, {seconds:.1} s\n",
        text(&status["job"]),
        text(&status["status"]),
        text(&status["runner"])
    );
    let stages = status["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let width = stages.iter().map(|stage| text(&stage["name"]).chars().count()).max().unwrap_or(4).max(4);
    let _ = writeln!(
        out,
        "{:width$} {:>12} {:>12} {:>10} {:>9} {:>8}",
        "step", "in", "out", "out/s", "busy s", "dead"
    );
    for stage in stages {
        let number = |key: &str| stage[key].as_u64().unwrap_or(0);
        let _ = writeln!(
            out,
            "{:width$} {:>12} {:>12} {:>10.0} {:>9.1} {:>8}",
            text(&stage["name"]),
            number("in"),
            number("out"),
            number("out") as f64 / seconds.max(1e-3),
            stage["seconds"].as_f64().unwrap_or(0.0),
            number("dead")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_named_by_their_addresses() {
        for text in ["127.0.0.1:80", "localhost:80", "http://127.0.0.1:80/", "http://localhost:80"] {
            assert_eq!(address(text), Some(SocketAddr::from(([127, 0, 0, 1], 80))), "{text}");
        }
        assert_eq!((address("score"), address("1234")), (None, None));
    }
}
