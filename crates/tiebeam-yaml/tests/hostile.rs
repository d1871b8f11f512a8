//! Mutated pipeline files: each is a pipeline or a report with places; none panics, hangs, or takes more memory than is declared for
//! its length. How: `fixtures/hostile.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // tests fail by panicking, and say what they counted

use tiebeam_yaml::{Environment, Variables, load};

#[path = "../../../fixtures/hostile.rs"]
mod hostile;

use hostile::{BESIDE, Outcome, check, counted, mutate};

const FILES: [&str; 3] = [
    "pipeline:
  type: chain
  transforms:
    - type: Create
      config: {elements: [{name: Ada, born: 1815}, {name: Emmy, born: 1882}]}
    - type: MapToFields
      config:
        language: python
        append: true
        fields: {age: 2026 - born, first: 'name[0].upper()'}
    - type: Filter
      config: {language: python, keep: age > 150 and name != ''}
    - type: WriteToJson
      config: {path: out/people}
",
    "{% set least = 3 %}
pipeline:
  transforms:
    - type: Create
      name: Words
      windowing: {type: fixed, size: 60s}
      config: {elements: &words [{word: a, n: 1}, {word: b, n: {{ least }}}]}
    - type: Combine
      input: Words
      config: {group_by: [word], combine: {total: {value: n, fn: sum}, most: {value: n, fn: max}}}
    - type: Sql
      input: Words
      config: {query: 'SELECT word, n + 1 AS m FROM PCOLLECTION WHERE n > 2'}
options: {streaming: false}
",
    "pipeline:
  transforms:
    - type: ReadFromCsv
      name: In
      config: {path: no/such/*.csv, error_handling: {output: bad}}
    - type: Join
      name: Both
      input: {a: In, b: In}
      config: {equalities: [{a: id, b: id}], type: {outer: [a]}, fields: {a: [id, x], b: {y: x}}}
    - type: LogForTesting
      input: In.bad
providers:
  - type: yaml
    transforms:
      Twice:
        config_schema: {properties: {by: {type: number}}}
        body: {type: MapToFields, config: {language: python, fields: {n: 'n * {{by}}'}}}
",
];

#[test]
fn yaml() {
    let words: [&[u8]; 18] = [
        b"&words ",
        b"*words",
        b"<<: *words",
        b"{{",
        b"{% for i in range(99999) %}{{ i }}{% endfor %}",
        b"[[[[[[[[[[[[[[[[",
        b"- - - - - - - -",
        b"? ",
        b": ",
        b"|2\n",
        b"!!binary ",
        b"'",
        b"name: name: ",
        b"9999999999999999999999",
        b"\xc2\x85",
        b"\t",
        b"input: Both",
        b"((((((((((((((((",
    ];
    let environment = || Environment::new(|_, _| (), |_| Ok(()));
    // What is made once for the process is none of a file's.
    for file in FILES {
        let _ = load("p.yaml", file, &Variables::new(), &environment());
    }
    check("yaml", |_, random| {
        let mut data = FILES[random.below(FILES.len())].as_bytes().to_vec();
        mutate(&mut data, random, &words);
        let text = String::from_utf8_lossy(&data).into_owned();
        let (loaded, peak) = counted(|| load("p.yaml", &text, &Variables::new(), &environment()));
        let refused = match loaded {
            Ok(_) => false,
            Err(report) if report.render(false).contains("error[TB") => true,
            Err(report) => return Err(format!("a report without an error: {}", report.render(false))),
        };
        // Jinja may make up to a megabyte of text out of a line.
        Ok(Outcome { refused, peak, bound: text.len() * 4096 + 64 * BESIDE })
    });
}

#[test]
fn what_unfolds_without_end_is_refused() {
    let _alone = hostile::alone();
    let mut aliases =
        String::from("pipeline:\n  transforms: []\noptions:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 9].join(", ");
        aliases.push_str(&format!("  a{level}: &a{level} [{list}]\n"));
    }
    let nested = format!("pipeline: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let blocks =
        format!("pipeline:\n{}", (0..5_000).map(|n| format!("{}- \n", " ".repeat(n))).collect::<String>());
    let doubled = "pipeline:\n  transforms: []\n  transforms: []\n".to_owned();
    let loops = "pipeline: {% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"
        .to_owned();
    let raised = format!(
        "pipeline:\n  type: chain\n  transforms:\n    - {{type: Create, config: {{elements: [1]}}}}\n    - {{type: Filter, config: {{language: python, keep: '{}1{}'}}}}\n",
        "(".repeat(20_000),
        ")".repeat(20_000)
    );
    for (name, text) in [
        ("aliases", aliases),
        ("nested", nested),
        ("blocks", blocks),
        ("doubled", doubled),
        ("loops", loops),
        ("raised", raised),
    ] {
        let environment = Environment::new(|_, _| (), |_| Ok(()));
        let (loaded, peak) = counted(|| load("p.yaml", &text, &Variables::new(), &environment));
        let report = loaded.err().unwrap_or_else(|| panic!("{name} was taken")).render(false);
        assert!(report.starts_with("error[TB"), "{name}: {report}");
        assert!(peak < text.len() * 256 + (96 << 20), "{name}: {peak} bytes");
    }
}
