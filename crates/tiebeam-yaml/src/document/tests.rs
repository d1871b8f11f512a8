//! What the document reader takes and refuses, with places.

use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;
use crate::diagnostic::Report;

fn show(node: &Node, source: &Source, depth: usize, out: &mut String) {
    let at = source.position(node.span.start);
    let indent = "  ".repeat(depth);
    match &node.content {
        Content::List(items) => {
            let _ = writeln!(out, "{}:{} list", at.line, at.column);
            for item in items.iter() {
                let _ = write!(out, "{indent}  - ");
                show(item, source, depth + 1, out);
            }
        }
        Content::Map(entries) => {
            let _ = writeln!(out, "{}:{} map", at.line, at.column);
            for entry in entries.iter() {
                let key = source.position(entry.key_span.start);
                let _ = write!(out, "{indent}  {} ({}:{}) = ", entry.key, key.line, key.column);
                show(&entry.value, source, depth + 1, out);
            }
        }
        other => {
            let _ = writeln!(out, "{}:{} {other:?}", at.line, at.column);
        }
    }
}

fn check(text: &str, expected: Expect) {
    let source = Source::new("t.yaml", text);
    let shown = match parse(&source) {
        Ok(node) => {
            let mut out = String::new();
            show(&node, &source, 0, &mut out);
            out
        }
        Err(diagnostic) => Report::new(Arc::new(source), vec![diagnostic]).render(false),
    };
    expected.assert_eq(&shown);
}

#[test]
fn every_node_knows_its_place() {
    check(
        "a:\n  - x: 1\n    y: [2, {z: 'it''s'}]\nb: |\n  one\n  two\n",
        expect![[r#"
            1:1 map
              a (1:1) = 2:3 list
                - 2:5 map
                  x (2:5) = 2:8 Int(1)
                  y (3:5) = 3:8 list
                    - 3:9 Int(2)
                    - 3:12 map
                      z (3:13) = 3:16 String("it's")
              b (4:1) = 5:3 String("one\ntwo\n")
        "#]],
    );
}

#[test]
fn scalars_are_pyyaml_s() {
    check(
        "[~, null, '', yes, No, off, true, 0x1F, 0o17, 017, 1_000, -5, +7, 1.5, .5, -.inf, 1e3, 1.0e-2, 08, 1.2.3, 2024-01-02, 1:30, '12', !!str 12, !!float 3]",
        expect![[r#"
            1:1 list
              - 1:2 Null
              - 1:5 Null
              - 1:11 String("")
              - 1:15 Bool(true)
              - 1:20 Bool(false)
              - 1:24 Bool(false)
              - 1:29 Bool(true)
              - 1:35 Int(31)
              - 1:41 Int(15)
              - 1:47 Int(15)
              - 1:52 Int(1000)
              - 1:59 Int(-5)
              - 1:63 Int(7)
              - 1:67 Float(1.5)
              - 1:72 Float(0.5)
              - 1:76 Float(-inf)
              - 1:83 Float(1000.0)
              - 1:88 Float(0.01)
              - 1:96 String("08")
              - 1:100 String("1.2.3")
              - 1:107 String("2024-01-02")
              - 1:119 String("1:30")
              - 1:125 String("12")
              - 1:137 String("12")
              - 1:149 Float(3.0)
        "#]],
    );
}

#[test]
fn aliases_and_merges_unfold() {
    check(
        "base: &b {x: 1, y: 2}\nown:\n  <<: *b\n  y: 3\nlist: [*b]\n",
        expect![[r#"
            1:1 map
              base (1:1) = 1:10 map
                x (1:11) = 1:14 Int(1)
                y (1:17) = 1:20 Int(2)
              own (2:1) = 3:3 map
                y (4:3) = 4:6 Int(3)
                x (1:11) = 1:14 Int(1)
              list (5:1) = 5:7 list
                - 5:8 map
                  x (1:11) = 1:14 Int(1)
                  y (1:17) = 1:20 Int(2)
        "#]],
    );
}

#[test]
fn mistakes_are_shown_at_their_place() {
    check(
        "a: 1\nb: 2\na: 3\n",
        expect![[r#"
            error[TB0216]: key `a` comes twice
              ╭─[t.yaml:3:1]
            3 │ a: 3
              · ┬
              · ╰── first given on line 1
              ╰────
        "#]],
    );
    check(
        "a: b: c\n",
        expect![[r#"
            error[TB0236]: not valid YAML: mapping values are not allowed in this context
              ╭─[t.yaml:1:5]
            1 │ a: b: c
              ·     ─
              ╰────
        "#]],
    );
    check(
        "a: !!python/object:os.system x\n",
        expect![[r#"
            error[TB0236]: tag `!!python/object:os.system` is not supported
              ╭─[t.yaml:1:30]
            1 │ a: !!python/object:os.system x
              ·                              ─
              ╰────
              help: only YAML's own tags are read: !!str, !!int, !!float, !!bool, !!null, !!seq, !!map
        "#]],
    );
    check(
        "a: 99999999999999999999\n",
        expect![[r#"
            error[TB0208]: `99999999999999999999` is out of range for int64
              ╭─[t.yaml:1:4]
            1 │ a: 99999999999999999999
              ·    ────────────────────
              ╰────
              help: write it in quotes if it is a text, with `.0` if it is a number
        "#]],
    );
    check(
        "a: &x [1, *x]\n",
        expect![[r#"
            error[TB0236]: an alias inside of what it stands for
              ╭─[t.yaml:1:11]
            1 │ a: &x [1, *x]
              ·           ──
              ╰────
        "#]],
    );
    check(
        "a: 1\n---\nb: 1\n",
        expect![[r#"
            error[TB0236]: a second document: a pipeline file holds one
              ╭─[t.yaml:2:1]
            2 │ ---
              · ───
              ╰────
        "#]],
    );
    check(
        "a: [1,\n",
        expect![[r#"
            error[TB0236]: not valid YAML: unclosed bracket '['
              ╭─[t.yaml:1:4]
            1 │ a: [1,
              ·    ─
              ╰────
        "#]],
    );
}

#[test]
fn aliases_cannot_unfold_without_end() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let of = format!("*a{}", i - 1);
        text += &format!("a{i}: &a{i} [{}]\n", [of.as_str(); 10].join(", "));
    }
    let error = parse(&Source::new("bomb", text)).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        ("TB0217", "the document unfolds to more than 500000 nodes")
    );
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{}{}", "[".repeat(97), "]".repeat(97));
    assert_eq!(parse(&Source::new("deep", deep)).unwrap_err().message, "nested deeper than 96 levels");
    let fine = format!("{}{}", "[".repeat(96), "]".repeat(96));
    assert!(parse(&Source::new("fine", fine)).is_ok());
    for open in ["[", "{", "- ", "a:\n ", "? ", "&a ", "!!x "] {
        // Whatever comes of it, it ends.
        let _ = parse(&Source::new("deep", open.repeat(100_000)));
    }
}
