//! What options are taken for, and what is refused.

use serde_json::json;

use super::*;

/// The three without which nothing works, and these.
fn with(more: Value) -> Result<DataflowOptions> {
    let mut options = json!({"project": "p-1", "region": "europe-west4", "temp_location": "gs://bucket/tmp"});
    for (name, value) in more.as_object().unwrap() {
        options[name] = value.clone();
    }
    DataflowOptions::parse(options.as_object().unwrap())
}

#[test]
fn all_that_is_missing_is_told_at_once() {
    let error = DataflowOptions::parse(&JobOptions::new()).unwrap_err();
    assert_eq!(error.code(), "TB0760");
    assert_eq!(error.message(), "a job on dataflow needs the options project, region, temp_location");
    assert_eq!(
        error.help(),
        Some("add --option project=… --option region=… --option temp_location=gs://BUCKET/tmp")
    );
    let options = json!({"project": "p", "region": "", "temp_location": "gs://bucket"});
    let error = DataflowOptions::parse(options.as_object().unwrap()).unwrap_err();
    assert_eq!(error.message(), "a job on dataflow needs the option region");
}

#[test]
fn the_least_is_enough() {
    let options = with(json!({})).unwrap();
    assert_eq!(options.staging_location.to_string(), "gs://bucket/tmp/staging");
    assert_eq!(options.dataflow_endpoint, "https://dataflow.googleapis.com");
    assert_eq!(options.gcs_endpoint, "https://storage.googleapis.com");
    assert!(!options.streaming && !options.update && options.labels.is_empty());
    assert_eq!(options.machines, Machines::default());
}

#[test]
fn values_come_as_texts_and_as_json() {
    let options = with(json!({
        "project": 123,
        "num_workers": "3", "max_num_workers": 9, "disk_size_gb": 50,
        "machine_type": "n2-standard-8", "autoscaling_algorithm": "THROUGHPUT_BASED",
        "use_public_ips": "False", "streaming": true,
        "labels": "team=a,cost-centre=7", "experiments": ["x", "y=1"], "dataflow_service_options": "a, b",
        "update": "true", "transform_name_mapping": {"Old": "New"},
        "min_ram": "8GB", "accelerator": "type:nvidia-l4;count:1", "kms_key": "k",
        "flexrs_goal": "COST_OPTIMIZED",
    }))
    .unwrap();
    assert_eq!(options.project, "123");
    let machines = options.machines;
    assert_eq!((machines.count, machines.most, machines.disk_size_gb), (Some(3), Some(9), Some(50)));
    assert_eq!(machines.autoscaling, Some(Autoscaling::ThroughputBased));
    assert_eq!((machines.public_ips, options.streaming, options.update), (Some(false), true, true));
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(options.labels, BTreeMap::from([label("team", "a"), label("cost-centre", "7")]));
    assert_eq!(options.experiments, ["x", "y=1"]);
    assert_eq!(options.service_options, ["a", "b"]);
    assert_eq!(options.transform_name_mapping, BTreeMap::from([label("Old", "New")]));
    assert_eq!(
        options.hints,
        tiebeam_graph::ResourceHints::new()
            .min_ram_bytes(8_000_000_000)
            .accelerator("type:nvidia-l4;count:1")
    );
    assert_eq!(options.kms_key.as_deref(), Some("k"));
}

#[test]
fn what_cannot_work_is_refused_by_its_name() {
    for (wrong, told) in [
        (json!({"project": "p/../q"}), "the option `project` is `p/../q`, which is no project id"),
        (json!({"region": "Mars"}), "the option `region` is `Mars`, which is no region"),
        (
            json!({"temp_location": "/tmp"}),
            "the option `temp_location` is `/tmp`; wanted gs://BUCKET or gs://BUCKET/FOLDER",
        ),
        (json!({"num_workers": 0}), "the option `num_workers` is 0; wanted a whole number above 0"),
        (json!({"num_workers": 2.5}), "the option `num_workers` is 2.5; wanted a whole number above 0"),
        (json!({"num_workers": -1}), "the option `num_workers` is -1; wanted a whole number above 0"),
        (
            json!({"disk_size_gb": 9e9}),
            "the option `disk_size_gb` is 9000000000.0; wanted a whole number above 0",
        ),
        (
            json!({"num_workers": 5, "max_num_workers": 4}),
            "the option `num_workers` is 5, more than max_num_workers=4",
        ),
        (
            json!({"worker_zone": "a", "worker_region": "b"}),
            "the option `worker_zone` and `worker_region` exclude each other",
        ),
        (
            json!({"transform_name_mapping": {"a": "b"}}),
            "the option `transform_name_mapping` has no use without `update=true`",
        ),
        (json!({"streaming": "yes"}), "the option `streaming` is \"yes\"; wanted true or false"),
        (
            json!({"autoscaling_algorithm": "BASIC"}),
            "the option `autoscaling_algorithm` is `BASIC`; wanted NONE or THROUGHPUT_BASED",
        ),
        (json!({"labels": "a"}), "the option `labels` has `a`; wanted name=value,… or a JSON object"),
        (json!({"labels": {"a": []}}), "the option `labels` has [] for `a`, which is no text"),
        (json!({"experiments": [1]}), "the option `experiments` has 1, which is no text"),
        (
            json!({"experiments": "disable_runner_v2"}),
            "the option `experiments` has `disable_runner_v2`, but these jobs run on Runner v2 only",
        ),
        (
            json!({"min_ram": "much"}),
            "the option `min_ram` is `much`; wanted a size such as 8GB, 1.5GiB or a number of bytes",
        ),
        (
            json!({"accelerator": "t4"}),
            "the option `accelerator` is `t4`; wanted such as type:nvidia-tesla-t4;count:1;install-nvidia-driver",
        ),
        (
            json!({"gcs_endpoint": "http://example.org"}),
            "`gcs_endpoint=http://example.org` would send a token through the network in the clear",
        ),
        (json!({"token": ["secret"]}), "the option `token` is no text"),
    ] {
        assert_eq!(with(wrong.clone()).unwrap_err().message(), told, "{wrong}");
    }
    for labels in [json!({"Team": "a"}), json!({"1a": "a"}), json!({"a": "B"}), json!({"a": "x".repeat(64)})]
    {
        assert_eq!(with(json!({"labels": labels})).unwrap_err().code(), "TB0760");
    }
}

#[test]
fn a_token_is_shown_to_nobody() {
    let options = with(json!({"token": "ya29.secret"})).unwrap();
    assert!(!format!("{options:?}").contains("ya29"));
    let all =
        json!({"token": "ya29.secret", "worker_binary": "/w", "gcs_endpoint": "http://127.0.0.1:1", "n": 3});
    assert_eq!(Value::Object(DataflowOptions::public(all.as_object().unwrap())), json!({"n": 3}));
}

#[test]
fn names_of_jobs_are_made_to_fit() {
    for (name, fit) in [
        ("word-count", "word-count"),
        ("My_Pipeline v2", "my-pipeline-v2"),
        ("9 lives", "lives"),
        ("é", "tiebeam"),
        ("", "tiebeam"),
        ("a--", "a"),
    ] {
        assert_eq!(job_name_of(name), fit, "{name}");
        assert_eq!(check_job_name(name).is_ok(), name == fit, "{name}");
    }
    let long = job_name_of(&"ab-".repeat(40));
    assert_eq!((long.len(), check_job_name(&long).is_ok()), (62, true));
    let error = check_job_name("Word_Count").unwrap_err();
    assert_eq!(error.help(), Some("such as --job-name word-count"));
}
