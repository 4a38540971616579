//! Limits on what actions say, checked in the batches that were read before the kernel looks at them. It compares every
//! table feature with every other one, and every partition column with every column.

use buoyant_kernel::EngineData;
use buoyant_kernel::arrow::array::{Array, ListArray, MapArray, StringArray, StructArray};
use buoyant_kernel::engine::arrow_data::ArrowEngineData;

use super::json_guard::JsonGuard;
use super::log_rejection::LogRejection;
use crate::limits::Limits;

/// Refuses a protocol or a metadata action that lists too much.
pub(super) fn check_names(batch: &dyn EngineData, limits: &Limits) -> Result<(), LogRejection> {
    let Some(batch) = batch.any_ref().downcast_ref::<ArrowEngineData>() else { return Ok(()) };
    let batch = batch.record_batch();
    for action in ["protocol", "metaData"] {
        let Some(action) = batch.column_by_name(action) else { continue };
        let Some(action) = action.as_any().downcast_ref::<StructArray>() else { continue };
        if action.null_count() == action.len() {
            continue;
        }
        for field in action.columns() {
            check_field(field.as_ref(), limits)?;
        }
        if let Some(texts) = action
            .column_by_name("schemaString")
            .and_then(|texts| texts.as_any().downcast_ref::<StringArray>())
        {
            texts.iter().flatten().try_for_each(|text| check_schema(text, limits))?;
        }
    }
    Ok(())
}

fn check_field(field: &dyn Array, limits: &Limits) -> Result<(), LogRejection> {
    let field = field.as_any();
    let offsets = match (field.downcast_ref::<ListArray>(), field.downcast_ref::<MapArray>()) {
        (Some(list), _) => list.value_offsets(),
        (None, Some(map)) => map.value_offsets(),
        (None, None) => {
            let Some(group) = field.downcast_ref::<StructArray>() else { return Ok(()) };
            return group.columns().iter().try_for_each(|field| check_field(field.as_ref(), limits));
        }
    };
    let counts = offsets.iter().zip(offsets.iter().skip(1)).map(|(start, end)| end.saturating_sub(*start));
    match counts.max().is_some_and(|most| usize::try_from(most).is_ok_and(|most| most > limits.log_names)) {
        true => Err(LogRejection::Names),
        false => Ok(()),
    }
}

/// Refuses a schema by its size, before anything of it is parsed: the kernel and this server parse all of it.
pub(super) fn check_schema(text: &str, limits: &Limits) -> Result<(), LogRejection> {
    if text.len() > limits.schema_bytes {
        return Err(LogRejection::Schema);
    }
    // Each column has this key once. If a comment has it too, it counts as one, which does not matter.
    match memchr::memmem::find_iter(text.as_bytes(), b"\"nullable\"").count() > limits.schema_columns {
        true => Err(LogRejection::Schema),
        false => Ok(()),
    }
}

/// Refuses texts of JSON that are nested too deeply or too large, as [`JsonGuard`] does for actions.
pub(super) fn check_texts(batch: &dyn EngineData, limits: &Limits, rows: usize) -> Result<(), LogRejection> {
    let Some(batch) = batch.any_ref().downcast_ref::<ArrowEngineData>() else { return Ok(()) };
    for column in batch.record_batch().columns() {
        let Some(texts) = column.as_any().downcast_ref::<StringArray>() else { continue };
        for text in texts.iter().flatten() {
            JsonGuard::new(limits, rows).count(text.as_bytes())?;
        }
    }
    Ok(())
}
