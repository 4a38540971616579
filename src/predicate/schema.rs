//! The columns of a table, as predicates name them.

use std::cell::OnceCell;
use std::collections::HashMap;

use serde_json::Value;

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
    /// `decimal` of at most 15 digits, which floating-point numbers hold too.
    Decimal,
    /// `decimal` of more digits. Some writers go through floating-point numbers for statistics.
    LongDecimal,
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
    root: Struct,
}

/// The fields of a struct by their names in lowercase. Those of a struct in it are read when one of them is looked up.
struct Struct(HashMap<String, Vec<Field>>);

struct Field {
    name: String,
    physical: Option<String>,
    data_type: Value,
    /// Whether texts of it, at any depth, compare by something else than their bytes.
    compares_otherwise: bool,
    was_widened: bool,
    children: OnceCell<Option<Struct>>,
}

impl Struct {
    fn new(data_type: &Value) -> Option<Self> {
        let mut fields: HashMap<String, Vec<Field>> = HashMap::new();
        for field in data_type.get("fields")?.as_array()? {
            let name = field.get("name")?.as_str()?.to_owned();
            let metadata = |key: &str| field.get("metadata").and_then(|metadata| metadata.get(key));
            let physical = metadata(PHYSICAL_NAME).and_then(Value::as_str).map(str::to_owned);
            let compares_otherwise = metadata(COLLATIONS).is_some()
                || metadata(CHAR_TYPE).and_then(Value::as_str).is_some_and(has_char);
            fields.entry(name.to_lowercase()).or_default().push(Field {
                name,
                physical,
                data_type: field.get("type")?.clone(),
                compares_otherwise,
                was_widened: metadata(TYPE_CHANGES).is_some(),
                children: OnceCell::new(),
            });
        }
        Some(Self(fields))
    }

    /// The field of this name, or the only one that has it in different case.
    fn field(&self, name: &str) -> Option<&Field> {
        match self.0.get(&name.to_lowercase())?.as_slice() {
            [only] => Some(only),
            several => several.iter().find(|field| field.name == name),
        }
    }
}

impl<'a> Columns<'a> {
    /// Reads the schema; one that cannot be read has no columns.
    pub(super) fn new(table: Table<'a>) -> Self {
        let schema = parse_nested(table.schema, DEEPEST).unwrap_or_default();
        Self { table, root: Struct::new(&schema).unwrap_or_else(|| Struct(HashMap::new())) }
    }

    /// Finds a column by the parts of its name, which may begin with the table's. The error does not have the name: in some
    /// dialects, what looks like one is a text.
    pub(super) fn find(&self, parts: &[String]) -> Result<Column, String> {
        let unknown = || "the table has no such column".to_owned();
        let found = self.at(parts);
        if let [one] = parts {
            // JSON predicates have the path of a nested column in one name.
            let path: Vec<String> = one.split('.').map(str::to_owned).collect();
            let nested = if path.len() > 1 { self.at(&path) } else { None };
            return match (found, nested) {
                (Some(_), Some(_)) => Err("a name stands for two columns".to_owned()),
                (found, nested) => found.or(nested).ok_or_else(unknown),
            };
        }
        if let Some(column) = found {
            return Ok(column);
        }
        let (qualifier, mut rest) = parts.split_first().ok_or_else(unknown)?;
        if self.root.field(qualifier).is_some() {
            return Err(unknown());
        }
        if qualifier == PARTITION_VALUES {
            return self.at(rest).filter(|column| column.is_partition).ok_or_else(unknown);
        }
        // The names of the share, the schema and the table, or an alias.
        const MOST_QUALIFIERS: usize = 3;
        for _ in 0..MOST_QUALIFIERS {
            if let Some(column) = self.at(rest) {
                return Ok(column);
            }
            rest = rest.split_first().ok_or_else(unknown)?.1;
        }
        Err(unknown())
    }

    /// Finds a column by its path alone.
    pub(super) fn at(&self, path: &[String]) -> Option<Column> {
        let (mut names, mut physical, mut compares_otherwise) = (Vec::new(), Vec::new(), false);
        let mut inside = Some(&self.root);
        let mut found = None;
        for part in path {
            let field = inside?.field(part)?;
            let mapped = field.physical.as_deref().filter(|_| self.table.is_mapped);
            physical.push(mapped.unwrap_or(&field.name).to_owned());
            names.push(field.name.as_str());
            compares_otherwise |= field.compares_otherwise;
            inside = field.children.get_or_init(|| Struct::new(&field.data_type)).as_ref();
            found = Some(field);
        }
        let field = found?;
        let is_partition = path.len() == 1 && self.table.partition_columns.contains(&field.name);
        let data_type = match column_type(&field.data_type) {
            DataType::Text if compares_otherwise => DataType::Other,
            // The statistics of files from a time when it was a `float` have the digits of 32-bit numbers.
            DataType::Double if field.was_widened => DataType::Float,
            data_type => data_type,
        };
        Some(Column { name: names.join("."), physical, data_type, is_partition })
    }
}

/// Whether Spark's name of a type has a `char`, which is compared as if it were padded.
fn has_char(name: &str) -> bool {
    name.replace("varchar(", "").contains("char(")
}

fn column_type(data_type: &Value) -> DataType {
    match data_type.as_str().unwrap_or_default() {
        "string" => DataType::Text,
        "byte" | "short" | "integer" => DataType::Integer,
        "long" => DataType::Long,
        "float" => DataType::Float,
        "double" => DataType::Double,
        "date" => DataType::Date,
        "timestamp" => DataType::Timestamp,
        "timestamp_ntz" => DataType::TimestampNtz,
        "boolean" => DataType::Boolean,
        name if name.starts_with("decimal") => decimal_type(name),
        name if name.starts_with("varchar") => DataType::Text,
        _ => DataType::Other,
    }
}

/// `decimal` alone has ten digits.
fn decimal_type(name: &str) -> DataType {
    const EXACT_DIGITS: u8 = 15;
    let precision =
        name.strip_prefix("decimal(").and_then(|rest| rest.split(',').next()?.trim().parse::<u8>().ok());
    if name == "decimal" || precision.is_some_and(|digits| digits <= EXACT_DIGITS) {
        DataType::Decimal
    } else {
        DataType::LongDecimal
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
        {"name":"p","type":{"type":"struct","fields":[
            {"name":"c","type":"string","nullable":true,"metadata":{}}
        ]},"nullable":true,"metadata":{"__CHAR_VARCHAR_TYPE_STRING":"struct<c:char(3)>"}},
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
        assert_eq!(find(false, &["p", "c"]).unwrap().data_type, DataType::Other);
        assert_eq!(find(false, &["X"]).unwrap().data_type, DataType::Long);
        assert_eq!(find(false, &["x"]).unwrap().data_type, DataType::Date);
        for name in [&["y"][..], &["s", "u"], &["s"; 2], &["t"], &["id", "t"], &[]] {
            assert!(find(false, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn decimals_are_exact_up_to_15_digits() {
        for (name, exact) in
            [("decimal(15,2)", true), ("decimal( 9 , 0)", true), ("decimal", true), ("decimal(16,2)", false)]
        {
            assert_eq!(
                decimal_type(name),
                if exact { DataType::Decimal } else { DataType::LongDecimal },
                "{name}"
            );
        }
    }

    #[test]
    fn spark_names_partition_columns_by_a_prefix() {
        let region = find(true, &["partitionValues", "region"]).unwrap();
        assert_eq!((region.physical.join("/").as_str(), region.is_partition), ("col-2", true));
        assert!(find(true, &["partitionValues", "id"]).is_err());
    }
}
