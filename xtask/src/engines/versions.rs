//! `engines/versions.toml`: which versions of the engines are installed and looked for.

use std::path::{Path, PathBuf};

use toml_edit::{DocumentMut, Item, Table};

/// What `engines/versions.toml` says.
pub(crate) struct Versions {
    document: DocumentMut,
}

/// Where the poms and the versions are, in the clone.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines")
}

impl Versions {
    pub(crate) fn read() -> Result<Versions, String> {
        let path = folder().join("versions.toml");
        let text =
            std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        Versions::parse(&text)
    }

    fn parse(text: &str) -> Result<Versions, String> {
        let document = text.parse().map_err(|e| format!("engines/versions.toml: {e}"))?;
        Ok(Versions { document })
    }

    fn table(&self, engine: &str) -> Result<&Table, String> {
        let table = self.document.get(engine).and_then(Item::as_table);
        table.ok_or_else(|| format!("engines/versions.toml has no table [{engine}]"))
    }

    /// One version.
    pub(crate) fn of(&self, engine: &str, part: &str) -> Result<&str, String> {
        let version = self.table(engine)?.get(part).and_then(Item::as_str);
        version.ok_or_else(|| format!("[{engine}] of engines/versions.toml lacks `{part}`"))
    }

    /// All versions of an engine, in the file's order.
    pub(crate) fn all(&self, engine: &str) -> Result<Vec<(String, String)>, String> {
        let pair = |(name, item): (&str, &Item)| match item.as_str() {
            Some(version) => Ok((name.to_owned(), version.to_owned())),
            None => Err(format!("`{name}` in [{engine}] of engines/versions.toml is no string")),
        };
        self.table(engine)?.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_engine() {
        let versions = Versions::read().unwrap();
        for (engine, part) in [
            ("python", "apache-beam"),
            ("prism", "module"),
            ("prism", "beam"),
            ("maven", "dependency-plugin"),
            ("flink", "beam"),
            ("spark", "beam"),
        ] {
            assert!(!versions.of(engine, part).unwrap().is_empty(), "{engine} {part}");
        }
        let of = |part| versions.of("flink", part).unwrap();
        assert!(of("flink").starts_with(&format!("{}.", of("runner"))), "Beam's runner is of another Flink");
    }

    #[test]
    fn what_is_missing_is_named() {
        let versions = Versions::parse("[prism]\nbeam = 2\n").unwrap();
        assert_eq!(versions.of("spark", "beam").unwrap_err(), "engines/versions.toml has no table [spark]");
        assert_eq!(
            versions.of("prism", "beam").unwrap_err(),
            "[prism] of engines/versions.toml lacks `beam`"
        );
        assert_eq!(
            versions.all("prism").unwrap_err(),
            "`beam` in [prism] of engines/versions.toml is no string"
        );
        assert!(Versions::parse("[prism").is_err());
    }
}
