//! Sql: what queries give in the three modes, and what is said of those that cannot be.

#![allow(clippy::unwrap_used, clippy::panic)] // the tests' own functions, too

use std::fs;

use expect_test::{Expect, expect};
use tiebeam_testing::{Mode, TestPipeline};
use tiebeam_yaml::{Environment, Variables, load};

fn pipeline(query: &str, several: bool) -> String {
    let input = if several { "{A: Left, B: Right}" } else { "Left" };
    let query = query.replace('\'', "''");
    let right = "    - type: Create
      name: Right
      config: {elements: [{k: a, label: first}, {k: b, label: second}, {k: z, label: none}]}
";
    let right = if several { right } else { "" };
    format!(
        "
pipeline:
  transforms:
    - type: Create
      name: Left
      config:
        elements:
          - {{k: a, n: 1, x: 1.5, m: 3}}
          - {{k: b, n: 2, x: 2.5, m: null}}
          - {{k: a, n: 3, x: 0.5, m: 4}}
          - {{k: c, n: 4, x: 4.0, m: null}}
{right}    - type: Sql
      input: {input}
      config: {{query: '{query}'}}
    - type: WriteToJson
      input: Sql
      config: {{path: DIR/out}}
"
    )
}

fn environment() -> Environment {
    Environment::new(|_, _| (), |_| Ok(()))
}

/// The same rows in the three modes.
fn gives(query: &str, several: bool, expected: &[&str]) {
    for mode in Mode::all() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = pipeline(query, several).replace("DIR", &dir.path().display().to_string());
        let graph = || match load("p.yaml", &yaml, &Variables::new(), &environment()) {
            Ok(loaded) => Ok(loaded.graph),
            Err(report) => panic!("{}", report.render(false)),
        };
        TestPipeline::run_graph(mode, graph).unwrap();
        let files = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let texts: Vec<String> =
            files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()).collect();
        let mut lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
        lines.sort_unstable();
        assert_eq!(lines, expected, "{mode} {query}");
    }
}

#[test]
fn rows_are_selected() {
    gives(
        "select upper(k) as key, n * 2 twice, x from PCOLLECTION where n > 1 and m is null",
        false,
        &[r#"{"key":"B","twice":4,"x":2.5}"#, r#"{"key":"C","twice":8,"x":4.0}"#],
    );
    gives("select * from PCOLLECTION as p where p.n = 1", false, &[r#"{"k":"a","n":1,"x":1.5,"m":3}"#]);
    gives(
        "select n + 1, n + 1, k from PCOLLECTION where n = 1",
        false,
        &[r#"{"EXPR$0":2,"EXPR$1":2,"k":"a"}"#],
    );
    gives(
        "SELECT DISTINCT k, m IS NULL AS gone FROM PCOLLECTION",
        false,
        &[r#"{"k":"a","gone":false}"#, r#"{"k":"b","gone":true}"#, r#"{"k":"c","gone":true}"#],
    );
}

#[test]
fn groups_leave_nulls_out() {
    gives(
        "select k, count(*) as rows, count(m) as ms, sum(m) as total, avg(n) as mean, max(x) - min(x) as width
         from PCOLLECTION group by k having count(*) > 1 or k = 'c'",
        false,
        &[
            r#"{"k":"a","rows":2,"ms":2,"total":7,"mean":2.0,"width":1.0}"#,
            r#"{"k":"c","rows":1,"ms":0,"total":null,"mean":4.0,"width":0.0}"#,
        ],
    );
    gives("select sum(n) / count(*) as mean from PCOLLECTION", false, &[r#"{"mean":2}"#]);
    gives(
        "select n % 2 = 0 as even, sum(x * 2) as s from PCOLLECTION group by n % 2 = 0",
        false,
        &[r#"{"even":false,"s":4.0}"#, r#"{"even":true,"s":13.0}"#],
    );
}

#[test]
fn inputs_are_joined() {
    gives(
        "select A.n, B.label from A join B using (k)",
        true,
        &[r#"{"n":1,"label":"first"}"#, r#"{"n":2,"label":"second"}"#, r#"{"n":3,"label":"first"}"#],
    );
    gives(
        "select k, n, label from A left join B using (k) where n > 2",
        true,
        &[r#"{"k":"a","n":3,"label":"first"}"#, r#"{"k":"c","n":4,"label":null}"#],
    );
    gives(
        "select * from A full outer join B using (k) where A.n is null or B.label is null",
        true,
        &[
            r#"{"k":"c","n":4,"x":4.0,"m":null,"label":null}"#,
            r#"{"k":"z","n":null,"x":null,"m":null,"label":"none"}"#,
        ],
    );
    gives(
        "select a.n, b.label as l from A a, B b where a.k = b.k and b.label <> 'first'",
        true,
        &[r#"{"n":2,"l":"second"}"#],
    );
    gives(
        "select x.n, y.n from PCOLLECTION x join PCOLLECTION y on x.k = y.k and x.n < y.n",
        false,
        &[r#"{"n":1,"n0":3}"#],
    );
    gives(
        "select B.label, count(*) as c, sum(A.n) as s from A right join B on A.k = B.k group by B.label",
        true,
        &[
            r#"{"label":"first","c":2,"s":4}"#,
            r#"{"label":"none","c":1,"s":null}"#,
            r#"{"label":"second","c":1,"s":2}"#,
        ],
    );
}

#[test]
fn mistakes_of_queries_are_told() {
    let check = |query: &str, several: bool, expected: Expect| {
        let told = load("p.yaml", &pipeline(query, several), &Variables::new(), &environment());
        expected.assert_eq(&told.err().map(|report| report.render(false)).unwrap_or_default());
    };
    check(
        "select k, nn from PCOLLECTION",
        false,
        expect![[r#"
            error[TB0204]: unknown column `nn`
               ╭─[p.yaml:14:34]
            14 │       config: {query: 'select k, nn from PCOLLECTION'}
               ·                                  ─┬
               ·                                   ╰── not produced by `Left`
               ╰────
              columns here: k (string), n (int64), x (double), m (nullable int64)
              help: did you mean `n`?
        "#]],
    );
    check(
        "select k, sum(n) from PCOLLECTION",
        false,
        expect![[r#"
            error[TB0205]: rows of a group differ in this column
               ╭─[p.yaml:14:31]
            14 │       config: {query: 'select k, sum(n) from PCOLLECTION'}
               ·                               ─
               ╰────
              help: name it in `group by`, or put it into `min`, `max`, `sum`, `avg` or `count`
        "#]],
    );
    check(
        "select n from PCOLLECTION order by n",
        false,
        expect![[r#"
            error[TB0219]: `order` is not available in a query
               ╭─[p.yaml:14:50]
            14 │       config: {query: 'select n from PCOLLECTION order by n'}
               ·                                                  ─────
               ╰────
              help: rows of a pipeline are in no order; `Combine` with TopCombineFn gives the largest
        "#]],
    );
    check(
        "select n from Other",
        false,
        expect![[r#"
            error[TB0233]: there is no input `Other` here
               ╭─[p.yaml:14:38]
            14 │       config: {query: 'select n from Other'}
               ·                                      ─────
               ╰────
              inputs: PCOLLECTION, input
        "#]],
    );
    check(
        "select k from A join B on A.k = B.k",
        true,
        expect![[r#"
        error[TB0222]: `k` could be A.k or B.k
           ╭─[p.yaml:17:31]
        17 │       config: {query: 'select k from A join B on A.k = B.k'}
           ·                               ─
           ╰────
          help: write which one is meant
    "#]],
    );
    check(
        "select A.n from A, B",
        true,
        expect![[r#"
        error[TB0219]: no column of `B` is equal to one of the inputs before it
           ╭─[p.yaml:17:43]
        17 │       config: {query: 'select A.n from A, B'}
           ·                                           ─
           ╰────
          help: all rows with all rows are not available: `join … on a.x = b.x`
    "#]],
    );
    check(
        "select A.n from A left join B on A.k = B.k and A.n > 1",
        true,
        expect![[r#"
        error[TB0219]: an outer join is of columns that are equal: no other condition is available
           ╭─[p.yaml:17:71]
        17 │       config: {query: 'select A.n from A left join B on A.k = B.k and A.n > 1'}
           ·                                                                       ───────
           ╰────
          help: keep the rows with a `Filter` before
    "#]],
    );
    check(
        "select n from PCOLLECTION where",
        false,
        expect![[r#"
            error[TB0206]: expected an expression, got the end
               ╭─[p.yaml:14:50]
            14 │       config: {query: 'select n from PCOLLECTION where'}
               ·                                                  ─────
               ╰────
        "#]],
    );
    check(
        "select sum(k) as s from PCOLLECTION",
        false,
        expect![[r#"
            error[TB0205]: `sum` wants numbers, got string
               ╭─[p.yaml:14:31]
            14 │       config: {query: 'select sum(k) as s from PCOLLECTION'}
               ·                               ──────
               ╰────
        "#]],
    );
}
