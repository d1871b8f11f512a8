//! Finding ONNX Runtime's library. One test, since a process can load one library only.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::path::{Path, PathBuf};

use tiebeam_onnx::{Engine, EngineOptions, LoadOptions, OnnxModel, find_onnxruntime};

#[path = "it/support.rs"]
#[allow(dead_code)]
mod support;

fn refused(path: &Path) -> String {
    let missing = find_onnxruntime(Some(path)).unwrap_err();
    assert!(missing.was_asked_for());
    assert_eq!(missing.tried.len(), 1);
    let error = missing.into_error();
    assert_eq!(error.code(), "TB0334");
    assert!(error.help().unwrap().contains("engine: rten"));
    error.message().to_owned()
}

#[test]
fn a_wrong_library_is_an_error_and_the_right_one_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("libonnxruntime.so");
    assert_eq!(
        refused(&missing),
        format!(
            "ONNX Runtime can't be loaded from {} (the option ort_dylib): there is no such file",
            missing.display()
        )
    );
    assert!(refused(folder.path()).ends_with("no ONNX Runtime in this directory"));
    std::fs::write(&missing, b"not a library").unwrap();
    assert!(refused(&missing).contains("not a library that loads here"), "{}", refused(&missing));
    assert!(refused(folder.path()).contains("not a library that loads here"));
    // A real library that is another one.
    let other = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", "/lib64/libm.so.6"];
    if let Some(other) = other.iter().map(Path::new).find(|path| path.exists()) {
        assert!(refused(other).ends_with("a library, but not ONNX Runtime"), "{}", refused(other));
    }

    // A named library that can't be loaded is refused by models too, though rten could run them.
    let options = |engine, ort_dylib: Option<&Path>| LoadOptions {
        engine: EngineOptions { engine, ort_dylib: ort_dylib.map(PathBuf::from), providers: Vec::new() },
        ..LoadOptions::default()
    };
    for engine in [Engine::Auto, Engine::Ort] {
        let error =
            OnnxModel::from_bytes("m", support::linear(), &options(engine, Some(&missing))).unwrap_err();
        assert_eq!(error.code(), "TB0334");
    }
    let model =
        OnnxModel::from_bytes("m", support::linear(), &options(Engine::Rten, Some(&missing))).unwrap();
    assert_eq!(model.engine(), Engine::Rten);

    let Some(library) = support::ort_library() else { return };
    let found = find_onnxruntime(Some(&library)).unwrap();
    assert_eq!(found.path, library.canonicalize().unwrap());
    assert_eq!(found.place, "the option ort_dylib");
    if let Some(version) = &found.version {
        assert!(library.to_string_lossy().contains(version.as_str()));
    }
    assert!(find_onnxruntime(library.parent()).is_ok(), "its directory means the library in it");
    let message = refused(&missing);
    assert!(
        message.contains("this process has loaded") && message.ends_with("and can hold one"),
        "{message}"
    );
    let model = OnnxModel::from_bytes("m", support::linear(), &options(Engine::Auto, None)).unwrap();
    assert_eq!(model.engine(), Engine::Ort, "once loaded, it is what auto means");
}
