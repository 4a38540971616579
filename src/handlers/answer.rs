//! What a query streams: the two head lines, a line for each file, and the end where it was asked for.

use std::sync::Arc;

use super::head::Head;
use super::lines::FileLines;
use crate::delta::Snapshot;
use crate::error::{Error, Result};
use crate::ndjson::Lines;
use crate::protocol::actions::{EndStreamAction, EndStreamLine};
use crate::protocol::json::write_json;

/// The answer to a snapshot query, before it is written.
pub struct Answer {
    /// The version of the table.
    pub snapshot: Arc<Snapshot>,
    /// The head lines.
    pub head: Head,
    /// The lines of files.
    pub files: FileLines,
    /// Whether an `endStreamAction` ends the answer.
    pub end_stream_action: bool,
}

impl Answer {
    /// Writes the answer in one pass over the log. Blocks on the log's store and on the client.
    pub fn write(mut self, lines: &mut Lines) -> Result<()> {
        for head in self.head.lines(&self.snapshot)? {
            lines.line(|out| {
                out.extend_from_slice(&head);
                Ok(())
            })?;
        }
        let mut any = false;
        for batch in self.snapshot.scan()? {
            let first = !any;
            for file in batch?.files() {
                let file = file?;
                lines.line(|out| self.files.write(&file, out))?;
                any = true;
            }
            if first && any {
                lines.flush()?;
            }
        }
        if self.end_stream_action {
            write_end(lines, any.then(|| self.files.expiration_millis()))?;
        }
        Ok(())
    }
}

/// Writes the `endStreamAction`, with when the first URL ends, where there is one.
pub(super) fn write_end(lines: &mut Lines, min_url_expiration_timestamp: Option<i64>) -> Result<()> {
    let end_stream_action = EndStreamAction { min_url_expiration_timestamp, ..EndStreamAction::default() };
    lines.line(|out| write_json(out, &EndStreamLine { end_stream_action }).map_err(Error::internal))
}
