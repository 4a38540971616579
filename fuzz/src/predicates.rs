//! Predicates of queries, and the statistics that they are evaluated with.

use deltashare::predicate::{FileFacts, Filter, Predicate, Table, Verdict};

use super::{on_a_thread, text};

const SCHEMA: &str = r#"{"type":"struct","fields":[
    {"name":"day","type":"date","nullable":true,"metadata":{}},
    {"name":"n","type":"long","nullable":true,"metadata":{}},
    {"name":"s","type":"string","nullable":true,"metadata":{}},
    {"name":"x","type":"float","nullable":true,"metadata":{}},
    {"name":"d","type":"decimal(38,10)","nullable":true,"metadata":{}},
    {"name":"t","type":"timestamp","nullable":true,"metadata":{}},
    {"name":"st","type":{"type":"struct","fields":[{"name":"k","type":"integer","nullable":true,"metadata":{}}]},"nullable":true,"metadata":{}}
]}"#;

/// A predicate, in SQL or in JSON, a partition value and statistics, separated by NUL. Whatever they are, a file is not
/// left out both by a predicate and by its opposite, unless the predicate is null for all of its rows: then a predicate
/// that is never null leaves it out neither way.
pub fn predicates(input: &[u8]) {
    let Some(text) = text(input) else { return };
    on_a_thread(|| {
        let mut parts = text.splitn(3, '\0');
        let (hint, day, stats) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let kept = |predicates: Vec<Predicate>| {
            let partition_columns = ["day".to_owned()];
            let table = Table { schema: SCHEMA, partition_columns: &partition_columns, is_mapped: false };
            let file = FileFacts {
                partition_value: |name: &str| (name == "day").then_some(day),
                stats,
                deleted_rows: 1,
            };
            Filter::new(predicates, true, table).judge(&file) != Verdict::LeftOut
        };
        for predicate in [Predicate::from_sql(hint), Predicate::from_json(hint)] {
            let opposite = Predicate::Not(Box::new(predicate.clone()));
            let either = Predicate::Or(vec![predicate.clone(), opposite.clone()]);
            let any = kept(vec![predicate.clone()]) || kept(vec![opposite]);
            assert_eq!(any, kept(vec![either]), "{predicate}");
        }
    });
}
