//! `resource_hints`: what a transform, or a whole pipeline, needs of the machines that it runs on.

use tiebeam_graph::ResourceHints;
use tiebeam_graph::hints::bytes_of;

use crate::catalog::{Key, Wants, check_keys};
use crate::diagnostic::Diagnostic;
use crate::document::{Content, Entry};

const KEYS: [Key; 3] = [
    Key::optional(
        "min_ram",
        Wants::Any,
        "the least memory of the machine: 8GB, 1.5GiB, or a number of bytes",
    ),
    Key::optional("accelerator", Wants::Text, "such as type:nvidia-l4;count:1;install-nvidia-driver"),
    Key::optional("cpu_count", Wants::Int, "the least number of processors"),
];

/// Reads them; mistakes are noted.
pub fn read(entry: &Entry, problems: &mut Vec<Diagnostic>) -> ResourceHints {
    let mut hints = ResourceHints::new();
    let Some(entries) = entry.value.as_map() else {
        if entry.value.content != Content::Null {
            let problem = Diagnostic::new("TB0208", entry.value.span, "`resource_hints` is a map");
            problems.push(problem.help("such as `resource_hints: {min_ram: 8GB}`"));
        }
        return hints;
    };
    check_keys(entries, &KEYS, "`resource_hints`", entry.key_span, problems);
    for Entry { key, value, .. } in entries {
        match (&**key, &value.content) {
            ("min_ram", Content::Int(bytes @ 1..)) => hints = hints.min_ram_bytes(bytes.unsigned_abs()),
            ("min_ram", content) => match content {
                Content::String(text) if bytes_of(text).is_some() => {
                    hints = hints.min_ram_bytes(bytes_of(text).unwrap_or_default());
                }
                _ => problems.push(Diagnostic::new(
                    "TB0208",
                    value.span,
                    "`min_ram` is a size such as 8GB, 1.5GiB or a number of bytes",
                )),
            },
            ("accelerator", Content::String(text)) if text.starts_with("type:") => {
                hints = hints.accelerator(&**text);
            }
            ("accelerator", Content::String(_)) => problems.push(
                Diagnostic::new("TB0208", value.span, "`accelerator` begins with the type that is wanted")
                    .help("such as type:nvidia-l4;count:1;install-nvidia-driver"),
            ),
            ("cpu_count", Content::Int(cpus)) => match u32::try_from(*cpus) {
                Ok(cpus @ 1..) => hints = hints.cpu_count(cpus),
                _ => {
                    problems.push(Diagnostic::new("TB0208", value.span, "`cpu_count` is a number from 1 up"));
                }
            },
            _ => {}
        }
    }
    hints
}
