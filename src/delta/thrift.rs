//! Walks the Thrift structures of a Parquet file without recursion, before the Parquet reader parses them.
//!
//! The reader parses recursively, believes the counts that it reads, and takes a field that it knows for what it should
//! be, whatever type the bytes say. So a field that is known here must have its type, a count must fit into the bytes
//! that are left, and what no Parquet file has (maps, lists of booleans) is refused.

use super::log_rejection::LogRejection;

/// The most structures and lists in each other. Parquet's own have fewer than ten.
const DEEPEST: usize = 32;

/// The type of a field.
pub(super) enum Kind {
    Bool,
    Byte,
    /// Whole numbers of any width, and enumerations, which are all written alike.
    Int,
    Double,
    Binary,
    List(&'static Self),
    Struct(Fields),
}

/// The fields of a structure, by their ids.
pub(super) type Fields = &'static [(i16, Kind)];

const EMPTY: Kind = Kind::Struct(&[]);
const TIME: Kind = Kind::Struct(&[(1, Kind::Bool), (2, Kind::Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);

const LOGICAL_TYPE: Kind = Kind::Struct(&[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Kind::Struct(&[(1, Kind::Int), (2, Kind::Int)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Kind::Struct(&[(1, Kind::Byte), (2, Kind::Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Kind::Struct(&[(1, Kind::Byte)])),
    (17, Kind::Struct(&[(1, Kind::Binary)])),
    (18, Kind::Struct(&[(1, Kind::Binary), (2, Kind::Int)])),
]);

const SCHEMA_ELEMENT: Kind = Kind::Struct(&[
    (1, Kind::Int),
    (2, Kind::Int),
    (3, Kind::Int),
    (4, Kind::Binary),
    (5, Kind::Int),
    (6, Kind::Int),
    (7, Kind::Int),
    (8, Kind::Int),
    (9, Kind::Int),
    (10, LOGICAL_TYPE),
]);

const STATISTICS: Kind = Kind::Struct(&[
    (1, Kind::Binary),
    (2, Kind::Binary),
    (3, Kind::Int),
    (4, Kind::Int),
    (5, Kind::Binary),
    (6, Kind::Binary),
    (7, Kind::Bool),
    (8, Kind::Bool),
]);

const KEY_VALUE: Kind = Kind::Struct(&[(1, Kind::Binary), (2, Kind::Binary)]);

const COLUMN: Kind = Kind::Struct(&[
    (1, Kind::Int),
    (2, Kind::List(&Kind::Int)),
    (3, Kind::List(&Kind::Binary)),
    (4, Kind::Int),
    (5, Kind::Int),
    (6, Kind::Int),
    (7, Kind::Int),
    (8, Kind::List(&KEY_VALUE)),
    (9, Kind::Int),
    (10, Kind::Int),
    (11, Kind::Int),
    (12, STATISTICS),
    (13, Kind::List(&Kind::Struct(&[(1, Kind::Int), (2, Kind::Int), (3, Kind::Int)]))),
    (14, Kind::Int),
    (15, Kind::Int),
    (16, Kind::Struct(&[(1, Kind::Int), (2, Kind::List(&Kind::Int)), (3, Kind::List(&Kind::Int))])),
    (
        17,
        Kind::Struct(&[
            (
                1,
                Kind::Struct(&[
                    (1, Kind::Double),
                    (2, Kind::Double),
                    (3, Kind::Double),
                    (4, Kind::Double),
                    (5, Kind::Double),
                    (6, Kind::Double),
                    (7, Kind::Double),
                    (8, Kind::Double),
                ]),
            ),
            (2, Kind::List(&Kind::Int)),
        ]),
    ),
]);

const COLUMN_CHUNK: Kind = Kind::Struct(&[
    (1, Kind::Binary),
    (2, Kind::Int),
    (3, COLUMN),
    (4, Kind::Int),
    (5, Kind::Int),
    (6, Kind::Int),
    (7, Kind::Int),
    (9, Kind::Binary),
]);

const ROW_GROUP: Kind = Kind::Struct(&[
    (1, Kind::List(&COLUMN_CHUNK)),
    (2, Kind::Int),
    (3, Kind::Int),
    (4, Kind::List(&Kind::Struct(&[(1, Kind::Int), (2, Kind::Bool), (3, Kind::Bool)]))),
    (5, Kind::Int),
    (6, Kind::Int),
    (7, Kind::Int),
]);

/// The footer of a Parquet file (`FileMetaData`).
pub(super) const FILE: Fields = &[
    (1, Kind::Int),
    (2, Kind::List(&SCHEMA_ELEMENT)),
    (3, Kind::Int),
    (4, Kind::List(&ROW_GROUP)),
    (5, Kind::List(&KEY_VALUE)),
    (6, Kind::Binary),
    (7, Kind::List(&Kind::Struct(&[(1, EMPTY), (2, EMPTY)]))),
    (9, Kind::Binary),
];

/// The header of a page (`PageHeader`).
pub(super) const PAGE: Fields = &[
    (1, Kind::Int),
    (2, Kind::Int),
    (3, Kind::Int),
    (4, Kind::Int),
    (5, Kind::Struct(&[(1, Kind::Int), (2, Kind::Int), (3, Kind::Int), (4, Kind::Int), (5, STATISTICS)])),
    (6, EMPTY),
    (7, Kind::Struct(&[(1, Kind::Int), (2, Kind::Int), (3, Kind::Bool)])),
    (
        8,
        Kind::Struct(&[
            (1, Kind::Int),
            (2, Kind::Int),
            (3, Kind::Int),
            (4, Kind::Int),
            (5, Kind::Int),
            (6, Kind::Int),
            (7, Kind::Bool),
            (8, STATISTICS),
        ]),
    ),
];

/// What is met on the way, with the ids of the fields that lead to it; places in lists do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Int(i64),
    /// A list of so many elements begins.
    List(usize),
    /// A structure ends.
    End,
}

/// What is called with everything that is met.
pub(super) type Visit<'a> = dyn FnMut(&[i16], Value) -> Result<(), LogRejection> + 'a;

/// Walks one structure at the beginning of `bytes` and returns its length.
pub(super) fn walk(bytes: &[u8], fields: Fields, met: &mut Visit<'_>) -> Result<usize, LogRejection> {
    let mut input = Input { bytes, at: 0 };
    let mut open = vec![Level::Struct { fields: Some(fields), last: 0 }];
    // One id for each open structure.
    let mut path = vec![0_i16];
    while let Some(top) = open.last_mut() {
        let (wire, kind, in_list) = match top {
            Level::Struct { fields, last } => {
                let head = input.byte()?;
                if head & 0x0f == 0 {
                    open.pop();
                    path.pop();
                    met(&path, Value::End)?;
                    continue;
                }
                let id = match head >> 4 {
                    0 => i16::try_from(zigzag(input.varint()?)),
                    delta => Ok(last.checked_add(i16::from(delta)).ok_or(LogRejection::Malformed)?),
                };
                let id = id.map_err(|_| LogRejection::Malformed)?;
                *last = id;
                if let Some(current) = path.last_mut() {
                    *current = id;
                }
                let kind = fields
                    .and_then(|fields| fields.iter().find(|(known, _)| *known == id).map(|(_, kind)| kind));
                (head & 0x0f, kind, false)
            }
            Level::List { left: 0, .. } => {
                open.pop();
                continue;
            }
            Level::List { wire, kind, left } => {
                *left -= 1;
                (*wire, *kind, true)
            }
        };
        if kind.is_some_and(|kind| !kind.is(wire)) {
            return Err(LogRejection::Malformed);
        }
        match wire {
            1 | 2 if !in_list => {}
            3 => input.skip(1)?,
            4..=6 => met(&path, Value::Int(zigzag(input.varint()?)))?,
            7 => input.skip(8)?,
            8 => {
                let length = usize::try_from(input.varint()?).map_err(|_| LogRejection::Malformed)?;
                input.skip(length)?;
            }
            9 | 10 => {
                let head = input.byte()?;
                let count = match head >> 4 {
                    15 => usize::try_from(input.varint()?).map_err(|_| LogRejection::Malformed)?,
                    count => usize::from(count),
                };
                if count > input.left() {
                    return Err(LogRejection::Malformed);
                }
                met(&path, Value::List(count))?;
                let kind = match kind {
                    Some(Kind::List(kind)) => Some(*kind),
                    _ => None,
                };
                open.push(Level::List { wire: head & 0x0f, kind, left: count });
            }
            12 => {
                let fields = match kind {
                    Some(Kind::Struct(fields)) => Some(*fields),
                    _ => None,
                };
                open.push(Level::Struct { fields, last: 0 });
                path.push(0);
            }
            _ => return Err(LogRejection::Malformed),
        }
        if open.len() > DEEPEST {
            return Err(LogRejection::TooDeep);
        }
    }
    Ok(input.at)
}

enum Level {
    Struct { fields: Option<Fields>, last: i16 },
    List { wire: u8, kind: Option<&'static Kind>, left: usize },
}

impl Kind {
    fn is(&self, wire: u8) -> bool {
        match self {
            Self::Bool => matches!(wire, 1 | 2),
            Self::Byte => wire == 3,
            Self::Int => matches!(wire, 4..=6),
            Self::Double => wire == 7,
            Self::Binary => wire == 8,
            Self::List(_) => wire == 9,
            Self::Struct(_) => wire == 12,
        }
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn byte(&mut self) -> Result<u8, LogRejection> {
        let byte = self.bytes.get(self.at).copied().ok_or(LogRejection::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), LogRejection> {
        if bytes > self.left() {
            return Err(LogRejection::Malformed);
        }
        self.at += bytes;
        Ok(())
    }

    /// A number of at most ten bytes, seven bits in each.
    fn varint(&mut self) -> Result<u64, LogRejection> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(LogRejection::Malformed)
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(bytes: &[u8], fields: Fields) -> Result<Vec<(Vec<i16>, i64)>, LogRejection> {
        let mut found = Vec::new();
        walk(bytes, fields, &mut |path, met| {
            if let Value::Int(value) = met {
                found.push((path.to_vec(), value));
            }
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn numbers_are_found_with_the_way_to_them() {
        // 1: -1, 5: { 1: 300, 2: 2 }, and an unknown field 9 of two texts.
        let bytes =
            [0x15, 0x01, 0x4c, 0x15, 0xd8, 0x04, 0x15, 0x04, 0x00, 0x49, 0x28, 1, b'a', 0, 0x00, 0xff];
        assert_eq!(ints(&bytes, PAGE).unwrap(), [(vec![1], -1), (vec![5, 1], 300), (vec![5, 2], 2)]);
        assert_eq!(walk(&bytes, PAGE, &mut |_, _| Ok(())), Ok(bytes.len() - 1));
    }

    #[test]
    fn what_the_reader_would_take_for_something_else_is_refused() {
        let deep = [[0x1c].repeat(40), [0].repeat(41)].concat();
        for (bytes, refused) in [
            (&[0x1c, 0x00, 0x00][..], LogRejection::Malformed), // a structure for a number
            (&[0x18, 0x01, 0x00, 0x00], LogRejection::Malformed), // a text for a number
            (&[0xf9, 0xf5, 0xff, 0xff, 0xff, 0x0f, 0], LogRejection::Malformed), // a list longer than the bytes
            (&[0xf9, 0x21, 1, 1, 0], LogRejection::Malformed),                   // a list of booleans
            (&[0xfb, 0x01, 0x55, 0, 0, 0], LogRejection::Malformed),             // a map
            (&[0xf8, 0xff, 0xff, 0xff, 0xff, 0x0f, 0], LogRejection::Malformed), // a text longer than the bytes
            (&[0x15], LogRejection::Malformed),
            (&[], LogRejection::Malformed),
            (&[[0xfc].as_slice(), &deep].concat(), LogRejection::TooDeep),
        ] {
            assert_eq!(ints(bytes, PAGE), Err(refused), "{bytes:x?}");
        }
    }
}
