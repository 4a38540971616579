//! The columns of a table, as predicates name them.

use serde_json::{Map, Value};

use crate::protocol::json::parse_nested;

const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";
/// Where Spark keeps the type of `char` and `varchar` columns, which are strings otherwise.
const CHAR_TYPE: &str = "__CHAR_VARCHAR_TYPE_STRING";
/// Where Spark keeps how strings compare, if not by their bytes.
const COLLATIONS: &str = "__COLLATIONS";
/// Which narrower types a column had when some of the files were written.
const TYPE_CHANGES: &str = "delta.typeChanges";
/// Before the name of a partition column in Spark's filters on the files of a table.
const PARTITION_VALUES: &str = "partitionValues";
/// More levels than a schema can have that was read before.
const DEEPEST: usize = 512;

/// What a table's metadata says of its columns.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    /// The `schemaString`.
    pub schema: &'a str,
    /// The partition columns, by their logical names.
    pub partition_columns: &'a [String],
    /// Whether the log names columns by their physical names.
    pub is_mapped: bool,
}

/// A column that a predicate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// As the schema has it, parts joined by points.
    pub(super) name: String,
    /// The names in the log, from the top.
    pub(super) physical: Vec<String>,
    pub(super) data_type: DataType,
    pub(super) is_partition: bool,
}

/// A type of a column, as far as values of it are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataType {
    /// `byte`, `short`, `integer`: what a cast to `int` does not change.
    Integer,
    Long,
    Decimal,
    Float,
    Double,
    Text,
    Date,
    Timestamp,
    TimestampNtz,
    Boolean,
    /// One whose values are not compared: only their nulls are counted.
    Other,
}

/// A schema that columns are looked up in.
pub(super) struct Columns<'a> {
    table: Table<'a>,
    schema: Value,
}

impl<'a> Columns<'a> {
    /// Reads the schema; one that cannot be read has no columns.
    pub(super) fn new(table: Table<'a>) -> Self {
        Self { table, schema: parse_nested(table.schema, DEEPEST).unwrap_or_default() }
    }

    /// Finds a column by the parts of its name, which may begin with the table's.
    pub(super) fn find(&self, parts: &[String]) -> Result<Column, String> {
        let unknown = || format!("the table has no column {}", parts.join("."));
        if let Some(column) = self.at(parts) {
            return Ok(column);
        }
        if let [one] = parts {
            // JSON predicates have the path of a nested column in one name.
            let path: Vec<String> = one.split('.').map(str::to_owned).collect();
            return self.at(&path).filter(|_| path.len() > 1).ok_or_else(unknown);
        }
        let (qualifier, mut rest) = parts.split_first().ok_or_else(unknown)?;
        if self.has_column(qualifier) {
            return Err(unknown());
        }
        if qualifier == PARTITION_VALUES {
            return self.at(rest).filter(|column| column.is_partition).ok_or_else(unknown);
        }
        // The names of the share, the schema and the table, or an alias.
        while !rest.is_empty() {
            if let Some(column) = self.at(rest) {
                return Ok(column);
            }
            rest = &rest[1..];
        }
        Err(unknown())
    }

    fn has_column(&self, name: &str) -> bool {
        field(&self.schema, name).is_some()
    }

    fn at(&self, path: &[String]) -> Option<Column> {
        let (mut names, mut physical) = (Vec::new(), Vec::new());
        let mut data_type = &self.schema;
        let mut found = None;
        for part in path {
            let (name, column) = field(data_type, part)?;
            let metadata = column.get("metadata");
            let mapped = metadata.and_then(|metadata| metadata.get(PHYSICAL_NAME)).and_then(Value::as_str);
            physical.push(mapped.filter(|_| self.table.is_mapped).unwrap_or(name).to_owned());
            names.push(name);
            data_type = column.get("type")?;
            found = Some(column);
        }
        let is_partition =
            path.len() == 1 && self.table.partition_columns.iter().any(|name| *name == names[0]);
        Some(Column { name: names.join("."), physical, data_type: column_type(found?), is_partition })
    }
}

/// The field of a struct that has this name, or the only one that has it in different case.
fn field<'a>(data_type: &'a Value, name: &str) -> Option<(&'a str, &'a Map<String, Value>)> {
    let fields = data_type.get("fields")?.as_array()?.iter().filter_map(Value::as_object);
    let mut similar = fields.filter_map(|field| {
        let own = field.get("name")?.as_str()?;
        (own.to_lowercase() == name.to_lowercase()).then_some((own, field))
    });
    let first = similar.next()?;
    let others: Vec<_> = similar.collect();
    if others.is_empty() {
        return Some(first);
    }
    [first].into_iter().chain(others).find(|(own, _)| *own == name)
}

fn column_type(field: &Map<String, Value>) -> DataType {
    let metadata = |key: &str| field.get("metadata").and_then(|metadata| metadata.get(key));
    match field.get("type").and_then(Value::as_str).unwrap_or_default() {
        // A `char` is compared as if it were padded.
        "string"
            if metadata(CHAR_TYPE).and_then(Value::as_str).is_some_and(|name| name.starts_with("char")) =>
        {
            DataType::Other
        }
        "string" if metadata(COLLATIONS).is_some() => DataType::Other,
        "string" => DataType::Text,
        "byte" | "short" | "integer" => DataType::Integer,
        "long" => DataType::Long,
        "float" => DataType::Float,
        // The statistics of files from a time when it was a `float` have the digits of 32-bit numbers.
        "double" if metadata(TYPE_CHANGES).is_some() => DataType::Float,
        "double" => DataType::Double,
        "date" => DataType::Date,
        "timestamp" => DataType::Timestamp,
        "timestamp_ntz" => DataType::TimestampNtz,
        "boolean" => DataType::Boolean,
        name if name.starts_with("decimal") => DataType::Decimal,
        name if name.starts_with("varchar") => DataType::Text,
        _ => DataType::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"{"type":"struct","fields":[
        {"name":"id","type":"long","nullable":true,"metadata":{"delta.columnMapping.physicalName":"col-1"}},
        {"name":"Region","type":"string","nullable":true,"metadata":{"delta.columnMapping.physicalName":"col-2"}},
        {"name":"a.b","type":"string","nullable":true,"metadata":{"__CHAR_VARCHAR_TYPE_STRING":"char(3)"}},
        {"name":"s","type":{"type":"struct","fields":[
            {"name":"t","type":"decimal(10,2)","nullable":true,"metadata":{"delta.columnMapping.physicalName":"col-3"}}
        ]},"nullable":true,"metadata":{}},
        {"name":"X","type":"long","nullable":true,"metadata":{}},
        {"name":"x","type":"date","nullable":true,"metadata":{}}
    ]}"#;

    fn find(is_mapped: bool, name: &[&str]) -> Result<Column, String> {
        let partition_columns = &["Region".to_owned()];
        let columns = Columns::new(Table { schema: SCHEMA, partition_columns, is_mapped });
        let parts: Vec<String> = name.iter().map(|&part| part.to_owned()).collect();
        columns.find(&parts)
    }

    #[test]
    fn columns_are_found_by_their_names_in_any_case() {
        let physical = |is_mapped, name: &[&str]| find(is_mapped, name).unwrap().physical.join("/");
        assert_eq!(physical(false, &["ID"]), "id");
        assert_eq!(physical(true, &["id"]), "col-1");
        assert_eq!(physical(true, &["s", "t"]), "s/col-3");
        assert_eq!(physical(true, &["s.T"]), "s/col-3");
        assert_eq!(physical(true, &["retail", "sales", "orders", "s", "t"]), "s/col-3");
        assert_eq!(find(false, &["a.b"]).unwrap().data_type, DataType::Other);
        assert_eq!(find(false, &["X"]).unwrap().data_type, DataType::Long);
        assert_eq!(find(false, &["x"]).unwrap().data_type, DataType::Date);
        for name in [&["y"][..], &["s", "u"], &["s"; 2], &["t"], &["id", "t"], &[]] {
            assert!(find(false, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn spark_names_partition_columns_by_a_prefix() {
        let region = find(true, &["partitionValues", "region"]).unwrap();
        assert_eq!((region.physical.join("/").as_str(), region.is_partition), ("col-2", true));
        assert!(find(true, &["partitionValues", "id"]).is_err());
    }
}
