//! The arrows between crates: a crate uses only what stands below it.

use super::{Crate, Finding, SourceFile, line_of};

/// What each crate may use of ours, outside its tests. The order is that of the house, from the ground up.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tiebeam-macros", &[]),
    ("tiebeam-core", &["macros"]),
    ("tiebeam-exec", &["core"]),
    ("tiebeam-graph", &["core", "exec"]),
    ("tiebeam-transforms", &["core", "graph"]),
    ("tiebeam-plan", &["core", "exec", "graph"]),
    ("tiebeam-runner", &["core", "exec", "graph", "plan"]),
    ("tiebeam-model", &[]),
    ("tiebeam-worker", &["core", "exec", "graph", "plan", "model"]),
    ("tiebeam-portable", &["core", "exec", "graph", "model", "worker"]),
    ("tiebeam-http", &[]),
    ("tiebeam-dataflow", &["core", "graph", "model", "portable", "worker", "http"]),
    ("tiebeam-engines", &[]),
    ("tiebeam-inference", &["core", "graph", "transforms"]),
    ("tiebeam-onnx", &["core", "graph", "transforms", "inference"]),
    ("tiebeam-torch", &["core", "graph", "transforms", "inference", "onnx"]),
    ("tiebeam-remote", &["core", "graph", "transforms", "inference", "http"]),
    ("tiebeam-io", &["core", "graph", "transforms", "http"]),
    ("tiebeam-trees", &["core", "graph", "transforms", "inference"]),
    ("tiebeam-text", &["core", "graph", "transforms", "inference", "onnx", "torch"]),
    ("tiebeam-tflite", &["core", "graph", "transforms", "inference", "onnx"]),
    ("tiebeam-python", &["core"]),
    ("tiebeam-javascript", &["core"]),
    (
        "tiebeam-yaml",
        &[
            "core",
            "graph",
            "transforms",
            "io",
            "inference",
            "onnx",
            "torch",
            "trees",
            "tflite",
            "text",
            "remote",
            "python",
            "javascript",
        ],
    ),
    ("tiebeam-testing", &["core", "exec", "graph", "plan", "runner", "model", "worker"]),
    (
        "tiebeam",
        &[
            "macros",
            "core",
            "exec",
            "graph",
            "transforms",
            "plan",
            "runner",
            "model",
            "worker",
            "portable",
            "dataflow",
            "engines",
            "inference",
            "onnx",
            "torch",
            "remote",
            "http",
            "text",
            "trees",
            "tflite",
            "io",
            "yaml",
            "testing",
        ],
    ),
    ("tiebeam-cli", &["tiebeam", "yaml"]),
    ("tiebeam-bench", &["tiebeam"]),
    ("xtask", &["core", "engines"]),
];

/// Every edge that the table does not have. What tests use is free: it is in no one's way.
pub(super) fn check(crates: &[Crate], manifests: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in crates {
        let Some((_, may_use)) = MAY_USE.iter().find(|(name, _)| *name == one.name) else {
            let (file, _) = line_of(manifests, &one.name, "");
            let what = format!(
                "crate {} has no place in the house: give it one in xtask/src/tidy/arrows.rs",
                one.name
            );
            findings.push(Finding::offence(file, 1, what));
            continue;
        };
        for dependency in one.dependencies.iter().filter(|dependency| dependency.ours && !dependency.dev) {
            let short = dependency.name.strip_prefix("tiebeam-").unwrap_or(&dependency.name);
            if !may_use.contains(&short) {
                let (file, line) = line_of(manifests, &one.name, &dependency.name);
                let what = format!("{} may not use {}: it may use {may_use:?}", one.name, dependency.name);
                findings.push(Finding::offence(file, line, what));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Dependency;
    use super::*;

    fn one(name: &str, uses: &[(&str, bool)]) -> Crate {
        let dependencies = uses
            .iter()
            .map(|(name, dev)| Dependency {
                name: (*name).to_owned(),
                ours: name.starts_with("tiebeam"),
                dev: *dev,
            })
            .collect();
        Crate { name: name.to_owned(), dependencies }
    }

    #[test]
    fn an_upward_arrow_is_told_where_it_stands() {
        let text = "[package]\nname = \"tiebeam-exec\"\n[dependencies]\ntiebeam-core.workspace = true\n\
                    tiebeam-runner = { path = \"..\" }\n";
        let manifests =
            [SourceFile { path: "crates/tiebeam-exec/Cargo.toml".to_owned(), text: text.to_owned() }];
        let uses =
            [("tiebeam-core", false), ("tiebeam-runner", false), ("serde", false), ("tiebeam-yaml", true)];
        let crates = [one("tiebeam-exec", &uses)];
        let told: Vec<_> = check(&crates, &manifests).iter().map(Finding::to_string).collect();
        assert_eq!(
            told,
            [
                "crates/tiebeam-exec/Cargo.toml:5: offence: tiebeam-exec may not use tiebeam-runner: it may use [\"core\"]"
            ]
        );
        assert_eq!(check(&[one("tiebeam-attic", &[])], &[]).len(), 1);
    }

    #[test]
    fn the_table_points_downward_only() {
        for (index, (name, may_use)) in MAY_USE.iter().enumerate() {
            for used in *may_use {
                let below = MAY_USE[..index]
                    .iter()
                    .any(|(lower, _)| lower.strip_prefix("tiebeam-").unwrap_or(lower) == *used);
                assert!(below, "{name} uses {used}, which does not stand below it");
            }
        }
    }
}
