//! Every pipeline of the page on pipelines in YAML is run, and its tests hold.

#![allow(clippy::unwrap_used)] // the tests' own functions, too

use std::fs;

use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_yaml::testing::load_tests;
use tiebeam_yaml::{Environment, Variables, load};

const PAGE: &str = include_str!("../../../docs/pipelines-in-yaml.md");

#[test]
fn the_pages_pipelines_say_what_it_says() {
    let wanted = [
        (
            "people",
            "{\"name\":\"Ada\",\"born\":1815,\"century\":19}\n{\"name\":\"Grace\",\"born\":1906,\"century\":20}",
        ),
        (
            "words",
            "{\"word\":\"be\",\"times\":2,\"n\":3}\n{\"word\":\"not\",\"times\":1,\"n\":3}\n{\"word\":\"or\",\"times\":1,\"n\":3}\n{\"word\":\"to\",\"times\":2,\"n\":3}",
        ),
        ("sold", "PEAR: 2 × 2.75"),
        ("priced", "{\"id\":1,\"name\":\"pear\",\"cost\":1.5}\n{\"id\":2,\"name\":\"fig\",\"cost\":null}"),
        ("powers", "{\"x\":2,\"power\":8}\n{\"x\":3,\"power\":27}"),
        ("lengths", "{\"n\":3}"),
    ];
    let blocks: Vec<&str> =
        PAGE.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), wanted.len());
    let runner = EmbeddedRunner::new(RunnerOptions::default().with_threads(2));
    for (block, (name, lines)) in blocks.into_iter().zip(wanted) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lines.txt"), "one\n").unwrap();
        let place = dir.path().display();
        let yaml = block
            .replace("path: out/", &format!("path: {place}/out/"))
            .replace("lines.txt", &format!("{place}/lines.txt"));
        let environment = Environment::new(|_, _| (), |_| Ok(()));
        let loaded =
            load("p.yaml", &yaml, &Variables::new(), &environment).map_err(|report| report.render(false));
        runner.run(&loaded.unwrap().graph).unwrap();
        let mut found: Vec<String> = fs::read_dir(dir.path().join("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.display().to_string().contains(name))
            .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        found.sort();
        assert_eq!(found.join("\n"), lines, "{yaml}");
        if yaml.contains("\ntests:") {
            let tests = load_tests("p.yaml", &yaml, &Variables::new(), &environment)
                .map_err(|r| r.render(false))
                .unwrap();
            assert_eq!(tests.len(), 1);
            runner.run(&tests[0].graph).unwrap();
        }
    }
}
