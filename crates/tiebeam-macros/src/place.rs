//! Where the written code finds our crates: by `tiebeam-core` where the package depends on it, else by the facade.

use std::path::Path;

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

/// The path of the core crate in the package that is being compiled.
pub(crate) fn core_path() -> TokenStream {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .and_then(|directory| std::fs::read_to_string(Path::new(&directory).join("Cargo.toml")).ok())
        .unwrap_or_default();
    match find(&manifest) {
        Some((name, true)) => {
            let name = Ident::new(&name, Span::call_site());
            quote!(::#name)
        }
        Some((name, false)) => {
            let name = Ident::new(&name, Span::call_site());
            quote!(::#name::core)
        }
        None => quote!(::tiebeam_core),
    }
}

/// The name by which a manifest depends on the core crate (`true`) or else on the facade (`false`).
fn find(manifest: &str) -> Option<(String, bool)> {
    let (mut facade, mut in_dependencies) = (None, false);
    for line in manifest.lines().map(str::trim) {
        let (key, rest) = if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            in_dependencies = table.ends_with("dependencies");
            // `[dependencies.tiebeam]` is a dependency itself.
            match table.rsplit_once("dependencies.") {
                Some((_, name)) => (name, ""),
                None => continue,
            }
        } else if in_dependencies {
            match line.split_once('=') {
                Some((key, rest)) => (key.split('.').next().unwrap_or_default(), rest),
                None => continue,
            }
        } else {
            continue;
        };
        let key = key.trim().trim_matches('"');
        let package = package_of(rest).unwrap_or(key);
        match package {
            "tiebeam-core" => return Some((key.replace('-', "_"), true)),
            "tiebeam" => facade = Some((key.replace('-', "_"), false)),
            _ => {}
        }
    }
    facade
}

/// The package of a dependency that has a name of its own: `package = "…"` in an inline table.
fn package_of(rest: &str) -> Option<&str> {
    let (_, after) = rest.split_once("package")?;
    after.trim_start().strip_prefix('=')?.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn a_package_names_the_crate_in_many_ways() {
        for (manifest, want) in [
            ("[dependencies]\ntiebeam = \"0.1\"\n", Some(("tiebeam", false))),
            ("[dependencies]\ntiebeam.workspace = true\n", Some(("tiebeam", false))),
            (
                "[dependencies]\ntiebeam = { path = \"..\" }\ntiebeam-core = \"1\"",
                Some(("tiebeam_core", true)),
            ),
            ("[dev-dependencies]\ntiebeam-core.workspace = true", Some(("tiebeam_core", true))),
            ("[dependencies.tiebeam]\nversion = \"1\"", Some(("tiebeam", false))),
            ("[target.'cfg(unix)'.dependencies]\ntiebeam = \"1\"", Some(("tiebeam", false))),
            ("[dependencies]\nbeam = { version = \"1\", package = \"tiebeam\" }", Some(("beam", false))),
            ("[package]\nname = \"tiebeam\"\n[dependencies]\nserde = \"1\"", None),
            ("[dependencies]\ntiebeam-io = \"1\"", None),
            ("", None),
        ] {
            let found = find(manifest);
            assert_eq!(found.as_ref().map(|(name, core)| (name.as_str(), *core)), want, "{manifest}");
        }
    }
}
