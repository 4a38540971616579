//! What a table's schema says of its files: "Schema Serialization Format" of Delta's protocol.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::protocol::json::parse_nested;

const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";
/// Between the names of a path; names do not have it.
const SEPARATOR: char = '\0';
const TYPE_CHANGES: &str = "delta.typeChanges";
/// The most bytes of all paths together. The names of schemas whose text is within its limit do not come near, unless
/// long ones are in each other hundreds of times.
const PATH_BYTES: usize = 64 << 20;

/// What the maps of a schema take for a column besides its path.
const COLUMN_BYTES: usize = 160;

/// A schema that was read, as far as answers depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// Of columns at any depth, by their paths. Every column is here, whose physical name may be its own.
    physical_names: BTreeMap<String, String>,
    has_physical_names: bool,
    type_changes: bool,
    types: BTreeSet<Special>,
    columns: BTreeMap<String, Primitive>,
    path_bytes: usize,
}

/// A type that a reader must know a Delta feature for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Special {
    /// `timestamp_ntz`
    TimestampNtz,
    /// `variant`
    Variant,
    /// `geometry` and `geography`
    Geospatial,
}

/// The type of a column, as far as its values have one form as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Primitive {
    /// `date`
    Date,
    /// `timestamp`
    Timestamp,
    /// `timestamp_ntz`
    TimestampNtz,
    /// `decimal`, with its scale.
    Decimal {
        /// Digits after the point.
        scale: u8,
    },
    /// `boolean`
    Boolean,
    /// Any other type.
    Other,
}

impl Schema {
    /// How many columns it has at any depth.
    pub(super) fn num_columns(&self) -> usize {
        self.physical_names.len()
    }

    /// About how many bytes of memory it takes: two maps whose keys are paths.
    pub(super) fn kept_bytes(&self) -> usize {
        self.num_columns() * COLUMN_BYTES + 2 * self.path_bytes
    }

    /// Reads a `schemaString`. 400 when it is no schema, or has a type that Delta does not have.
    pub fn parse(text: &str) -> Result<Self> {
        let value = read_schema(text)?;
        let mut this = Self {
            physical_names: BTreeMap::new(),
            has_physical_names: false,
            type_changes: false,
            types: BTreeSet::new(),
            columns: BTreeMap::new(),
            path_bytes: 0,
        };
        let Value::Object(schema) = &value else { return Err(unreadable()) };
        if schema.get("type").and_then(Value::as_str) != Some("struct") {
            return Err(unreadable());
        }
        this.read_struct("", schema)?;
        if this.physical_names.is_empty() {
            // The kernel of one client ends its process with a table of no columns.
            return Err(Error::unreadable_table("The table cannot be read: its schema has no columns."));
        }
        for field in schema.get("fields").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(name), Some(Value::String(data_type))) =
                (field.get("name").and_then(Value::as_str), field.get("type"))
            {
                this.columns.insert(name.to_owned(), primitive(data_type));
            }
        }
        Ok(this)
    }

    /// Whether a column, at any depth, has a physical name other than its own.
    pub fn has_physical_names(&self) -> bool {
        self.has_physical_names
    }

    /// The path of every column, at any depth, with the name that files carry. `mapped` says whether that is the
    /// physical name.
    pub fn carried_names(&self, mapped: bool) -> impl Iterator<Item = (&str, &str)> {
        self.physical_names.iter().map(move |(path, physical)| {
            let own = path.rsplit(SEPARATOR).next().unwrap_or(path);
            (path.as_str(), if mapped { physical.as_str() } else { own })
        })
    }

    /// Whether a column, at any depth, had a narrower type when some of the files were written.
    pub fn has_type_changes(&self) -> bool {
        self.type_changes
    }

    /// Whether a column, at any depth, has such a type.
    pub fn has_type(&self, special: Special) -> bool {
        self.types.contains(&special)
    }

    /// Whether there is a top-level column of this name.
    pub fn has_column(&self, name: &str) -> bool {
        self.physical_names.contains_key(&format!("{SEPARATOR}{name}"))
    }

    /// The type of a top-level column, by its logical name.
    pub fn column(&self, name: &str) -> Primitive {
        self.columns.get(name).copied().unwrap_or(Primitive::Other)
    }

    fn read_struct(&mut self, path: &str, schema: &Map<String, Value>) -> Result<()> {
        let Some(Value::Array(fields)) = schema.get("fields") else { return Err(unreadable()) };
        let mut names = BTreeSet::new();
        for field in fields {
            let Some(name) = field.get("name").and_then(Value::as_str) else { return Err(unreadable()) };
            let has_nullable = field.get("nullable").is_some_and(Value::is_boolean);
            if !has_nullable || !names.insert(name.to_lowercase()) {
                return Err(unreadable());
            }
            let physical = match field.get("metadata") {
                None => None,
                Some(Value::Object(metadata)) => {
                    self.type_changes |= metadata.get(TYPE_CHANGES).is_some_and(|changes| !changes.is_null());
                    metadata.get(PHYSICAL_NAME).and_then(Value::as_str)
                }
                Some(_) => return Err(unreadable()),
            };
            let physical = physical.unwrap_or(name);
            self.has_physical_names |= physical != name;
            let path = format!("{path}{SEPARATOR}{name}");
            self.path_bytes += path.len();
            if self.path_bytes > PATH_BYTES {
                return Err(unreadable());
            }
            self.read_type(&path, field.get("type"))?;
            self.physical_names.insert(path, physical.to_owned());
        }
        Ok(())
    }

    fn read_type(&mut self, path: &str, data_type: Option<&Value>) -> Result<()> {
        match data_type {
            Some(Value::String(name)) => self.read_primitive(name),
            Some(Value::Object(nested)) => match nested.get("type").and_then(Value::as_str) {
                Some("struct") => self.read_struct(path, nested),
                Some("array") => {
                    self.read_type(&format!("{path}{SEPARATOR}element"), nested.get("elementType"))
                }
                Some("map") => {
                    self.read_type(&format!("{path}{SEPARATOR}key"), nested.get("keyType"))?;
                    self.read_type(&format!("{path}{SEPARATOR}value"), nested.get("valueType"))
                }
                // A user-defined type of Spark, which files hold as the SQL type that it names.
                Some("udt") => self.read_type(path, nested.get("sqlType")),
                _ => Err(unreadable()),
            },
            _ => Err(unreadable()),
        }
    }

    fn read_primitive(&mut self, name: &str) -> Result<()> {
        const PRIMITIVES: [&str; 14] = [
            "string",
            "long",
            "integer",
            "short",
            "byte",
            "float",
            "double",
            "boolean",
            "binary",
            "date",
            "timestamp",
            "decimal",
            "void",
            "null",
        ];
        match name {
            "timestamp_ntz" => {
                self.types.insert(Special::TimestampNtz);
            }
            "variant" => {
                self.types.insert(Special::Variant);
            }
            _ if PRIMITIVES.contains(&name) || decimal_scale(name).is_some() => {}
            // A reference system has an authority and a code, such as `OGC:CRS84`.
            _ if ["geometry", "geography"].iter().any(|prefix| has_arguments(name, prefix))
                && (name.contains(':') || !name.contains('(')) =>
            {
                self.types.insert(Special::Geospatial);
            }
            _ if ["char", "varchar"].iter().any(|prefix| has_arguments(name, prefix)) => {}
            _ if name.starts_with("interval ") || name.starts_with("string collate ") => {}
            _ => return Err(unreadable()),
        }
        Ok(())
    }
}

/// Reads a schema as JSON. A struct in a struct is four levels deep, and Spark reads schemas that are deeper than JSON
/// parsers allow by default, so the limit is one of its own.
pub fn read_schema(text: &str) -> Result<Value> {
    const DEEPEST: usize = 512;
    parse_nested(text, DEEPEST).map_err(|error| unreadable().with_source(error))
}

/// Whether a type's name is `prefix`, or `prefix` with arguments in parentheses.
fn has_arguments(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || (rest.starts_with('(') && rest.ends_with(')')))
}

fn decimal_scale(name: &str) -> Option<u8> {
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    let precision = precision.trim().parse::<u8>().ok().filter(|precision| (1..=38).contains(precision))?;
    scale.trim().parse().ok().filter(|&scale| scale <= precision)
}

fn primitive(name: &str) -> Primitive {
    match name {
        "date" => Primitive::Date,
        "timestamp" => Primitive::Timestamp,
        "timestamp_ntz" => Primitive::TimestampNtz,
        "boolean" => Primitive::Boolean,
        _ => decimal_scale(name).map_or(Primitive::Other, |scale| Primitive::Decimal { scale }),
    }
}

fn unreadable() -> Error {
    Error::unreadable_table("The table's schema cannot be read.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(data_type: &str, metadata: &str) -> Result<Schema> {
        Schema::parse(&format!(
            r#"{{"type":"struct","fields":[{{"name":"a","type":{data_type},"nullable":true,"metadata":{metadata}}}]}}"#
        ))
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let nested = |depth: usize| {
            let open = r#"{"type":"array","elementType":"#.repeat(depth);
            format!(r#"{open}"long"{}"#, r#","containsNull":true}"#.repeat(depth))
        };
        for text in
            ["", "42", "null", "[]", "{}", r#"{"type":"struct"}"#, r#"{"type":"array","fields":[]}"#, "{"]
        {
            let error = Schema::parse(text).unwrap_err();
            assert_eq!(error.message(), "The table's schema cannot be read.", "{text}");
        }
        for data_type in [
            r#""quaternion""#,
            r#""decimal(39,0)""#,
            r#""decimal(2,3)""#,
            "7",
            r#"{"type":"set"}"#,
            &nested(5_000),
        ] {
            assert!(schema(data_type, "{}").is_err(), "{data_type}");
        }
        assert!(schema(&nested(400), "{}").is_ok());
        assert!(schema(r#""long""#, "7").is_err());
    }

    #[test]
    fn long_names_in_each_other_are_refused() {
        let nested = |depth: usize| {
            let name = "n".repeat(10_000);
            let open = format!(
                r#"{{"type":"struct","fields":[{{"name":"{name}","nullable":true,"metadata":{{}},"type":"#
            );
            format!(r#"{}"long"{}"#, open.repeat(depth), "}]}".repeat(depth))
        };
        assert!(schema(&nested(50), "{}").is_ok());
        assert!(schema(&nested(150), "{}").is_err());
    }

    #[test]
    fn types_and_names_are_found_at_any_depth() {
        let within = |data_type: &str| {
            let inner = format!(
                r#"{{"type":"map","keyType":"string","valueType":{data_type},"valueContainsNull":true}}"#
            );
            schema(&format!(r#"{{"type":"array","elementType":{inner},"containsNull":true}}"#), "{}").unwrap()
        };
        assert!(within(r#""timestamp_ntz""#).has_type(Special::TimestampNtz));
        assert!(within(r#""variant""#).has_type(Special::Variant));
        assert!(within(r#""geometry(OGC:CRS84)""#).has_type(Special::Geospatial));
        let mapped = |name: &str| {
            within(&format!(
                r#"{{"type":"struct","fields":[{{"name":"b","type":"long","nullable":true,"metadata":{{"delta.columnMapping.physicalName":"{name}"}}}}]}}"#
            ))
        };
        assert!(mapped("col-1").has_physical_names() && !mapped("b").has_physical_names());
        assert!(
            schema(r#""long""#, r#"{"delta.typeChanges":[{"fromType":"integer"}]}"#)
                .unwrap()
                .has_type_changes()
        );
    }

    #[test]
    fn files_carry_a_name_of_every_column() {
        let column = schema(r#""long""#, r#"{"delta.columnMapping.physicalName":"col-1"}"#).unwrap();
        assert_eq!(Vec::from_iter(column.carried_names(true)), [("\0a", "col-1")]);
        assert_eq!(Vec::from_iter(column.carried_names(false)), [("\0a", "a")]);
        let inner = r#"{"type":"struct","fields":[{"name":"x/y","type":"long","nullable":true}]}"#;
        let map =
            format!(r#"{{"type":"map","keyType":{inner},"valueType":{inner},"valueContainsNull":true}}"#);
        let map = schema(&map, "{}").unwrap();
        let names = Vec::from_iter(map.carried_names(false));
        assert_eq!(names, [("\0a", "a"), ("\0a\0key\0x/y", "x/y"), ("\0a\0value\0x/y", "x/y")]);
    }

    #[test]
    fn types_of_spark_are_known() {
        for data_type in [
            "string",
            "decimal(10,2)",
            "decimal(38,38)",
            "void",
            "char(3)",
            "varchar(10)",
            "geography(OGC:CRS84, vincenty)",
            "interval day to second",
        ] {
            assert!(schema(&format!("\"{data_type}\""), "{}").is_ok(), "{data_type}");
        }
        for data_type in ["", "LONG", "int", "bigint", "calendar_interval", "geometry(4326)"] {
            assert!(schema(&format!("\"{data_type}\""), "{}").is_err(), "{data_type}");
        }
        assert!(schema(r#""long""#, "null").is_err());
        let fields = |fields: &str| Schema::parse(&format!(r#"{{"type":"struct","fields":[{fields}]}}"#));
        let long = |name: &str| format!(r#"{{"name":"{name}","type":"long","nullable":true}}"#);
        assert!(fields(&long("a")).is_ok());
        for twice in [[long("a"), long("a")], [long("a"), long("A")]] {
            assert!(fields(&twice.join(",")).is_err(), "{twice:?}");
        }
        assert!(fields(r#"{"name":"a","type":"long"}"#).is_err() && fields("").is_err());
        let udt = r#"{"type":"udt","class":"x","sqlType":{"type":"struct","fields":[{"name":"v","type":"double","nullable":true}]}}"#;
        assert!(schema(udt, "{}").is_ok());
        assert_eq!(schema(r#""decimal(10,2)""#, "{}").unwrap().column("a"), Primitive::Decimal { scale: 2 });
        assert_eq!(schema(r#""date""#, "{}").unwrap().column("b"), Primitive::Other);
    }
}
