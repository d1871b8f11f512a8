//! Beam's standard_coders.yaml.
//!
//! Counted as Beam's own test runs them: an example whose document names no context counts in both. A check decodes
//! the example's bytes, compares the value and that nothing is left, and, unless the coder is marked non-deterministic,
//! encodes the example's value and compares the bytes.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{ShardedKey, Timer, TimerFiring, schema_proto, urn};
use tiebeam_core::{
    Coder, CoderSpec, Element, FieldType, IntervalWindow, Nesting, Pane, PaneTiming, Row, Schema, Timestamp,
    TypeKind, Value, Window, WindowInfo, Windows,
};

use super::any::{Any, Kept};
use crate::yaml::{self, Node};

/// How the examples went.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failures: Vec<String>,
    /// Documents of coders that are not known here.
    pub(crate) skips: Vec<String>,
}

/// Checks every example of the file.
pub(crate) fn run(text: &str) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for (index, document) in yaml::documents(text)?.iter().enumerate() {
        let spec = spec_of(document.need("coder")?)?;
        let contexts = match document.get("nested") {
            Some(nested) if nested.bool()? => &[Nesting::Nested][..],
            Some(_) => &[Nesting::Outer],
            None => &[Nesting::Nested, Nesting::Outer],
        };
        let examples = document.need("examples")?.pairs()?;
        let coder = match Any::coder_of(&spec) {
            Ok(coder) => coder,
            Err(error) => {
                for _ in 0..examples.len() * contexts.len() {
                    tally.skips.push(format!("skipped: document {index}: {error}"));
                }
                continue;
            }
        };
        for nesting in contexts {
            for (bytes, node) in examples {
                match check(document, &spec, &coder, *nesting, &latin1(bytes.text()?)?, node) {
                    Ok(()) => tally.passed += 1,
                    Err(error) => {
                        tally
                            .failures
                            .push(format!("failed: document {index}, {spec} {nesting:?}, {node:?}: {error}"));
                    }
                }
            }
        }
    }
    Ok(tally)
}

fn check(
    document: &Node,
    spec: &CoderSpec,
    coder: &Coder<Any>,
    nesting: Nesting,
    bytes: &[u8],
    node: &Node,
) -> Result<(), String> {
    let wanted = value_of(spec, node)?;
    let own_spec = coder.spec();
    if own_spec != *spec {
        return Err(format!("the coder says that it is {own_spec:?}"));
    }
    let about_coder = document.need("coder")?;
    if !about_coder.get("non_deterministic").is_some_and(|said| *said == Node::Bool(true)) {
        let mut encoded = Vec::new();
        coder.encode(&wanted, &mut encoded, nesting).map_err(|e| e.to_string())?;
        if encoded != bytes {
            return Err(format!("encoded as {encoded:?}, wanted {bytes:?}"));
        }
    }
    let mut kept = Vec::new();
    for (token, values) in about_coder.get("state").map_or(Ok(&[][..]), Node::pairs)? {
        kept.push((latin1(token.text()?)?, Bytes::from(latin1(values.text()?)?)));
    }
    let mut reader = Arc::new(Kept(kept)).reader(bytes.to_vec());
    let decoded = coder.decode(&mut reader, nesting).map_err(|e| e.to_string())?;
    if !reader.is_empty() {
        return Err(format!("{} bytes left over", reader.remaining()));
    }
    if decoded != wanted {
        return Err(format!("decoded as {decoded:?}, wanted {wanted:?}"));
    }
    Ok(())
}

/// Text whose characters stand for bytes.
fn latin1(text: &str) -> Result<Vec<u8>, String> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).map_err(|_| format!("character {c:?} stands for no byte")))
        .collect()
}

fn spec_of(node: &Node) -> Result<CoderSpec, String> {
    let components = node.get("components").map_or(Ok(&[][..]), Node::list)?;
    Ok(CoderSpec {
        urn: node.need("urn")?.text()?.to_owned(),
        payload: node.get("payload").map_or(Ok(Vec::new()), |payload| latin1(payload.text()?))?,
        components: components.iter().map(spec_of).collect::<Result<_, _>>()?,
    })
}

/// The value that a node of the file means to a coder.
fn value_of(spec: &CoderSpec, node: &Node) -> Result<Any, String> {
    let part = |index: usize| spec.components.get(index).ok_or_else(|| format!("{spec} lacks a part"));
    Ok(match spec.urn.as_str() {
        urn::BYTES => Any::Bytes(Bytes::copy_from_slice(node.text()?.as_bytes())),
        urn::BOOL => Any::Bool(node.bool()?),
        urn::VARINT => Any::Int(node.int()?),
        urn::DOUBLE => Any::Double(double(node)?),
        urn::STRING_UTF8 => Any::Text(node.text()?.to_owned()),
        urn::KV => Any::Pair(Box::new((
            value_of(part(0)?, node.need("key")?)?,
            value_of(part(1)?, node.need("value")?)?,
        ))),
        urn::ITERABLE | urn::STATE_BACKED_ITERABLE => {
            let one = |node| value_of(part(0)?, node);
            Any::Many(node.list()?.iter().map(one).collect::<Result<_, _>>()?)
        }
        urn::NULLABLE => Any::Nullable(match node {
            Node::Null => None,
            node => Some(Box::new(value_of(part(0)?, node)?)),
        }),
        urn::GLOBAL_WINDOW | urn::INTERVAL_WINDOW | urn::CUSTOM_WINDOW => Any::Window(window(spec, node)?),
        urn::WINDOWED_VALUE | urn::PARAM_WINDOWED_VALUE => Any::Windowed(Box::new((
            value_of(part(0)?, node.need("value")?)?,
            WindowInfo {
                timestamp: millis(node.need("timestamp")?)?,
                windows: windows(part(1)?, node)?,
                pane: pane(node.need("pane")?)?,
            },
        ))),
        urn::TIMER => Any::Timer(Box::new(Timer {
            user_key: value_of(part(0)?, node.need("userKey")?)?,
            tag: node.need("dynamicTimerTag")?.text()?.into(),
            windows: windows(part(1)?, node)?,
            firing: if node.need("clearBit")?.bool()? {
                None
            } else {
                Some(TimerFiring {
                    fire: millis(node.need("fireTimestamp")?)?,
                    hold: millis(node.need("holdTimestamp")?)?,
                    pane: pane(node.need("pane")?)?,
                })
            },
        })),
        urn::SHARDED_KEY => Any::Sharded(Box::new(ShardedKey {
            shard_id: Bytes::copy_from_slice(node.need("shardId")?.text()?.as_bytes()),
            key: value_of(part(0)?, node.need("key")?)?,
        })),
        urn::ROW => {
            let schema = schema_proto::decode_schema(spec.payload.clone()).map_err(|e| e.to_string())?;
            Any::Row(row(&Arc::new(schema), node)?)
        }
        _ => return Err(format!("no values of {spec} are known here")),
    })
}

fn double(node: &Node) -> Result<f64, String> {
    node.text()?.parse().map_err(|e| format!("{node:?}: {e}"))
}

fn millis(node: &Node) -> Result<Timestamp, String> {
    node.int().map(Timestamp::from_millis)
}

fn window(spec: &CoderSpec, node: &Node) -> Result<Window, String> {
    match (spec.urn.as_str(), spec.components.as_slice()) {
        (urn::GLOBAL_WINDOW, _) => Ok(Window::Global),
        (urn::INTERVAL_WINDOW, _) => {
            let (end, span) = (node.need("end")?.int()?, node.need("span")?.int()?);
            Ok(Window::Interval(IntervalWindow::new(
                Timestamp::from_millis(end - span),
                Timestamp::from_millis(end),
            )))
        }
        (urn::CUSTOM_WINDOW, [inner]) => window(inner, node.need("window")?),
        _ => Err(format!("no windows of {spec} are known here")),
    }
}

fn windows(spec: &CoderSpec, node: &Node) -> Result<Windows, String> {
    node.need("windows")?.list()?.iter().map(|node| window(spec, node)).collect()
}

fn pane(node: &Node) -> Result<Pane, String> {
    Ok(Pane {
        is_first: node.need("is_first")?.bool()?,
        is_last: node.need("is_last")?.bool()?,
        timing: match node.need("timing")?.text()? {
            "EARLY" => PaneTiming::Early,
            "ON_TIME" => PaneTiming::OnTime,
            "LATE" => PaneTiming::Late,
            "UNKNOWN" => PaneTiming::Unknown,
            other => return Err(format!("timing {other}")),
        },
        index: node.need("index")?.int()?,
        on_time_index: node.need("on_time_index")?.int()?,
    })
}

fn row(schema: &Arc<Schema>, node: &Node) -> Result<Row, String> {
    if node.pairs()?.len() != schema.fields.len() {
        return Err(format!("{} fields for ({schema})", node.pairs()?.len()));
    }
    let one = |field: &tiebeam_core::Field| field_value(&field.field_type, node.need(&field.name)?);
    let values: Vec<_> = schema.fields.iter().map(one).collect::<Result<_, _>>()?;
    Ok(Row::new(schema.clone(), values))
}

fn field_value(field_type: &FieldType, node: &Node) -> Result<Value, String> {
    if *node == Node::Null {
        return Ok(Value::Null);
    }
    fn narrow<T: TryFrom<i64>>(node: &Node) -> Result<T, String> {
        T::try_from(node.int()?).map_err(|_| format!("{node:?} is out of range"))
    }
    Ok(match &field_type.kind {
        TypeKind::Byte => Value::Byte(narrow(node)?),
        TypeKind::Int16 => Value::Int16(narrow(node)?),
        TypeKind::Int32 => Value::Int32(narrow(node)?),
        TypeKind::Int64 => Value::Int64(node.int()?),
        TypeKind::Float => Value::Float(double(node)? as f32),
        TypeKind::Double => Value::Double(double(node)?),
        TypeKind::String => Value::String(node.text()?.into()),
        TypeKind::Boolean => Value::Bool(node.bool()?),
        TypeKind::Bytes => Value::Bytes(Bytes::copy_from_slice(node.text()?.as_bytes())),
        TypeKind::Array(element) | TypeKind::Iterable(element) => Value::Array(
            node.list()?.iter().map(|node| field_value(element, node)).collect::<Result<_, _>>()?,
        ),
        TypeKind::Map(key, value) => Value::Map(
            node.pairs()?
                .iter()
                .map(|(k, v)| Ok((field_value(key, k)?, field_value(value, v)?)))
                .collect::<Result<_, String>>()?,
        ),
        TypeKind::Row(schema) => Value::Row(row(schema, node)?),
        TypeKind::Logical(logical) => match logical.urn.as_str() {
            // The file gives the eight bytes as a number, which has its sign bit turned over; ours are milliseconds.
            "beam:logical_type:millis_instant:v1" => Value::Int64(node.int()? ^ i64::MIN),
            "beam:logical_type:decimal:v1" => Value::String(node.text()?.into()),
            _ => field_value(&logical.representation, node)?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_counts_once_for_each_context() {
        let right =
            "coder: {urn: \"beam:coder:varint:v1\"}\nexamples: {\"\\u00c8\\u0001\": 200, \"\\0\": 0}\n";
        let tally = run(right).unwrap();
        assert_eq!((tally.passed, tally.failures.len(), tally.skips.len()), (4, 0, 0));
        let nested = format!("nested: true\n{right}");
        assert_eq!(run(&nested).unwrap().passed, 2);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let coder = "coder: {urn: \"beam:coder:bytes:v1\"}\nnested: true\nexamples:\n";
        let failures = |examples: &str| run(&format!("{coder}{examples}")).unwrap().failures;
        let [failure] = failures("  \"\\u0003abc\": abd\n").try_into().unwrap();
        assert_eq!(
            failure,
            "failed: document 0, bytes Nested, Text(\"abd\"): encoded as [3, 97, 98, 100], wanted [3, 97, 98, 99]"
        );
        assert_eq!(failures("  \"\\u0003abc\": abc\n").len(), 0);
        // A coder that is marked as non-deterministic is only decoded; what it decodes must be right all the same.
        let decoded = "coder: {urn: \"beam:coder:iterable:v1\", components: [{urn: \"beam:coder:bool:v1\"}], \
                       non_deterministic: true}\nexamples: {\"\\u00ff\\u00ff\\u00ff\\u00ff\\u0001\\u0001\\0\": [false]}\n";
        let tally = run(decoded).unwrap();
        assert_eq!((tally.passed, tally.failures.len()), (0, 2));
        let unknown = "coder: {urn: \"beam:coder:unheard_of:v1\"}\nexamples: {\"\": \"\"}\n";
        assert_eq!(run(unknown).unwrap().skips.len(), 2);
    }
}
