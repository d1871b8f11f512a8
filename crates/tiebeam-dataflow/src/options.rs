//! The options of a job on Dataflow, by the names that Beam's own SDKs give them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tiebeam_core::{Error, ErrorKind, Result};
use tiebeam_graph::ResourceHints;
use tiebeam_graph::hints::bytes_of;
use tiebeam_portable::JobOptions;

use crate::auth::Secret;
use crate::gs::GsPath;
use crate::http::safe_endpoint;

/// Where Dataflow's API is.
const DATAFLOW: &str = "https://dataflow.googleapis.com";
/// Where Cloud Storage's API is.
const STORAGE: &str = "https://storage.googleapis.com";
/// Options that are for this client alone: workers and the console never see them.
const PRIVATE: &[&str] = &["token", "worker_binary", "dataflow_endpoint", "gcs_endpoint"];

/// How a job grows and shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Autoscaling {
    /// It does not.
    None,
    /// By its backlog and its throughput.
    ThroughputBased,
}

/// The workers' machines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machines {
    /// `num_workers`: at the beginning.
    pub count: Option<u32>,
    /// `max_num_workers`: at most.
    pub most: Option<u32>,
    /// `autoscaling_algorithm`: NONE or THROUGHPUT_BASED.
    pub autoscaling: Option<Autoscaling>,
    /// `worker_machine_type` or `machine_type`, such as n2-standard-8.
    pub machine_type: Option<String>,
    /// `disk_size_gb`.
    pub disk_size_gb: Option<u32>,
    /// `worker_disk_type` or `disk_type`.
    pub disk_type: Option<String>,
    /// `number_of_worker_harness_threads`.
    pub threads: Option<u32>,
    /// `network`.
    pub network: Option<String>,
    /// `subnetwork`.
    pub subnetwork: Option<String>,
    /// `use_public_ips`.
    pub public_ips: Option<bool>,
    /// `worker_region`.
    pub region: Option<String>,
    /// `worker_zone`.
    pub zone: Option<String>,
}

/// What a job on Dataflow needs to know beside its pipeline.
#[derive(Debug, Clone)]
pub struct DataflowOptions {
    /// `project`: the Google Cloud project.
    pub project: String,
    /// `region`: the region whose service runs the job.
    pub region: String,
    /// `temp_location`: where the engine keeps what it needs for a while.
    pub temp_location: GsPath,
    /// `staging_location`: where the job's files go; `staging` below the temporary location unless told.
    pub staging_location: GsPath,
    /// `streaming`: also set by a pipeline that reads without end.
    pub streaming: bool,
    /// The workers' machines.
    pub machines: Machines,
    /// `min_ram` and `accelerator`: what the steps need, for the whole pipeline.
    pub hints: ResourceHints,
    /// `service_account_email`: who the workers are.
    pub service_account: Option<String>,
    /// `dataflow_kms_key` or `kms_key`: encrypts what the job keeps.
    pub kms_key: Option<String>,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `experiments`, beside those that this client needs.
    pub experiments: Vec<String>,
    /// `dataflow_service_options`.
    pub service_options: Vec<String>,
    /// `flexrs_goal`: COST_OPTIMIZED or SPEED_OPTIMIZED.
    pub flexrs_goal: Option<String>,
    /// `update`: replaces the running job of the same name.
    pub update: bool,
    /// `transform_name_mapping`: which step of the running job became which of this one.
    pub transform_name_mapping: BTreeMap<String, String>,
    /// `worker_binary`: a static program that an image's boot program fetches and starts as the worker.
    pub worker_binary: Option<PathBuf>,
    /// `dataflow_endpoint`: another address of Dataflow's API.
    pub dataflow_endpoint: String,
    /// `gcs_endpoint`: another address of Cloud Storage's API.
    pub gcs_endpoint: String,
    /// `token`: an access token.
    pub token: Option<Secret>,
}

impl DataflowOptions {
    /// Reads them from a job's options; options that are not of Dataflow are left alone.
    ///
    /// # Errors
    /// When one is missing or cannot work; all that are missing are told at once.
    pub fn parse(options: &JobOptions) -> Result<DataflowOptions> {
        let read = Reader { options };
        read.required(&["project", "region", "temp_location"])?;
        let temp_location = read.gs("temp_location")?.ok_or_else(|| wrong("temp_location", "is missing"))?;
        let staging_location = match read.gs("staging_location")? {
            Some(told) => told,
            None => temp_location.join("staging"),
        };
        let text = |name: &str| read.text(&[name]);
        let parsed = DataflowOptions {
            project: text("project")?.unwrap_or_default(),
            region: text("region")?.unwrap_or_default(),
            temp_location,
            staging_location,
            streaming: read.flag("streaming")?.unwrap_or(false),
            machines: machines(&read)?,
            hints: hints(&read)?,
            service_account: text("service_account_email")?,
            kms_key: read.text(&["dataflow_kms_key", "kms_key"])?,
            labels: labels(&read)?,
            experiments: read.list("experiments")?,
            service_options: read.list("dataflow_service_options")?,
            flexrs_goal: read.one_of("flexrs_goal", &["COST_OPTIMIZED", "SPEED_OPTIMIZED"])?,
            update: read.flag("update")?.unwrap_or(false),
            transform_name_mapping: read.texts("transform_name_mapping")?,
            worker_binary: text("worker_binary")?.map(PathBuf::from),
            dataflow_endpoint: endpoint(&read, "dataflow_endpoint", DATAFLOW)?,
            gcs_endpoint: endpoint(&read, "gcs_endpoint", STORAGE)?,
            token: text("token")?.map(Secret::new),
        };
        parsed.check()?;
        Ok(parsed)
    }

    /// A job's options without those that nobody else is to see.
    pub fn public(options: &JobOptions) -> JobOptions {
        let shown = options.iter().filter(|(name, _)| !PRIVATE.contains(&name.as_str()));
        shown.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What only the whole of them shows.
    fn check(&self) -> Result<()> {
        let plain = |text: &str, more: &str| {
            text.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || more.as_bytes().contains(&byte)
            })
        };
        if !plain(&self.project, "-:.") {
            return Err(wrong("project", &format!("is `{}`, which is no project id", self.project)));
        }
        if !plain(&self.region, "-") {
            return Err(wrong("region", &format!("is `{}`, which is no region", self.region)));
        }
        let machines = &self.machines;
        if let (Some(count), Some(most)) = (machines.count, machines.most)
            && count > most
        {
            return Err(wrong("num_workers", &format!("is {count}, more than max_num_workers={most}")));
        }
        if machines.region.is_some() && machines.zone.is_some() {
            return Err(wrong("worker_zone", "and `worker_region` exclude each other"));
        }
        if !self.transform_name_mapping.is_empty() && !self.update {
            return Err(wrong("transform_name_mapping", "has no use without `update=true`"));
        }
        if let Some(off) =
            self.experiments.iter().find(|one| one.starts_with("disable_") && one.contains("runner"))
        {
            return Err(wrong("experiments", &format!("has `{off}`, but these jobs run on Runner v2 only")));
        }
        Ok(())
    }
}

fn machines(read: &Reader<'_>) -> Result<Machines> {
    let autoscaling = match read.one_of("autoscaling_algorithm", &["NONE", "THROUGHPUT_BASED"])?.as_deref() {
        Some("NONE") => Some(Autoscaling::None),
        Some(_) => Some(Autoscaling::ThroughputBased),
        None => None,
    };
    Ok(Machines {
        count: read.count("num_workers")?,
        most: read.count("max_num_workers")?,
        autoscaling,
        machine_type: read.text(&["worker_machine_type", "machine_type"])?,
        disk_size_gb: read.count("disk_size_gb")?,
        disk_type: read.text(&["worker_disk_type", "disk_type"])?,
        threads: read.count("number_of_worker_harness_threads")?,
        network: read.text(&["network"])?,
        subnetwork: read.text(&["subnetwork"])?,
        public_ips: read.flag("use_public_ips")?,
        region: read.text(&["worker_region"])?,
        zone: read.text(&["worker_zone"])?,
    })
}

fn hints(read: &Reader<'_>) -> Result<ResourceHints> {
    let mut hints = ResourceHints::new();
    if let Some(text) = read.text(&["min_ram"])? {
        hints = hints.min_ram_bytes(bytes_of(&text).ok_or_else(|| {
            wrong("min_ram", &format!("is `{text}`; wanted a size such as 8GB, 1.5GiB or a number of bytes"))
        })?);
    }
    if let Some(text) = read.text(&["accelerator"])? {
        if !text.starts_with("type:") {
            let what =
                format!("is `{text}`; wanted such as type:nvidia-tesla-t4;count:1;install-nvidia-driver");
            return Err(wrong("accelerator", &what));
        }
        hints = hints.accelerator(text);
    }
    Ok(hints)
}

/// Labels, by Google Cloud's rules, which it would tell only after the upload.
fn labels(read: &Reader<'_>) -> Result<BTreeMap<String, String>> {
    let labels = read.texts("labels")?;
    let fits = |text: &str| {
        let plain = |c: char| {
            c.is_lowercase() || c.is_numeric() || "_-".contains(c) || (c.is_alphabetic() && !c.is_uppercase())
        };
        text.chars().count() <= 63 && text.chars().all(plain)
    };
    for (name, value) in &labels {
        let begins = name.chars().next().is_some_and(|c| c.is_alphabetic());
        if !begins || !fits(name) || !fits(value) {
            let what = format!(
                "has `{name}={value}`; a label is made of up to 63 lower case letters, digits, `_` and `-`, its name begins with a letter"
            );
            return Err(wrong("labels", &what));
        }
    }
    if labels.len() > 64 {
        return Err(wrong("labels", &format!("has {} of them, more than 64", labels.len())));
    }
    Ok(labels)
}

fn endpoint(read: &Reader<'_>, name: &str, known: &str) -> Result<String> {
    match read.text(&[name])? {
        Some(told) => safe_endpoint(name, &told),
        None => Ok(known.to_owned()),
    }
}

/// An option that cannot work.
fn wrong(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "TB0760", format!("the option `{name}` {what}"))
}

struct Reader<'a> {
    options: &'a JobOptions,
}

impl Reader<'_> {
    /// What was said for the first of these names that has something.
    fn get(&self, names: &[&str]) -> Option<&Value> {
        let said = names.iter().filter_map(|name| self.options.get(*name));
        said.into_iter().find(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn required(&self, names: &[&str]) -> Result<()> {
        let missing: Vec<&str> = names.iter().copied().filter(|name| self.get(&[name]).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let flags: Vec<String> = missing
            .iter()
            .map(|name| {
                format!(
                    "--option {name}={}",
                    if name.ends_with("location") { "gs://BUCKET/tmp" } else { "…" }
                )
            })
            .collect();
        let message = format!(
            "a job on dataflow needs the option{} {}",
            if missing.len() > 1 { "s" } else { "" },
            missing.join(", ")
        );
        Err(Error::new(ErrorKind::InvalidArgument, "TB0760", message)
            .with_help(format!("add {}", flags.join(" "))))
    }

    /// A text; a project may be all digits, which the command line takes for a number.
    fn text(&self, names: &[&str]) -> Result<Option<String>> {
        match self.get(names) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            // A token's value must not be shown.
            Some(_) => Err(wrong(names[0], "is no text")),
        }
    }

    fn gs(&self, name: &str) -> Result<Option<GsPath>> {
        self.text(&[name])?.map(|text| GsPath::parse(&text).map_err(|why| wrong(name, &why))).transpose()
    }

    fn count(&self, name: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(&[name]) else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        match number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (1..=i32::MAX as u32).contains(number))
        {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(name, &format!("is {value}; wanted a whole number above 0"))),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(&[name]) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(wrong(name, &format!("is {other}; wanted true or false"))),
        }
    }

    fn one_of(&self, name: &str, known: &[&str]) -> Result<Option<String>> {
        let Some(text) = self.text(&[name])? else { return Ok(None) };
        if known.contains(&text.as_str()) {
            return Ok(Some(text));
        }
        Err(wrong(name, &format!("is `{text}`; wanted {}", known.join(" or "))))
    }

    /// A JSON array of texts, or texts between commas.
    fn list(&self, name: &str) -> Result<Vec<String>> {
        match self.get(&[name]) {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => {
                Ok(text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect())
            }
            Some(Value::Array(all)) => all
                .iter()
                .map(|one| {
                    one.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| wrong(name, &format!("has {one}, which is no text")))
                })
                .collect(),
            Some(other) => Err(wrong(name, &format!("is {other}; wanted a,b or a JSON array of texts"))),
        }
    }

    /// A JSON object of texts, or `name=value` between commas.
    fn texts(&self, name: &str) -> Result<BTreeMap<String, String>> {
        if let Some(Value::Object(all)) = self.get(&[name]) {
            let text = |value: &Value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                Value::Bool(flag) => Some(flag.to_string()),
                _ => None,
            };
            return all
                .iter()
                .map(|(key, value)| match text(value) {
                    Some(value) => Ok((key.clone(), value)),
                    None => Err(wrong(name, &format!("has {value} for `{key}`, which is no text"))),
                })
                .collect();
        }
        let pairs = self.list(name)?;
        pairs
            .iter()
            .map(|pair| match pair.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(wrong(name, &format!("has `{pair}`; wanted name=value,… or a JSON object"))),
            })
            .collect()
    }
}

/// A job's name as Dataflow wants it, made from a pipeline's: lower case letters, digits and `-`.
pub fn job_name_of(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let fitting: String = name.chars().map(fit).collect();
    let fitting = fitting.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-');
    let short: String = fitting.chars().take(63).collect();
    if short.is_empty() { "tiebeam".to_owned() } else { short.trim_end_matches('-').to_owned() }
}

/// Whether Dataflow takes a job's name.
pub(crate) fn check_job_name(name: &str) -> Result<()> {
    if job_name_of(name) == name {
        return Ok(());
    }
    Err(wrong(
        "job_name",
        &format!("is `{name}`; Dataflow wants up to 63 lower case letters, digits and `-`, a letter first"),
    )
    .with_help(format!("such as --job-name {}", job_name_of(name))))
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
