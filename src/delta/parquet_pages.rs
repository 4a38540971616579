//! What the pages of a column unpack into.

use std::io::Read as _;
use std::sync::Arc;

use buoyant_kernel::parquet::basic::{Compression, Encoding, Type};
use buoyant_kernel::parquet::column::page::{Page, PageReader as _};
use buoyant_kernel::parquet::file::metadata::ColumnChunkMetaData;
use buoyant_kernel::parquet::file::serialized_reader::SerializedPageReader;
use buoyant_kernel::parquet::schema::types::ColumnDescPtr;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::log_rejection::LogRejection;
use super::thrift::{self, Value};
use crate::limits::Limits;

/// The most bytes that DEFLATE unpacks one byte into, rounded up.
const GZIP_RATIO: u64 = 1_040;

/// The same of LZ4's frames.
const LZ4_RATIO: u64 = 256;

const LZ4_FRAME: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// What a value takes beside its bytes: its offset and its levels.
const VALUE_BYTES: u64 = 8;

/// A column of a row group, as its footer describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    schema: ColumnDescPtr,
    compression: Compression,
}

/// The header of a page, as far as it says what the page unpacks into.
#[derive(Debug, Default, Clone, Copy)]
struct Header {
    page_type: i32,
    unpacked: i32,
    packed: i32,
    values: i32,
    encoding: i32,
}

/// A page with values.
struct Values {
    count: u64,
    bytes: u64,
    encoding: i32,
}

mod page_type {
    pub(super) const DATA: i32 = 0;
    pub(super) const DICTIONARY: i32 = 2;
    pub(super) const DATA_V2: i32 = 3;
}

mod encoding {
    pub(super) const PLAIN_DICTIONARY: i32 = 2;
    pub(super) const DELTA_LENGTH: i32 = 6;
    pub(super) const DELTA_BYTES: i32 = 7;
    pub(super) const DICTIONARY: i32 = 8;
}

impl Column {
    pub(super) fn new(column: &ColumnChunkMetaData) -> Self {
        Self { schema: column.column_descr_ptr(), compression: column.compression() }
    }

    /// The most bytes that a batch of rows takes of this column.
    pub(super) fn cost(&self, column: &Bytes, batch_rows: u64, limits: &Limits) -> Result<u64, LogRejection> {
        let (mut pages, mut dictionary, mut deltas) = (Vec::new(), None, false);
        let mut at = 0;
        while at < column.len() {
            let rest = column.get(at..).unwrap_or_default();
            let (length, header) = Header::read(rest)?;
            let unpacked = u64::try_from(header.unpacked).map_err(|_| LogRejection::Malformed)?;
            let packed = usize::try_from(header.packed).map_err(|_| LogRejection::Malformed)?;
            let count = u64::try_from(header.values).map_err(|_| LogRejection::Malformed)?;
            let body = rest.get(length..length + packed).ok_or(LogRejection::Malformed)?;
            if unpacked > limits.parquet_page_bytes {
                return Err(LogRejection::Page);
            }
            self.check_codec(body, limits)?;
            match header.page_type {
                page_type::DICTIONARY => {
                    // The reader makes room for as many values as the header claims.
                    if count > unpacked.max(packed as u64) {
                        return Err(LogRejection::Malformed);
                    }
                    dictionary = Some((unpacked, at..at + length + packed));
                }
                page_type::DATA | page_type::DATA_V2 => {
                    deltas |= matches!(header.encoding, encoding::DELTA_LENGTH | encoding::DELTA_BYTES);
                    pages.push(Values {
                        count,
                        bytes: unpacked.max(packed as u64),
                        encoding: header.encoding,
                    });
                }
                _ => {}
            }
            at += length + packed;
        }
        if deltas {
            self.check_deltas(column)?;
        }
        // How large a dictionary's values are is looked at only if all of them being the largest would be too much.
        let mut longest = match (self.width(), &dictionary) {
            (Some(width), _) => width,
            (None, Some((bytes, _))) => *bytes,
            (None, None) => 0,
        };
        let mut cost = self.batch(&pages, longest, batch_rows);
        if cost > limits.log_batch_bytes / 16
            && self.width().is_none()
            && let Some((_, range)) = dictionary
        {
            longest = self.longest_value(column.slice(range))?;
            cost = self.batch(&pages, longest, batch_rows);
        }
        if cost > limits.log_batch_bytes && self.schema.max_rep_level() > 0 {
            cost = self.batch_by_rows(column, &pages, longest, batch_rows)?;
        }
        Ok(cost)
    }

    /// The bytes of each value, if they are the same for all.
    fn width(&self) -> Option<u64> {
        match self.schema.physical_type() {
            Type::BYTE_ARRAY => None,
            Type::FIXED_LEN_BYTE_ARRAY => Some(u64::try_from(self.schema.type_length()).unwrap_or(0)),
            Type::INT96 => Some(16),
            _ => Some(8),
        }
    }

    /// Some codecs unpack whatever there is, however little the header claims.
    fn check_codec(&self, body: &[u8], limits: &Limits) -> Result<(), LogRejection> {
        let most = limits.parquet_page_bytes;
        match self.compression {
            Compression::GZIP(_) if body.len() as u64 * GZIP_RATIO > most => {
                let mut unpacked = MultiGzDecoder::new(body).take(most + 1);
                match std::io::copy(&mut unpacked, &mut std::io::sink()) {
                    Ok(bytes) if bytes > most => Err(LogRejection::Page),
                    Ok(_) => Ok(()),
                    Err(_) => Err(LogRejection::Malformed),
                }
            }
            Compression::LZ4 if body.starts_with(&LZ4_FRAME) && body.len() as u64 * LZ4_RATIO > most => {
                Err(LogRejection::Page)
            }
            Compression::BROTLI(_) => Err(LogRejection::Codec),
            _ => Ok(()),
        }
    }

    fn cost_of(&self, page: &Values, count: u64, longest: u64) -> u64 {
        let each = match (self.width(), page.encoding) {
            (Some(width), _) => width,
            (None, encoding::PLAIN_DICTIONARY | encoding::DICTIONARY) => longest,
            // A value may repeat what the one before it begins with.
            (None, encoding::DELTA_BYTES) => page.bytes,
            (None, _) => return page.bytes.saturating_add(count.saturating_mul(VALUE_BYTES)),
        };
        count.saturating_mul(each.saturating_add(VALUE_BYTES))
    }

    /// The most that consecutive pages take of which a batch may have values. If rows have many values each, all of them.
    fn batch(&self, pages: &[Values], longest: u64, batch_rows: u64) -> u64 {
        if self.schema.max_rep_level() > 0 {
            return pages
                .iter()
                .fold(0, |sum, page| sum.saturating_add(self.cost_of(page, page.count, longest)));
        }
        let cost = |page: &Values| self.cost_of(page, page.count.min(batch_rows), longest);
        let (mut most, mut sum, mut between, mut first) = (0_u64, 0_u64, 0_u64, 0);
        for (at, page) in pages.iter().enumerate() {
            sum = sum.saturating_add(cost(page));
            most = most.max(sum);
            // A batch that reaches beyond this page has all the values between its first page and the next one.
            if at > first {
                between = between.saturating_add(page.count);
            }
            while between >= batch_rows && first < at {
                sum = sum.saturating_sub(pages.get(first).map_or(0, cost));
                first += 1;
                between = between.saturating_sub(pages.get(first).map_or(0, |page| page.count));
            }
        }
        most
    }

    fn reader(&self, bytes: Bytes) -> Result<SerializedPageReader<Bytes>, LogRejection> {
        let length = i64::try_from(bytes.len()).map_err(|_| LogRejection::Malformed)?;
        let column = ColumnChunkMetaData::builder(Arc::clone(&self.schema))
            .set_compression(self.compression)
            .set_num_values(i64::MAX)
            .set_total_compressed_size(length)
            .set_data_page_offset(0)
            .build()
            .map_err(|_| LogRejection::Malformed)?;
        SerializedPageReader::new(Arc::new(bytes), &column, 0, None).map_err(|_| LogRejection::Malformed)
    }

    /// The length of a dictionary's longest value.
    fn longest_value(&self, page: Bytes) -> Result<u64, LogRejection> {
        let page = self.reader(page)?.get_next_page().map_err(|_| LogRejection::Malformed)?;
        let Some(Page::DictionaryPage { buf, .. }) = page else { return Err(LogRejection::Malformed) };
        let (mut rest, mut longest) = (&buf[..], 0);
        while let Some((length, values)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length);
            longest = longest.max(u64::from(length));
            let Some(next) = usize::try_from(length).ok().and_then(|length| values.get(length..)) else {
                break;
            };
            rest = next;
        }
        Ok(longest)
    }

    /// The reader makes room for as many lengths as a page of delta-encoded texts claims.
    fn check_deltas(&self, column: &Bytes) -> Result<(), LogRejection> {
        let mut reader = self.reader(column.clone())?;
        while let Some(page) = reader.get_next_page().map_err(|_| LogRejection::Malformed)? {
            let strings = page.encoding() == Encoding::DELTA_BYTE_ARRAY;
            if !strings && page.encoding() != Encoding::DELTA_LENGTH_BYTE_ARRAY {
                continue;
            }
            let most = u64::from(page.num_values());
            let levels = Levels::of(&page, &self.schema)?;
            let values = page.buffer().get(levels.bytes..).ok_or(LogRejection::Malformed)?;
            let after = skip_deltas(values, most)?;
            if strings {
                skip_deltas(after, most)?;
            }
        }
        Ok(())
    }

    /// The same as [`Self::batch`] if rows have many values each: counts the values of every batch.
    fn batch_by_rows(
        &self,
        column: &Bytes,
        pages: &[Values],
        longest: u64,
        batch_rows: u64,
    ) -> Result<u64, LogRejection> {
        let mut reader = self.reader(column.clone())?;
        let (mut most, mut batch, mut rows) = (0_u64, 0_u64, 0_u64);
        let mut pages = pages.iter();
        while let Some(page) = reader.get_next_page().map_err(|_| LogRejection::Malformed)? {
            if page.is_dictionary_page() {
                continue;
            }
            let values = pages.next().ok_or(LogRejection::Malformed)?;
            let (whole, each) = match self.cost_of(values, 0, longest) {
                0 => (0, self.cost_of(values, 1, longest)),
                whole => (whole, VALUE_BYTES),
            };
            batch = batch.saturating_add(whole);
            let levels = Levels::of(&page, &self.schema)?;
            let mut left = values.count;
            levels.runs(&page, &mut |level, count| {
                let mut count = count.min(left);
                left -= count;
                while count > 0 {
                    // A row begins with level 0, so a batch ends where the next one would have one row too many.
                    if level == 0 && rows == batch_rows {
                        most = most.max(batch);
                        (batch, rows) = (whole, 0);
                    }
                    let now = if level == 0 { count.min(batch_rows - rows) } else { count };
                    rows += if level == 0 { now } else { 0 };
                    batch = batch.saturating_add(now.saturating_mul(each));
                    count -= now;
                }
            })?;
        }
        Ok(most.max(batch))
    }
}

impl Header {
    fn read(bytes: &[u8]) -> Result<(usize, Self), LogRejection> {
        let mut header = Self::default();
        let length = thrift::walk(bytes, thrift::PAGE, &mut |path, met| {
            if let Value::Int(value) = met {
                // The reader drops the upper half, too.
                let value = value as i32;
                match path {
                    [1] => header.page_type = value,
                    [2] => header.unpacked = value,
                    [3] => header.packed = value,
                    [5 | 7 | 8, 1] => header.values = header.values.max(value),
                    [5 | 7, 2] | [8, 4] => header.encoding = value,
                    _ => {}
                }
            }
            Ok(())
        })?;
        Ok((length, header))
    }
}

/// Where the levels of a page lie.
struct Levels {
    repetition: std::ops::Range<usize>,
    /// Of both kinds of levels together.
    bytes: usize,
    bits: u32,
}

impl Levels {
    fn of(page: &Page, schema: &ColumnDescPtr) -> Result<Self, LogRejection> {
        let bits = |level: i16| u16::BITS - level.unsigned_abs().leading_zeros();
        let (repetition, definition) = (schema.max_rep_level(), schema.max_def_level());
        let own = bits(repetition);
        match page {
            Page::DataPageV2 { rep_levels_byte_len, def_levels_byte_len, .. } => {
                let (repetition, definition) = (*rep_levels_byte_len as usize, *def_levels_byte_len as usize);
                Ok(Self { repetition: 0..repetition, bytes: repetition + definition, bits: own })
            }
            Page::DataPage { buf, num_values, def_level_encoding, rep_level_encoding, .. } => {
                let section = |at: usize,
                               level: i16,
                               encoding: Encoding|
                 -> Result<std::ops::Range<usize>, LogRejection> {
                    if level == 0 {
                        return Ok(at..at);
                    }
                    match encoding {
                        Encoding::RLE => {
                            let length = buf.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
                            let length = u32::from_le_bytes(*length.ok_or(LogRejection::Malformed)?) as usize;
                            Ok(at + 4..at + 4 + length)
                        }
                        _ => {
                            let bits = u64::from(*num_values) * u64::from(bits(level));
                            let length =
                                usize::try_from(bits.div_ceil(8)).map_err(|_| LogRejection::Malformed)?;
                            Ok(at..at + length)
                        }
                    }
                };
                let repetition_at = section(0, repetition, *rep_level_encoding)?;
                let definition_at = section(repetition_at.end, definition, *def_level_encoding)?;
                let bits = if *rep_level_encoding == Encoding::RLE { own } else { 0 };
                Ok(Self { repetition: repetition_at, bytes: definition_at.end, bits })
            }
            Page::DictionaryPage { .. } => Err(LogRejection::Malformed),
        }
    }

    /// The runs of equal levels of repetition.
    fn runs(&self, page: &Page, run: &mut dyn FnMut(u64, u64)) -> Result<(), LogRejection> {
        // The old encoding, which no writer of a log uses.
        if self.bits == 0 {
            return Err(LogRejection::Malformed);
        }
        let levels = page.buffer().get(self.repetition.clone()).ok_or(LogRejection::Malformed)?;
        let mut rest = levels;
        while !rest.is_empty() {
            let head = varint(&mut rest)?;
            if head & 1 == 0 {
                let bytes = (self.bits as usize).div_ceil(8);
                let (value, after) = rest.split_at_checked(bytes).ok_or(LogRejection::Malformed)?;
                rest = after;
                run(value.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)), head >> 1);
            } else {
                let groups = usize::try_from(head >> 1).map_err(|_| LogRejection::Malformed)?;
                let bytes = groups.saturating_mul(self.bits as usize).min(rest.len());
                let (packed, after) = rest.split_at(bytes);
                rest = after;
                for at in 0..bytes * 8 / self.bits as usize {
                    let bit =
                        |at: usize| packed.get(at / 8).map_or(0, |byte| u64::from(byte >> (at % 8) & 1));
                    let first = at * self.bits as usize;
                    run((0..self.bits as usize).fold(0, |value, of| value | bit(first + of) << of), 1);
                }
            }
        }
        Ok(())
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, LogRejection> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(LogRejection::Malformed)?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(LogRejection::Malformed)
}

/// Passes over numbers that are encoded as differences, of which there are at most `most`, and returns what follows.
fn skip_deltas(mut rest: &[u8], most: u64) -> Result<&[u8], LogRejection> {
    let block = varint(&mut rest)?;
    let parts = varint(&mut rest)?;
    let count = varint(&mut rest)?;
    varint(&mut rest)?;
    if count > most || parts == 0 || block > 1 << 20 || block / parts == 0 {
        return Err(LogRejection::Malformed);
    }
    let (parts, each) = (usize::try_from(parts).map_err(|_| LogRejection::Malformed)?, block / parts);
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(&mut rest)?;
        let (widths, after) = rest.split_at_checked(parts).ok_or(LogRejection::Malformed)?;
        rest = after;
        for &width in widths {
            if left == 0 {
                break;
            }
            let bytes = usize::try_from(u64::from(width) * each / 8).map_err(|_| LogRejection::Malformed)?;
            rest = rest.get(bytes.min(rest.len())..).unwrap_or_default();
            left = left.saturating_sub(each);
        }
    }
    Ok(rest)
}
