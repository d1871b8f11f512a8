//! Every crate of others that we use is accounted for in docs/dependencies*.

use std::collections::BTreeSet;

use super::{Crate, Finding, SourceFile, line_of};

/// Every dependency that no document names.
pub(super) fn check(crates: &[Crate], manifests: &[SourceFile], docs: &[SourceFile]) -> Vec<Finding> {
    let named: BTreeSet<&str> = docs
        .iter()
        .filter(|doc| doc.path.starts_with("docs/dependencies"))
        .flat_map(|doc| doc.text.lines().filter(|line| line.contains('|')))
        // The crate stands in one of the first two columns, alone or with others, perhaps with its version.
        .flat_map(|line| line.trim_start_matches('|').split('|').take(2))
        .flat_map(|cell| cell.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')))
        .collect();
    let mut findings = Vec::new();
    for one in crates {
        for dependency in one.dependencies.iter().filter(|dependency| !dependency.ours) {
            if !named.contains(dependency.name.as_str()) {
                let (file, line) = line_of(manifests, &one.name, &dependency.name);
                let what = format!(
                    "{} is in no docs/dependencies*: say why it is here, and its licence",
                    dependency.name
                );
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

    #[test]
    fn a_dependency_is_named_in_either_form() {
        let doc = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let docs = [
            doc(
                "docs/dependencies.d/a.md",
                "bytes | buffers | small | MIT\ntiebeam-x | prost 0.14 | wire | - | MIT\n",
            ),
            doc("docs/dependencies.md", "| crate | why |\n|---|---|\n| `csv`, `csv-core` | tables |\n"),
            doc("docs/other.md", "rand | dice\n"),
        ];
        let dependency = |name: &str| Dependency { name: name.to_owned(), ours: false, dev: true };
        let dependencies = ["bytes", "prost", "csv-core", "rand"].map(dependency).into();
        let crates = [Crate { name: "x".to_owned(), dependencies }];
        let found = check(&crates, &[], &docs);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("rand is in no"));
    }
}
