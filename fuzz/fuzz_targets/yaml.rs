//! Pipeline files: a pipeline or a report of what is wrong, with a place for each problem.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tiebeam_yaml::{Environment, Variables, load};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let environment = Environment::new(|_, _| (), |_| Ok(()));
    if let Err(report) = load("p.yaml", text, &Variables::new(), &environment) {
        assert!(report.render(false).contains("error"));
    }
});
