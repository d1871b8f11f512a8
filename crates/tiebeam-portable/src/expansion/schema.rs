//! Schemas as they travel in requests and answers.

use std::collections::BTreeMap;

use tiebeam_core::Result;
use tiebeam_core::coder::row_coder;
use tiebeam_core::coder::schema_proto::{decode_schema, encode_schema};
use tiebeam_core::row::{Row, Schema};
use tiebeam_model::pipeline::field_type::TypeInfo;
use tiebeam_model::{Message, pipeline};

use super::answer::damaged;

/// A schema as a message, with what each of its fields is for.
pub(super) fn described(schema: &Schema, about: &BTreeMap<String, String>) -> Result<pipeline::Schema> {
    let encoded = encode_schema(schema);
    let mut message = pipeline::Schema::decode(encoded.as_slice()).map_err(damaged("a schema"))?;
    describe(&mut message, "", about);
    Ok(message)
}

fn describe(schema: &mut pipeline::Schema, path: &str, about: &BTreeMap<String, String>) {
    for field in &mut schema.fields {
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        if let Some(about) = about.get(&path) {
            field.description.clone_from(about);
        }
        if let Some(TypeInfo::RowType(row)) = field.r#type.as_mut().and_then(|kind| kind.type_info.as_mut())
            && let Some(inner) = &mut row.schema
        {
            describe(inner, &path, about);
        }
    }
}

/// The row that a message and its schema tell.
pub(super) fn row_of(schema: &[u8], row: &[u8]) -> Result<Row> {
    let schema = decode_schema(schema.to_vec())?;
    row_coder(schema.into()).from_bytes(row.to_vec())
}
