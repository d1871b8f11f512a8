//! Which types go with which operators and declarations.

use tiebeam_core::row::Value;

use crate::diagnostic::Diagnostic;
use crate::expression::tree::Binary;
use crate::expression::types::{Kind, Type, show};
use crate::source::Span;

/// A value of a type, to see whether a format suits it.
pub(super) fn sample(typed: &Type) -> Option<Value> {
    match typed.kind {
        Kind::Int => Some(Value::Int64(1)),
        Kind::Float => Some(Value::Double(1.5)),
        Kind::Str => Some(Value::String("".into())),
        _ => None,
    }
}

pub(super) fn ordered(a: &Type, b: &Type) -> bool {
    let known = |t: &Type| !matches!(t.kind, Kind::Any | Kind::Never);
    !known(a)
        || !known(b)
        || (a.numeric() && b.numeric())
        || matches!(
            (&a.kind, &b.kind),
            (Kind::Str, Kind::Str) | (Kind::Bytes, Kind::Bytes) | (Kind::List(_), Kind::List(_))
        )
}

/// The type that an operator gives for two types.
///
/// # Errors
/// When it has no meaning for them.
pub fn binary_type(operator: Binary, a: &Type, b: &Type) -> Result<Type, String> {
    let wrong = || Err(format!("`{}` has no meaning for {a} and {b}", operator.sign()));
    if a.kind == Kind::Any || b.kind == Kind::Any {
        return Ok(Type::ANY);
    }
    if a.numeric() && b.numeric() {
        let floats = a.kind == Kind::Float || b.kind == Kind::Float;
        let logical = a.kind == Kind::Bool && b.kind == Kind::Bool;
        return match operator {
            Binary::Divide => Ok(Type::FLOAT),
            Binary::BitAnd | Binary::BitOr | Binary::BitXor if logical => Ok(Type::BOOL),
            Binary::BitAnd | Binary::BitOr | Binary::BitXor | Binary::ShiftLeft | Binary::ShiftRight
                if floats =>
            {
                wrong()
            }
            _ if floats => Ok(Type::FLOAT),
            // An integer, or a float where the exponent is negative.
            Binary::Power => Ok(Type::ANY),
            _ => Ok(Type::INT),
        };
    }
    match (operator, &a.kind, &b.kind) {
        (Binary::Add, Kind::Str, Kind::Str) => Ok(Type::STR),
        (Binary::Add, Kind::Bytes, Kind::Bytes) => Ok(Type::of(Kind::Bytes)),
        (Binary::Add, Kind::List(x), Kind::List(y)) => Ok(Type::list(x.join(y))),
        (Binary::Multiply, Kind::Str | Kind::Bytes | Kind::List(_), Kind::Int | Kind::Bool) => {
            Ok(Type { nullable: false, ..a.clone() })
        }
        (Binary::Multiply, Kind::Int | Kind::Bool, Kind::Str | Kind::Bytes | Kind::List(_)) => {
            Ok(Type { nullable: false, ..b.clone() })
        }
        _ => wrong(),
    }
}

/// Tells that a type has no column, and how to give one.
pub fn untold(typed: &Type, span: Span) -> Diagnostic {
    let message = match typed.kind {
        Kind::Never => "the value is always None, so it has no type".to_owned(),
        _ => format!("the type of this value cannot be told before the run: {typed}"),
    };
    Diagnostic::new("TB0223", span, message)
        .help("give it: `{expression: …, output_type: string}`; types are integer, number, string, boolean, bytes, array, object")
}

/// Whether a value of type `seen` may ever be one of `wanted`.
pub fn may_become(seen: &Type, wanted: &tiebeam_core::row::FieldType) -> Result<(), String> {
    let target = Type::of_field(wanted);
    let fits = match (&seen.kind, &target.kind) {
        (Kind::Any | Kind::Never, _) | (_, Kind::Any) => true,
        (Kind::Int, Kind::Float) => true,
        (Kind::Dict(..), Kind::Row(_)) | (Kind::Row(_), Kind::Row(_) | Kind::Dict(..)) => true,
        (Kind::List(item), Kind::List(_)) => match item.to_field() {
            Some(_) => match &wanted.kind {
                tiebeam_core::row::TypeKind::Array(of) | tiebeam_core::row::TypeKind::Iterable(of) => {
                    return may_become(item, of);
                }
                _ => false,
            },
            None => true,
        },
        (Kind::Dict(..), Kind::Dict(..)) => true,
        (a, b) => a == b,
    };
    if fits { Ok(()) } else { Err(format!("the value is {seen}, not the declared {}", show(wanted))) }
}
