//! What of Python is not typed here, but can be run all the same: by `tiebeam-python`.
//!
//! Names, columns and types are checked as far as the typed part goes; what it does not know gives a value whose type
//! must be declared, unless Python's own library tells it.

use std::sync::Arc;

use tiebeam_core::row::Schema;

use super::Form;
use super::check::unknown_column;
use super::evaluate::Raised;
use super::interpreter::{Exception, MODULES, Program, functions};
use super::token::{Token, syntax, tokens};
use super::types::{Kind, Type};
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// A name that a function imports, or that the text defines beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// What it is called.
    pub name: Arc<str>,
    /// The module; none for a function of the text itself.
    pub module: Option<Arc<str>>,
    /// What of the module, if not the module as such.
    pub member: Option<Arc<str>>,
    /// Where.
    pub span: Span,
}

impl Import {
    /// The mistake of importing what is not here.
    pub fn problem(&self) -> Option<Diagnostic> {
        let module = self.module.as_deref()?;
        let root = module.split('.').next().unwrap_or(module);
        if MODULES.contains(&root) {
            return None;
        }
        let message = format!("the module `{module}` is not available");
        Some(
            Diagnostic::new("TB0219", self.span, message)
                .note(format!("modules here: {}", MODULES.join(", "))),
        )
    }
}

/// The type of what a function of Python's library gives, as far as it is one for all arguments.
pub fn library(module: &str, function: &str) -> Type {
    const FLOATS: [&str; 20] = [
        "sqrt", "exp", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "atan2",
        "pow", "hypot", "fabs", "degrees", "radians", "fmod", "fsum",
    ];
    match (module, function) {
        ("re", "findall" | "split") => Type::list(Type::STR),
        ("re", "sub" | "escape") | ("json", "dumps") => Type::STR,
        ("math", name) if FLOATS.contains(&name) => Type::FLOAT,
        ("math", "floor" | "ceil" | "trunc" | "gcd" | "lcm" | "comb" | "perm" | "factorial" | "isqrt") => {
            Type::INT
        }
        ("math", "isnan" | "isinf" | "isfinite" | "isclose") => Type::BOOL,
        ("math", "pi" | "e" | "tau" | "inf" | "nan") => Type::FLOAT,
        ("base64", _) | ("binascii", "hexlify" | "unhexlify") => Type::of(Kind::Bytes),
        ("binascii", "crc32") => Type::INT,
        _ => Type::ANY,
    }
}

/// Functions that Python has and the typed part has not, with the type of what they give.
pub fn builtin(name: &str) -> Option<Type> {
    Some(match name {
        "isinstance" | "callable" | "hasattr" | "issubclass" => Type::BOOL,
        "hash" | "id" => Type::INT,
        "bytes" => Type::of(Kind::Bytes),
        "bin" | "hex" | "oct" | "ascii" | "format" => Type::STR,
        "set" | "frozenset" | "dict" | "zip" | "enumerate" | "map" | "filter" | "divmod" | "getattr"
        | "type" | "iter" | "next" | "tuple" | "slice" | "complex" | "bytearray" | "object" | "vars"
        | "sorted" | "list" => Type::ANY,
        _ => return None,
    })
}

/// Whether Python's own texts, bytes, lists or dicts have such a method.
pub fn is_method(kind: &Kind, name: &str) -> bool {
    const STR: [&str; 24] = [
        "casefold",
        "encode",
        "expandtabs",
        "format_map",
        "isascii",
        "isdecimal",
        "isidentifier",
        "isnumeric",
        "isprintable",
        "istitle",
        "maketrans",
        "partition",
        "rpartition",
        "removeprefix",
        "removesuffix",
        "rindex",
        "rsplit",
        "splitlines",
        "swapcase",
        "translate",
        "index",
        "rfind",
        "zfill",
        "isspace",
    ];
    match kind {
        Kind::Str => STR.contains(&name),
        Kind::Bytes => {
            STR.contains(&name)
                || matches!(name, "hex" | "decode" | "strip" | "split" | "join" | "startswith" | "endswith")
        }
        Kind::List(_) => matches!(
            name,
            "copy" | "index" | "count" | "append" | "extend" | "sort" | "reverse" | "pop" | "insert"
        ),
        Kind::Dict(..) => {
            matches!(name, "copy" | "pop" | "update" | "setdefault" | "popitem" | "items" | "keys" | "values")
        }
        Kind::Int => matches!(name, "bit_length" | "bit_count" | "to_bytes" | "as_integer_ratio"),
        Kind::Float => matches!(name, "is_integer" | "hex" | "as_integer_ratio"),
        Kind::Row(_) => matches!(name, "_asdict" | "_replace" | "_fields"),
        Kind::Never | Kind::Bool | Kind::Any => false,
    }
}

/// The program of a text that is more than the typed part.
pub fn program(form: Form, text: &str, schema: &Schema) -> Result<Program, Diagnostic> {
    let whole = Span::new(0, text.len());
    let made = match form {
        Form::Expression => {
            let used = names(text)?;
            let columns: Vec<(String, usize)> = schema
                .fields
                .iter()
                .enumerate()
                .filter(|(_, field)| used.iter().any(|(name, _)| **name == *field.name))
                .map(|(index, field)| (field.name.to_string(), index))
                .collect();
            Program::expression(text, &columns)
        }
        _ => Program::function(text, None),
    };
    made.map_err(|exception| {
        let message = format!("{}: {}", exception.kind, exception.message);
        syntax(place(text, &exception).unwrap_or(whole), message)
    })
}

/// The line of the text that an exception names.
fn place(text: &str, exception: &Exception) -> Option<Span> {
    let (line, _) = exception.place?;
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(index).map(str::len).sum();
    let line = text.get(start..)?.lines().next()?;
    let blank = line.len() - line.trim_start().len();
    Some(Span::new(start + blank, start + line.trim_end().len()))
}

/// An exception as expressions raise it.
pub fn raised(exception: Exception) -> Raised {
    Raised::new(&exception.kind, exception.message)
}

/// All names of a text that stand for something outside of it, with their places.
fn names(text: &str) -> Result<Vec<(String, Span)>, Diagnostic> {
    let tokens = tokens(text, 0, false)?;
    let mut found: Vec<(String, Span)> = Vec::new();
    let mut bound: Vec<String> = Vec::new();
    let mut binds = false;
    for (at, (token, span)) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before)).map(|(token, _)| token);
        let next = tokens.get(at + 1).map(|(token, _)| token);
        match token {
            Token::Name(name) if name == "for" || name == "lambda" => binds = true,
            Token::Name(name) if name == "in" => binds = false,
            Token::Sign(":") => binds = false,
            Token::Name(name) if binds || next == Some(&Token::Sign(":=")) => bound.push(name.clone()),
            // A field, or the name of an argument.
            Token::Name(_) if before == Some(&Token::Sign(".")) || next == Some(&Token::Sign("=")) => {}
            Token::Name(name) => found.push((name.clone(), *span)),
            _ => {}
        }
    }
    found.retain(|(name, _)| !bound.contains(name));
    Ok(found)
}

/// The columns that a text names and rows do not have, where the typed part cannot read it.
pub fn unknown_columns(form: Form, text: &str, schema: &Schema, producer: Option<&str>) -> Vec<Diagnostic> {
    const WORDS: [&str; 13] =
        ["and", "or", "not", "is", "if", "else", "None", "True", "False", "await", "yield", "in", "lambda"];
    let known = |name: &str| {
        WORDS.contains(&name)
            || builtin(name).is_some()
            || super::builtins::builtin(name).is_some()
            || name == "beam"
    };
    match form {
        Form::Expression => names(text)
            .unwrap_or_default()
            .into_iter()
            .filter(|(name, _)| schema.index_of(name).is_none() && !known(name))
            .map(|(name, span)| unknown_column(&name, span, schema, producer))
            .collect(),
        _ => fields_of_row(text)
            .into_iter()
            .filter(|(name, _)| schema.index_of(name).is_none() && !name.starts_with('_'))
            .map(|(name, span)| unknown_column(&name, span, schema, producer))
            .collect(),
    }
}

/// What a function reads of its row: `row.name`, where its parameter is called `row`.
fn fields_of_row(text: &str) -> Vec<(String, Span)> {
    let Ok(tokens) = tokens(text, 0, true) else { return Vec::new() };
    let name = |at: usize| match tokens.get(at) {
        Some((Token::Name(name), span)) => Some((name.as_str(), *span)),
        _ => None,
    };
    let sign = |at: usize, wanted: &'static str| {
        tokens.get(at).map(|(token, _)| token) == Some(&Token::Sign(wanted))
    };
    // The function that is called is the last one.
    let start = (0..tokens.len()).rev().find(|at| matches!(name(*at), Some(("def", _))));
    let (start, parameter) = match start {
        Some(at) => (at, name(at + 3)),
        None => (
            0,
            (0..tokens.len()).find(|at| matches!(name(*at), Some(("lambda", _)))).and_then(|at| name(at + 1)),
        ),
    };
    let Some((parameter, _)) = parameter else { return Vec::new() };
    (start..tokens.len())
        .filter(|at| {
            name(*at).is_some_and(|(name, _)| name == parameter) && sign(at + 1, ".") && !sign(at + 3, "(")
        })
        .filter_map(|at| name(at + 2))
        .map(|(name, span)| (name.to_owned(), span))
        .collect()
}

/// The text of the function that is called alone, at its own place, and what else the text defines: the typed part reads
/// one function. None where there is one only.
pub fn alone(text: &str) -> Option<(String, Vec<Import>)> {
    let names = functions(text);
    let (last, others) = names.split_last()?;
    if others.is_empty() {
        return None;
    }
    let others = others.iter().map(|name| Import {
        name: (*name).into(),
        module: None,
        member: None,
        span: Span::default(),
    });
    let mut out = String::with_capacity(text.len());
    for (line, of) in blocks(text) {
        match of {
            Block::Import => out.push_str(line),
            Block::Function(name) if name == *last => out.push_str(line),
            _ => line.chars().for_each(|c| match c {
                '\n' => out.push(c),
                c => out.extend(std::iter::repeat_n(' ', c.len_utf8())),
            }),
        }
    }
    Some((out, others.collect()))
}

/// The text with the function of that name behind all others, so that it is the one that is called; none where there is
/// no such function.
pub fn with_last(text: &str, name: &str) -> Option<String> {
    let (own, others): (Vec<_>, Vec<_>) =
        blocks(text).into_iter().partition(|(_, of)| matches!(of, Block::Function(found) if *found == name));
    if own.is_empty() {
        return None;
    }
    let mut out: String = others.into_iter().map(|(line, _)| line).collect();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    out.extend(own.into_iter().map(|(line, _)| line));
    Some(out)
}

/// What a line at the outermost level, and those behind it, belong to.
#[derive(Clone, Copy)]
enum Block<'t> {
    Import,
    Function(&'t str),
    Other,
}

fn blocks(text: &str) -> Vec<(&str, Block<'_>)> {
    let mut of = Block::Other;
    let mut found = Vec::new();
    for line in text.split_inclusive('\n') {
        if !line.starts_with([' ', '\t', '\n', '\r', '#', ')', ']', '}']) {
            of = match functions(line).first() {
                Some(name) => Block::Function(name),
                None if line.starts_with("import ") || line.starts_with("from ") => Block::Import,
                None => Block::Other,
            };
        }
        found.push((line, of));
    }
    found
}
