//! `engines/versions.toml`: which versions of the engines are installed and looked for.

use crate::error::Result;
use toml_edit::{DocumentMut, Item, Table};

/// As they were when this was built: an installed program has no clone.
const TEXT: &str = include_str!("../../../engines/versions.toml");

/// The poms that class paths are made from.
const POMS: [(&str, &str); 3] = [
    ("flink", include_str!("../../../engines/flink/pom.xml")),
    ("spark", include_str!("../../../engines/spark/pom.xml")),
    ("java", include_str!("../../../engines/java/pom.xml")),
];

/// An engine's pom, where it has one.
pub(crate) fn pom(engine: &str) -> Option<&'static str> {
    POMS.iter().find(|(name, _)| *name == engine).map(|(_, text)| *text)
}

/// What `engines/versions.toml` says.
pub struct Versions {
    document: DocumentMut,
}

impl Versions {
    /// The versions that this was built with.
    pub fn built_in() -> Result<Versions> {
        Versions::parse(TEXT)
    }

    fn parse(text: &str) -> Result<Versions> {
        let document = text.parse().map_err(|e| format!("engines/versions.toml: {e}"))?;
        Ok(Versions { document })
    }

    fn table(&self, engine: &str) -> Result<&Table> {
        let table = self.document.get(engine).and_then(Item::as_table);
        Ok(table.ok_or_else(|| format!("engines/versions.toml has no table [{engine}]"))?)
    }

    /// One version. What comes with a package, as in `name[extra]`, is not part of its name.
    pub fn of(&self, engine: &str, part: &str) -> Result<&str> {
        let mut all = self.table(engine)?.iter();
        let named = all.find(|(name, _)| name.split('[').next() == Some(part));
        let version = named.and_then(|(_, item)| item.as_str());
        Ok(version.ok_or_else(|| format!("[{engine}] of engines/versions.toml lacks `{part}`"))?)
    }

    /// All versions of an engine, in the file's order.
    pub fn all(&self, engine: &str) -> Result<Vec<(String, String)>> {
        let pair = |(name, item): (&str, &Item)| match item.as_str() {
            Some(version) => Ok((name.to_owned(), version.to_owned())),
            None => Err(format!("`{name}` in [{engine}] of engines/versions.toml is no string").into()),
        };
        self.table(engine)?.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_every_engine() {
        let versions = Versions::built_in().unwrap();
        for (engine, part) in [
            ("python", "apache-beam"),
            ("prism", "module"),
            ("prism", "beam"),
            ("maven", "dependency-plugin"),
            ("flink", "beam"),
            ("spark", "beam"),
            ("java", "beam"),
        ] {
            assert!(!versions.of(engine, part).unwrap().is_empty(), "{engine} {part}");
        }
        let of = |part| versions.of("flink", part).unwrap();
        assert!(of("flink").starts_with(&format!("{}.", of("runner"))), "Beam's runner is of another Flink");
    }

    #[test]
    fn what_comes_with_a_package_is_not_its_name() {
        let versions = Versions::parse("[python]\nb = \"2\"\n\"a[x,y]\" = \"1\"\n").unwrap();
        assert_eq!(versions.of("python", "a"), Ok("1"));
        assert_eq!(versions.of("python", "b"), Ok("2"));
        assert_eq!(versions.all("python").unwrap()[1].0, "a[x,y]");
    }

    #[test]
    fn what_is_missing_is_named() {
        let versions = Versions::parse("[prism]\nbeam = 2\n").unwrap();
        assert_eq!(
            versions.of("spark", "beam").unwrap_err().to_string(),
            "engines/versions.toml has no table [spark]"
        );
        assert_eq!(
            versions.of("prism", "beam").unwrap_err().to_string(),
            "[prism] of engines/versions.toml lacks `beam`"
        );
        assert_eq!(
            versions.all("prism").unwrap_err().to_string(),
            "`beam` in [prism] of engines/versions.toml is no string"
        );
        assert!(Versions::parse("[prism").is_err());
    }
}
