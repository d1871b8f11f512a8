//! Joins the crates' lists of error codes into one text for `tiebeam explain`.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let lists = Path::new("../../docs/errors.d");
    println!("cargo:rerun-if-changed={}", lists.display());
    let mut paths: Vec<_> =
        fs::read_dir(lists)?.collect::<io::Result<Vec<_>>>()?.iter().map(|e| e.path()).collect();
    paths.sort();
    let mut all = String::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        println!("cargo:rerun-if-changed={}", path.display());
        all += &fs::read_to_string(path)?;
        all.push('\n');
    }
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo gives OUT_DIR"))?;
    fs::write(Path::new(&out).join("errors.md"), all)
}
