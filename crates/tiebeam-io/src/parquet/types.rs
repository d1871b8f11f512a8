//! Parquet's types and those of rows.

use std::sync::Arc;

use ::parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use ::parquet::schema::types::{Type, TypePtr};
use tiebeam_core::{FieldType, Schema, TypeKind};

use super::nodes::{Kind, Leaf, Node};
use crate::avro::types::{MICROS, MILLIS, instant};

/// The deepest type.
const MAX_DEPTH: usize = 60;

/// The node of a file's type, with the numbers of its columns.
pub struct Reader {
    /// The column that comes next.
    pub column: usize,
}

impl Reader {
    /// The nodes of the fields of a file.
    ///
    /// # Errors
    /// What rows cannot hold.
    pub fn fields(&mut self, root: &Type) -> Result<(Schema, Vec<Result<Node, String>>), String> {
        let mut types = Vec::new();
        let mut nodes = Vec::new();
        for field in root.get_fields() {
            let before = self.column;
            match self.node(field, 0, 0, MAX_DEPTH) {
                Ok(node) => {
                    types.push((field.name(), node.field()));
                    nodes.push(Ok(node));
                }
                Err(why) => {
                    // What is not read is no trouble.
                    self.column = before + columns(field);
                    types.push((field.name(), FieldType::nullable(TypeKind::String)));
                    nodes.push(Err(format!("column `{}`: {why}", field.name())));
                }
            }
        }
        Ok((Schema::of(types), nodes))
    }

    /// The node of a field; `def` and `rep` are the levels of what it stands in.
    fn node(&mut self, typed: &TypePtr, def: i16, rep: i16, depth: usize) -> Result<Node, String> {
        let depth = depth.checked_sub(1).ok_or_else(|| format!("types are more than {MAX_DEPTH} deep"))?;
        if repetition(typed) == Repetition::REPEATED {
            // A list without the groups around it.
            let item = self.bare(typed, def + 1, rep + 1, depth)?;
            let kind =
                Kind::List(Box::new(Node { nullable: false, def: def + 1, kind: item }), def + 1, rep + 1);
            return Ok(Node { nullable: false, def, kind });
        }
        let nullable = repetition(typed) == Repetition::OPTIONAL;
        let def = def + i16::from(nullable);
        Ok(Node { nullable, def, kind: self.bare(typed, def, rep, depth)? })
    }

    /// What a field is when it is there.
    fn bare(&mut self, typed: &TypePtr, def: i16, rep: i16, depth: usize) -> Result<Kind, String> {
        if typed.is_primitive() {
            let leaf = leaf(typed)?;
            self.column += 1;
            return Ok(Kind::Leaf(leaf, self.column - 1));
        }
        let info = typed.get_basic_info();
        let fields = typed.get_fields();
        let is_map = info.logical_type_ref() == Some(&LogicalType::Map)
            || matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
        let is_list = info.logical_type_ref() == Some(&LogicalType::List)
            || info.converted_type() == ConvertedType::LIST;
        let repeated = fields.len() == 1 && repetition(&fields[0]) == Repetition::REPEATED;
        if is_map && repeated && fields[0].is_group() && fields[0].get_fields().len() == 2 {
            let pair = fields[0].get_fields();
            let key = self.node(&pair[0], def + 1, rep + 1, depth)?;
            let value = self.node(&pair[1], def + 1, rep + 1, depth)?;
            return Ok(Kind::Map(Box::new([key, value]), def + 1, rep + 1));
        }
        if is_list && repeated {
            let inner = &fields[0];
            // The rules for lists that older writers made: the repeated group is an item itself.
            let is_item = inner.is_primitive()
                || inner.get_fields().len() != 1
                || inner.name() == "array"
                || inner.name() == format!("{}_tuple", typed.name());
            let item = if is_item {
                Node { nullable: false, def: def + 1, kind: self.bare(inner, def + 1, rep + 1, depth)? }
            } else {
                self.node(&inner.get_fields()[0], def + 1, rep + 1, depth)?
            };
            return Ok(Kind::List(Box::new(item), def + 1, rep + 1));
        }
        if fields.is_empty() {
            return Err("a row without fields".to_owned());
        }
        let mut nodes = Vec::with_capacity(fields.len());
        let mut types = Vec::with_capacity(fields.len());
        for field in fields {
            let node = self.node(field, def, rep, depth)?;
            types.push((field.name(), node.field()));
            nodes.push(node);
        }
        Ok(Kind::Row(Arc::new(Schema::of(types)), nodes))
    }
}

fn repetition(typed: &Type) -> Repetition {
    let info = typed.get_basic_info();
    if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED }
}

/// The number of columns of a type. Types are as deep as their reader allows.
fn columns(typed: &Type) -> usize {
    if typed.is_primitive() { 1 } else { typed.get_fields().iter().map(|field| columns(field)).sum() }
}

fn leaf(typed: &Type) -> Result<Leaf, String> {
    let info = typed.get_basic_info();
    let (logical, converted) = (info.logical_type_ref(), info.converted_type());
    if matches!(logical, Some(LogicalType::Decimal(_))) || converted == ConvertedType::DECIMAL {
        return Err("decimals are not available".to_owned());
    }
    Ok(match (typed.get_physical_type(), logical, converted) {
        (Physical::BOOLEAN, ..) => Leaf::Bool,
        (Physical::FLOAT, ..) => Leaf::Float,
        (Physical::DOUBLE, ..) => Leaf::Double,
        (Physical::INT96, ..) => Leaf::Int96,
        (Physical::INT32, Some(LogicalType::Integer(int)), _) => match (int.bit_width, int.is_signed) {
            (8, true) => Leaf::Byte,
            (8, false) | (16, true) => Leaf::Int16,
            (32, false) => Leaf::UInt32,
            _ => Leaf::Int32,
        },
        (Physical::INT32, _, ConvertedType::INT_8) => Leaf::Byte,
        (Physical::INT32, _, ConvertedType::INT_16 | ConvertedType::UINT_8) => Leaf::Int16,
        (Physical::INT32, _, ConvertedType::UINT_32) => Leaf::UInt32,
        (Physical::INT32, ..) => Leaf::Int32,
        (Physical::INT64, Some(LogicalType::Timestamp(instant)), _) => match instant.unit {
            TimeUnit::MILLIS => Leaf::Millis,
            TimeUnit::MICROS => Leaf::Micros,
            TimeUnit::NANOS => Leaf::Nanos,
        },
        (Physical::INT64, _, ConvertedType::TIMESTAMP_MILLIS) => Leaf::Millis,
        (Physical::INT64, _, ConvertedType::TIMESTAMP_MICROS) => Leaf::Micros,
        (Physical::INT64, Some(LogicalType::Integer(int)), _) if !int.is_signed => Leaf::UInt64,
        (Physical::INT64, _, ConvertedType::UINT_64) => Leaf::UInt64,
        (Physical::INT64, ..) => Leaf::Int64,
        (Physical::BYTE_ARRAY, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json), _)
        | (Physical::BYTE_ARRAY, _, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON) => {
            Leaf::Text
        }
        (Physical::BYTE_ARRAY, ..) => Leaf::Bytes,
        (Physical::FIXED_LEN_BYTE_ARRAY, ..) => Leaf::Fixed,
    })
}

/// The types that write rows of a schema, and their nodes.
///
/// # Errors
/// What Parquet has no type for.
pub fn of_schema(schema: &Schema) -> Result<(Type, Vec<Node>), String> {
    let mut column = 0;
    let mut fields = Vec::with_capacity(schema.fields.len());
    let mut nodes = Vec::with_capacity(schema.fields.len());
    for field in &schema.fields {
        let made = of_field(&field.name, &field.field_type, 0, 0, &mut column);
        let (typed, node) = made.map_err(|why| format!("field `{}`: {why}", field.name))?;
        fields.push(Arc::new(typed));
        nodes.push(node);
    }
    if fields.is_empty() {
        return Err("rows without fields".to_owned());
    }
    let root = Type::group_type_builder("schema").with_fields(fields).build();
    Ok((root.map_err(|error| error.to_string())?, nodes))
}

fn of_field(
    name: &str,
    field: &FieldType,
    def: i16,
    rep: i16,
    column: &mut usize,
) -> Result<(Type, Node), String> {
    let repetition = if field.nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    let def = def + i16::from(field.nullable);
    let node = |kind| Node { nullable: field.nullable, def, kind };
    let group = |name: &str, repetition, logical, fields: Vec<Type>| {
        let fields = fields.into_iter().map(Arc::new).collect();
        let made = Type::group_type_builder(name).with_repetition(repetition).with_fields(fields);
        made.with_logical_type(logical).build().map_err(|error| error.to_string())
    };
    let mut primitive = |physical, logical, leaf| {
        *column += 1;
        let made = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        let made = made.with_logical_type(logical).build().map_err(|error| error.to_string())?;
        Ok((made, node(Kind::Leaf(leaf, *column - 1))))
    };
    match &field.kind {
        TypeKind::Boolean => primitive(Physical::BOOLEAN, None, Leaf::Bool),
        TypeKind::Byte => primitive(Physical::INT32, Some(LogicalType::integer(8, true)), Leaf::Byte),
        TypeKind::Int16 => primitive(Physical::INT32, Some(LogicalType::integer(16, true)), Leaf::Int16),
        TypeKind::Int32 => primitive(Physical::INT32, None, Leaf::Int32),
        TypeKind::Int64 => primitive(Physical::INT64, None, Leaf::Int64),
        TypeKind::Float => primitive(Physical::FLOAT, None, Leaf::Float),
        TypeKind::Double => primitive(Physical::DOUBLE, None, Leaf::Double),
        TypeKind::String => primitive(Physical::BYTE_ARRAY, Some(LogicalType::String), Leaf::Text),
        TypeKind::Bytes => primitive(Physical::BYTE_ARRAY, None, Leaf::Bytes),
        TypeKind::Logical(logical) => match logical.urn.as_str() {
            MILLIS => {
                let typed = LogicalType::timestamp(true, TimeUnit::MILLIS);
                primitive(Physical::INT64, Some(typed), Leaf::Millis)
            }
            MICROS => {
                let typed = LogicalType::timestamp(true, TimeUnit::MICROS);
                primitive(Physical::INT64, Some(typed), Leaf::Micros)
            }
            urn if urn.contains("decimal") => Err("decimals are not available".to_owned()),
            _ => {
                let nullable = field.nullable || logical.representation.nullable;
                let representation = FieldType { nullable, ..logical.representation.clone() };
                of_field(name, &representation, def - i16::from(field.nullable), rep, column)
            }
        },
        TypeKind::Array(of) | TypeKind::Iterable(of) => {
            let (item, inner) = of_field("element", of, def + 1, rep + 1, column)?;
            let list = group("list", Repetition::REPEATED, None, vec![item])?;
            let outer = group(name, repetition, Some(LogicalType::List), vec![list])?;
            Ok((outer, node(Kind::List(Box::new(inner), def + 1, rep + 1))))
        }
        TypeKind::Map(key, value) => {
            if key.nullable {
                return Err("keys of maps are never null in Parquet".to_owned());
            }
            let (key, key_node) = of_field("key", key, def + 1, rep + 1, column)?;
            let (value, value_node) = of_field("value", value, def + 1, rep + 1, column)?;
            let pairs = group("key_value", Repetition::REPEATED, None, vec![key, value])?;
            let outer = group(name, repetition, Some(LogicalType::Map), vec![pairs])?;
            Ok((outer, node(Kind::Map(Box::new([key_node, value_node]), def + 1, rep + 1))))
        }
        TypeKind::Row(schema) => {
            let mut fields = Vec::with_capacity(schema.fields.len());
            let mut nodes = Vec::with_capacity(schema.fields.len());
            for inner in &schema.fields {
                let (typed, made) = of_field(&inner.name, &inner.field_type, def, rep, column)?;
                fields.push(typed);
                nodes.push(made);
            }
            if fields.is_empty() {
                return Err("rows without fields".to_owned());
            }
            let outer = group(name, repetition, None, fields)?;
            Ok((outer, node(Kind::Row(schema.clone(), nodes))))
        }
    }
}

impl Leaf {
    /// The type of a row's field that holds such values.
    pub fn kind(self) -> TypeKind {
        match self {
            Leaf::Bool => TypeKind::Boolean,
            Leaf::Byte => TypeKind::Byte,
            Leaf::Int16 => TypeKind::Int16,
            Leaf::Int32 => TypeKind::Int32,
            Leaf::Int64 | Leaf::UInt32 | Leaf::UInt64 => TypeKind::Int64,
            Leaf::Float => TypeKind::Float,
            Leaf::Double => TypeKind::Double,
            Leaf::Text => TypeKind::String,
            Leaf::Bytes | Leaf::Fixed => TypeKind::Bytes,
            Leaf::Millis => instant(MILLIS),
            Leaf::Micros | Leaf::Nanos | Leaf::Int96 => instant(MICROS),
        }
    }
}
