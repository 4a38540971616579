//! The statistics of a file, of which only the columns are read that a predicate names: "Per-file Statistics".

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::schema::Column;

/// What the statistics of a file say.
#[derive(Debug, Default)]
pub(super) struct Statistics<'a> {
    pub(super) num_records: Option<u64>,
    /// One entry for each column, in their order.
    pub(super) columns: Vec<ColumnStatistics<'a>>,
}

/// What the statistics of a file say of one column.
#[derive(Debug, Default, Clone)]
pub(super) struct ColumnStatistics<'a> {
    pub(super) min: Option<Cow<'a, str>>,
    pub(super) max: Option<Cow<'a, str>>,
    pub(super) null_count: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text<'a> {
    num_records: Option<u64>,
    #[serde(borrow)]
    min_values: Option<&'a RawValue>,
    #[serde(borrow)]
    max_values: Option<&'a RawValue>,
    #[serde(borrow)]
    null_count: Option<&'a RawValue>,
}

/// The columns that are read, as a tree of their physical names.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    columns: usize,
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// The column that the path names.
    column: Option<usize>,
    children: HashMap<String, Self>,
}

impl Wanted {
    pub(super) fn new(columns: &[Column]) -> Self {
        let mut root = Node::default();
        for (number, column) in columns.iter().enumerate().filter(|(_, column)| !column.is_partition) {
            column.physical.iter().fold(&mut root, |node, name| node.child(name)).column = Some(number);
        }
        Self { columns: columns.len(), root }
    }

    /// Reads the statistics of a file. What is not there, or is not JSON, is not known.
    pub(super) fn read<'a>(&self, stats: Option<&'a str>) -> Statistics<'a> {
        let text: Option<Text<'a>> = stats.and_then(|stats| serde_json::from_str(stats).ok());
        let Some(text) = text else {
            return Statistics {
                num_records: None,
                columns: vec![ColumnStatistics::default(); self.columns],
            };
        };
        let [min, max, nulls] =
            [text.min_values, text.max_values, text.null_count].map(|values| self.pick(values));
        let columns = min.into_iter().zip(max).zip(nulls).map(|((min, max), nulls)| ColumnStatistics {
            min: min.and_then(scalar),
            max: max.and_then(scalar),
            null_count: nulls.and_then(|count| count.get().parse().ok()),
        });
        Statistics { num_records: text.num_records, columns: columns.collect() }
    }

    fn pick<'a>(&self, values: Option<&'a RawValue>) -> Vec<Option<&'a RawValue>> {
        let mut found = vec![None; self.columns];
        if let Some(values) = values
            && self.root.pick(values, &mut found).is_err()
        {
            found.fill(None);
        }
        found
    }
}

impl Node {
    fn child(&mut self, name: &str) -> &mut Self {
        self.children.entry(name.to_owned()).or_default()
    }

    fn pick<'a>(&self, values: &'a RawValue, found: &mut [Option<&'a RawValue>]) -> serde_json::Result<()> {
        if self.children.is_empty() || !values.get().starts_with('{') {
            return Ok(());
        }
        Struct { node: self, found }.deserialize(&mut serde_json::Deserializer::from_str(values.get()))
    }
}

/// Visits the fields of a struct, and passes over those that no predicate names.
struct Struct<'n, 'f, 'a> {
    node: &'n Node,
    found: &'f mut [Option<&'a RawValue>],
}

impl<'a> DeserializeSeed<'a> for Struct<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Struct<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with a value for each column")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key::<Name<'a>>()? {
            let Some(node) = self.node.children.get(name.as_ref()) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value: &'a RawValue = map.next_value()?;
            if let Some(found) = node.column.and_then(|number| self.found.get_mut(number)) {
                *found = Some(value);
            }
            node.pick(value, self.found).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// A name, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text, or a number or boolean as it is written.
fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<Name<'_>>(value.get()).ok().map(|Name(text)| text),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(value.get())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predicate::schema::DataType;

    fn column(physical: &[&str]) -> Column {
        Column {
            name: physical.join("."),
            physical: physical.iter().map(|&name| name.to_owned()).collect(),
            data_type: DataType::Long,
            is_partition: false,
        }
    }

    #[test]
    fn only_the_wanted_columns_are_read() {
        let columns = [column(&["b"]), column(&["s", "t"]), column(&["ä\""]), column(&["missing"])];
        let wanted = Wanted::new(&columns);
        let stats = r#"{"numRecords":3,"minValues":{"a":[{}],"b":1.50,"s":{"u":1,"t":"x\u0041"},"ä\"":true},
            "maxValues":{"b":null,"s":7},"nullCount":{"b":0,"s":{"t":2}},"tightBounds":false}"#;
        let read = wanted.read(Some(stats));
        assert_eq!(read.num_records, Some(3));
        let of = |column: usize| {
            let ColumnStatistics { min, max, null_count } = read.columns[column].clone();
            (min.map(Cow::into_owned), max.map(Cow::into_owned), null_count)
        };
        assert_eq!(of(0), (Some("1.50".to_owned()), None, Some(0)));
        assert_eq!(of(1), (Some("xA".to_owned()), None, Some(2)));
        assert_eq!(of(2), (Some("true".to_owned()), None, None));
        assert_eq!(of(3), (None, None, None));
    }

    #[test]
    fn what_is_no_statistics_says_nothing() {
        let wanted = Wanted::new(&[column(&["a"])]);
        for stats in [
            None,
            Some(""),
            Some("null"),
            Some("[1]"),
            Some(r#"{"minValues":{"a":1"#),
            Some(r#"{"numRecords":-1}"#),
        ] {
            let read = wanted.read(stats);
            assert!(read.num_records.is_none() && read.columns[0].min.is_none(), "{stats:?}");
        }
        let read =
            wanted.read(Some(r#"{"numRecords":1,"minValues":[1],"maxValues":7,"nullCount":{"a":-1}}"#));
        assert_eq!(read.num_records, Some(1));
        assert!(read.columns[0].min.is_none() && read.columns[0].null_count.is_none());
    }
}
