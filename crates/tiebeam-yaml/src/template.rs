//! Jinja first: a pipeline file is a template, as it is in Beam.
//!
//! Lines keep their numbers: the template is rendered a second time with an invisible mark on each line, and where the
//! two results agree but for the marks, each line of the result is known to come from one of the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};

use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};

/// The values of a template's variables.
pub type Variables = BTreeMap<String, serde_json::Value>;

/// How many steps a template may take: enough for any pipeline, few enough to end at once.
const FUEL: u64 = 5_000_000;

/// The marks: two characters that Unicode keeps for private use, a number between them.
const OPEN: char = '\u{F5A00}';
const CLOSE: char = '\u{F5A01}';

/// Renders `text`, the file called `name`. Files that it includes are looked for beside it.
///
/// A text without anything of jinja comes back as it is.
///
/// # Errors
/// What jinja says, with its place: a variable that is not given, mostly.
pub fn render(name: &str, text: &str, variables: &Variables) -> Result<Source, (Source, Diagnostic)> {
    let plain = Source::new(name, text);
    if !["{{", "{%", "{#"].iter().any(|sign| text.contains(sign)) {
        return Ok(plain);
    }
    let template = blank_leading_comments(text);
    let folder = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
    let rendered = match render_once(&template, &folder, variables) {
        Ok(rendered) => rendered,
        Err(error) => return Err((plain.clone(), explain(&error, &plain, variables))),
    };
    let source = Source::new(name, rendered.as_str());
    let origin = render_once(&marked(&template), &folder, variables)
        .ok()
        .and_then(|with_marks| origin(&with_marks, &rendered));
    Ok(match origin {
        Some(origin) => source.with_origin(origin),
        None => source,
    })
}

/// A file after jinja, and what is wrong with its templates.
pub struct Rendered {
    /// The text; where a template is wrong, a word stands in its place. None where the file cannot be read without it.
    pub source: Option<Source>,
    /// The file as it was.
    pub plain: Source,
    /// The mistakes, with places in `plain`.
    pub problems: Vec<Diagnostic>,
    /// The lines, from 1, in which a word stands for a template: what else is wrong there is only its consequence.
    pub repaired: Vec<u32>,
}

/// The most lines with a wrong template of which all mistakes are told.
const MOST_REPAIRS: usize = 16;

/// As [`render`], but goes on behind a mistake, so that all that is wrong with a file is told in one run.
pub fn render_all(name: &str, text: &str, variables: &Variables) -> Rendered {
    let plain = Source::new(name, text);
    let mut rendered = Rendered { source: None, plain, problems: Vec::new(), repaired: Vec::new() };
    let mut text = text.to_owned();
    while rendered.problems.len() < MOST_REPAIRS {
        match render(name, &text, variables) {
            Ok(source) => {
                rendered.source = Some(source);
                break;
            }
            Err((tried, problem)) => {
                let line = problem.span.map(|span| tried.position(span.start).line);
                rendered.problems.push(problem);
                let Some(line) = line.filter(|line| !rendered.repaired.contains(line)) else { break };
                rendered.repaired.push(line);
                text = without_templates(&text, line);
            }
        }
    }
    rendered
}

/// The text with the templates of one line replaced.
fn without_templates(text: &str, line: u32) -> String {
    let mut out = String::with_capacity(text.len());
    for (number, one) in (1u32..).zip(text.split_inclusive('\n')) {
        if number != line {
            out.push_str(one);
            continue;
        }
        let mut rest = one.trim_end_matches(['\n', '\r']);
        let end = &one[rest.len()..];
        while let Some(at) = ["{{", "{%", "{#"].iter().filter_map(|sign| rest.find(sign)).min() {
            out.push_str(&rest[..at]);
            let closing = match &rest[at..at + 2] {
                "{{" => "}}",
                "{%" => "%}",
                _ => "#}",
            };
            if closing == "}}" {
                out.push_str("jinja");
            }
            rest = rest[at..].find(closing).map_or("", |end| &rest[at + end + 2..]);
        }
        out.push_str(rest);
        out.push_str(end);
    }
    out
}

fn render_once(template: &str, folder: &Path, variables: &Variables) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(|_, value, method, args| python_method(value, method, args));
    let folder = folder.to_path_buf();
    environment.set_loader(move |name| include(&folder, name));
    let given = variables.iter().map(|(name, value)| (name.as_str(), jinja_value(value)));
    // A variable of that name, of the user's own, comes before Python's module.
    let all = [("datetime", crate::clock::module(variables))].into_iter().chain(given);
    environment.render_str(template, minijinja::Value::from_pairs(all))
}

fn jinja_value(value: &serde_json::Value) -> minijinja::Value {
    use minijinja::Value;
    match value {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(value) => Value::from(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(int), _) => Value::from(int),
            (None, float) => Value::from(float.unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => items.iter().map(jinja_value).collect(),
        serde_json::Value::Object(entries) => {
            Value::from_pairs(entries.iter().map(|(key, value)| (key.as_str(), jinja_value(value))))
        }
    }
}

/// An included file: by its own path, or beside the pipeline file.
fn include(folder: &Path, name: &str) -> Result<Option<String>, Error> {
    for path in [PathBuf::from(name), folder.join(name)] {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ok(Some(blank_leading_comments(&text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("`{}` cannot be read: {error}", path.display());
                return Err(Error::new(ErrorKind::InvalidOperation, message));
            }
        }
    }
    Ok(None)
}

/// Comments at the head of a file (a licence, say) are no template; their lines stay, empty.
fn blank_leading_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut head = true;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        head = head && (trimmed.is_empty() || trimmed.starts_with('#'));
        out.push_str(if !head {
            line
        } else if line.ends_with('\n') {
            "\n"
        } else {
            ""
        });
    }
    out
}

/// The methods of Python's strings and mappings that templates call.
fn python_method(
    value: &minijinja::Value,
    method: &str,
    args: &[minijinja::Value],
) -> Result<minijinja::Value, Error> {
    let unknown =
        || Error::new(ErrorKind::UnknownMethod, format!("{} has no method named {method}", value.kind()));
    if value.kind() == ValueKind::Map
        && let Some(object) = value.as_object()
    {
        let get = |key: &minijinja::Value| object.get_value(key);
        return match (method, args) {
            ("items", []) => Ok(value
                .try_iter()?
                .map(|key| {
                    let item = get(&key).unwrap_or_default();
                    minijinja::Value::from(vec![key, item])
                })
                .collect()),
            ("keys", []) => Ok(value.try_iter()?.collect()),
            ("values", []) => Ok(value.try_iter()?.map(|key| get(&key).unwrap_or_default()).collect()),
            ("get", [key]) => Ok(get(key).unwrap_or(minijinja::Value::from(()))),
            ("get", [key, default]) => Ok(get(key).unwrap_or_else(|| default.clone())),
            _ => Err(unknown()),
        };
    }
    let Some(text) = value.as_str() else { return Err(unknown()) };
    let words: Option<Vec<&str>> = args.iter().map(|arg| arg.as_str()).collect();
    match (method, words.as_deref()) {
        ("upper", Some([])) => Ok(text.to_uppercase().into()),
        ("lower", Some([])) => Ok(text.to_lowercase().into()),
        ("strip", Some([])) => Ok(text.trim().into()),
        ("lstrip", Some([])) => Ok(text.trim_start().into()),
        ("rstrip", Some([])) => Ok(text.trim_end().into()),
        ("startswith", Some([prefix])) => Ok(text.starts_with(prefix).into()),
        ("endswith", Some([suffix])) => Ok(text.ends_with(suffix).into()),
        ("replace", Some([from, to])) => Ok(text.replace(from, to).into()),
        ("split", Some([])) => Ok(text.split_whitespace().map(minijinja::Value::from).collect()),
        ("split", Some([by])) if !by.is_empty() => Ok(text.split(by).map(minijinja::Value::from).collect()),
        ("join", _) => {
            let parts: Vec<String> = match args {
                [list] => list.try_iter()?.map(|part| part.to_string()).collect(),
                _ => return Err(unknown()),
            };
            Ok(parts.join(text).into())
        }
        _ => Err(unknown()),
    }
}

fn explain(error: &Error, source: &Source, variables: &Variables) -> Diagnostic {
    // The outermost error is where this file stands; what is wrong is told by the innermost.
    let mut cause = error;
    while let Some(inner) = std::error::Error::source(cause).and_then(|e| e.downcast_ref::<Error>()) {
        cause = inner;
    }
    let span = match error.range() {
        Some(range) => Span::new(range.start, range.end),
        None => {
            let line = error.line().unwrap_or(1).saturating_sub(1);
            let start = source.text().split_inclusive('\n').take(line).map(str::len).sum::<usize>();
            let text = source.line_at(Span::new(start, start).start).0;
            let indent = text.len() - text.trim_start().len();
            Span::new(start + indent, start + text.trim_end().len())
        }
    };
    let seen = source.slice(span).trim_matches(|c: char| "{}%- ".contains(c)).to_owned();
    let detail = cause.detail().map(str::to_owned).unwrap_or_default();
    let undefined = detail.split('`').nth(1).filter(|_| detail.ends_with("is undefined)"));
    match cause.kind() {
        kind if kind == ErrorKind::UndefinedError || undefined.is_some() => {
            let name: String = undefined
                .unwrap_or(&seen)
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '.'))
                .collect();
            let message = if name.is_empty() {
                "a jinja variable is not given".to_owned()
            } else {
                format!("the jinja variable `{name}` is not given")
            };
            let given = variables.keys().map(String::as_str).filter(|name| !crate::clock::is_own(name));
            let given: Vec<&str> = given.collect();
            let diagnostic = Diagnostic::new("TB0218", span, message);
            let diagnostic = if given.is_empty() {
                diagnostic.note("no variables are given")
            } else {
                diagnostic.note(format!("variables here: {}", given.join(", ")))
            };
            match crate::suggest::nearest(&name, given) {
                Some(near) => diagnostic.help(format!("did you mean `{near}`?")),
                None => diagnostic.help(format!("give it with `--set {name}=VALUE`")),
            }
        }
        ErrorKind::OutOfFuel => {
            Diagnostic::new("TB0218", span, format!("the template takes more than {FUEL} steps"))
        }
        kind => {
            let what = if detail.is_empty() { kind.to_string() } else { format!("{kind}: {detail}") };
            Diagnostic::new("TB0218", span, format!("jinja: {what}"))
        }
    }
}

/// The template with a mark in front of each line's first text.
fn marked(template: &str) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut inside: Option<&str> = None;
    for (i, line) in template.split_inclusive('\n').enumerate() {
        let mut rest = line;
        let mut done = false;
        while !rest.is_empty() {
            if let Some(end) = inside {
                match rest.find(end) {
                    Some(at) => {
                        out.push_str(&rest[..at + end.len()]);
                        rest = &rest[at + end.len()..];
                        inside = None;
                    }
                    None => {
                        out.push_str(rest);
                        rest = "";
                    }
                }
                continue;
            }
            let next =
                ["{{", "{%", "{#"].iter().filter_map(|sign| rest.find(sign).map(|at| (at, *sign))).min();
            let (text, sign) = match next {
                Some((at, sign)) => (&rest[..at], Some(sign)),
                None => (rest, None),
            };
            let blank = text.len() - text.trim_start().len();
            let prints = sign == Some("{{") && !rest[text.len()..].starts_with("{{-");
            if !done && (blank < text.len() || prints) {
                out.push_str(&text[..blank]);
                out.push_str(&format!("{OPEN}{}{CLOSE}", i + 1));
                out.push_str(&text[blank..]);
                done = true;
            } else {
                out.push_str(text);
            }
            rest = &rest[text.len()..];
            if let Some(sign) = sign {
                out.push_str(sign);
                rest = &rest[sign.len()..];
                inside = Some(match sign {
                    "{{" => "}}",
                    "{%" => "%}",
                    _ => "#}",
                });
            }
        }
    }
    out
}

/// The file's line for each line of `rendered`, if the marks changed nothing else.
fn origin(with_marks: &str, rendered: &str) -> Option<Vec<u32>> {
    let mut lines = Vec::new();
    let mut plain = String::with_capacity(rendered.len());
    let mut last = 1;
    for line in with_marks.split('\n') {
        let mut first = None;
        let mut rest = line;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (number, after) = after.split_once(CLOSE)?;
            first = first.or(number.parse().ok());
            plain.push_str(before);
            rest = after;
        }
        plain.push_str(rest);
        plain.push('\n');
        last = first.unwrap_or(last);
        lines.push(last);
    }
    plain.pop();
    (plain == rendered).then_some(lines)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::diagnostic::Report;

    fn check(text: &str, variables: &[(&str, &str)], expected: Expect) {
        let variables =
            variables.iter().map(|(k, v)| ((*k).to_owned(), serde_json::from_str(v).unwrap())).collect();
        let shown = match render("p.yaml", text, &variables) {
            Ok(source) => {
                let mut at = 0;
                let line = |line: &str| {
                    let number = source.position(at).line;
                    at += line.len() as u32;
                    format!("{number}|{line}")
                };
                source.text().split_inclusive('\n').map(line).collect()
            }
            Err((source, diagnostic)) => Report::new(Arc::new(source), vec![diagnostic]).render(false),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn lines_keep_the_numbers_of_the_file() {
        check(
            "# {{ licence }}\npipeline:\n{% for n in names -%}\n  - name: {{ n }}\n    type: X\n{% endfor %}\nlast: '{{ names | join(',') }}'\n",
            &[("names", r#"["a", "b"]"#)],
            expect![[r#"
                1|
                2|pipeline:
                4|- name: a
                5|    type: X
                4|- name: b
                5|    type: X
                5|
                7|last: 'a,b'"#]],
        );
    }

    #[test]
    fn variables_of_many_lines_and_methods_of_python() {
        check(
            "a: 1\n{{ block }}\nb: {{ m.get('x', 3) }} {{ s.upper() }}{% for k, v in m.items() %} {{ k }}={{ v }}{% endfor %}\n{# gone\n   gone #}c: 1\n",
            &[("block", r#""x: 1\ny: 2""#), ("m", r#"{"z": 1}"#), ("s", "\"q\"")],
            expect![[r#"
                1|a: 1
                2|x: 1
                2|y: 2
                3|b: 3 Q z=1
                5|c: 1"#]],
        );
    }

    #[test]
    fn what_is_wrong_is_shown_at_its_place() {
        check(
            "a: 1\nb: {{ threshhold + 1 }}\n",
            &[("threshold", "1")],
            expect![[r#"
                error[TB0218]: the jinja variable `threshhold` is not given
                  ╭─[p.yaml:2:7]
                2 │ b: {{ threshhold + 1 }}
                  ·       ──────────────
                  ╰────
                  variables here: threshold
                  help: did you mean `threshold`?
            "#]],
        );
        check(
            "b: {{ x }}\n",
            &[],
            expect![[r#"
                error[TB0218]: the jinja variable `x` is not given
                  ╭─[p.yaml:1:7]
                1 │ b: {{ x }}
                  ·       ─
                  ╰────
                  no variables are given
                  help: give it with `--set x=VALUE`
            "#]],
        );
        check(
            "b: {% if %}\n",
            &[],
            expect![[r#"
                error[TB0218]: jinja: syntax error: unexpected end of block
                  ╭─[p.yaml:1:10]
                1 │ b: {% if %}
                  ·          ──
                  ╰────
            "#]],
        );
        check(
            "{% for i in range(9999) %}{% for j in range(9999) %}{{ i }}{% endfor %}{% endfor %}",
            &[],
            expect![[r#"
                error[TB0218]: the template takes more than 5000000 steps
                  ╭─[p.yaml:1:1]
                1 │ {% for i in range(9999) %}{% for j in range(9999) %}{{ i }}{% endfor %}{% endfor %}
                  · ───────────────────────────────────────────────────────────────────────────────────
                  ╰────
            "#]],
        );
    }

    #[test]
    fn a_file_without_jinja_is_left_alone() {
        check("# c\na: '{'\n", &[], expect![["1|# c\n2|a: '{'\n"]]);
    }
}
