//! What a query of a version streams: the two head lines, a line for each file, and the end where it was
//! asked for.

use super::head::Head;
use super::lines::FileLines;
use super::pages::{FilesPlace, Page};
use crate::app::Memory;
use crate::delta::{DeltaTable, FileCursor, FileStats};
use crate::error::{Error, Result};
use crate::ndjson::{Lines, Progress};
use crate::protocol::actions::{EndStreamAction, EndStreamLine};
use crate::protocol::json::write_json;

/// The first lines are sent when there are this many, so that a client has them before the rest is computed.
const FIRST_FILES: u64 = 64;

/// The answer to a snapshot query, before it is written.
pub struct Answer {
    /// The table, which keeps what the next page needs.
    pub table: DeltaTable,
    /// The files.
    pub files: FileCursor,
    /// The number of files and their bytes, where a page before this one told them.
    pub stats: Option<FileStats>,
    /// The head lines.
    pub head: Head,
    /// The lines of files.
    pub lines: FileLines,
    /// The account of what the cursor holds.
    pub memory: Memory,
    /// How much of the list is wanted.
    pub page: Page,
    /// How it ends.
    pub end: End,
}

/// How an answer ends.
#[derive(Debug, Default)]
pub struct End {
    /// Whether an `endStreamAction` ends it.
    pub action: bool,
    /// What asks for the same version again.
    pub refresh_token: Option<String>,
}

/// An answer that is written in steps. Between them, its thread is free for other answers.
pub(super) trait Steps: Send + 'static {
    /// Writes the first lines. Called once.
    fn begin(&mut self, lines: &mut Lines) -> Result<()>;

    /// Writes lines until only the end is missing, or until [`Lines::should_pause`].
    fn go_on(&mut self, lines: &mut Lines) -> Result<Progress>;

    /// Writes the last lines.
    fn end(self, lines: &mut Lines) -> Result<()>;
}

/// The function that [`ndjson::stream`](crate::ndjson::stream) calls for each step of an answer.
pub(super) fn in_steps(answer: impl Steps) -> impl FnMut(&mut Lines) -> Result<Progress> + Send + 'static {
    let (mut going, mut begun) = (Some(answer), false);
    move |lines| {
        let Some(mut answer) = going.take() else {
            return Err(Error::internal("an answer goes on after its end"));
        };
        if !begun {
            answer.begin(lines)?;
            begun = true;
        }
        let progress = answer.go_on(lines)?;
        match progress {
            Progress::Paused => going = Some(answer),
            Progress::Whole => answer.end(lines)?,
        }
        Ok(progress)
    }
}

impl Answer {
    /// Writes the answer in one pass over the log. Blocks on the log's store, and pauses for the client.
    pub fn into_writer(self) -> impl FnMut(&mut Lines) -> Result<Progress> + Send + 'static {
        in_steps(self)
    }
}

impl Steps for Answer {
    fn begin(&mut self, lines: &mut Lines) -> Result<()> {
        if self.stats.is_none() {
            self.stats = self.head.stats(self.files.snapshot())?;
        }
        let head = self.head.lines(self.files.snapshot(), self.stats)?;
        self.page.check_head(&head)?;
        write_head(lines, &head)
    }

    fn go_on(&mut self, lines: &mut Lines) -> Result<Progress> {
        while !self.page.is_full(lines.written()) {
            let Some(file) = self.files.advance()? else { break };
            let (bytes, until) = (file.size.unsigned_abs(), self.lines.expiration_millis());
            lines.file(bytes, until, |out| self.lines.write(&file, out))?;
            self.page.count();
            if self.page.files() == FIRST_FILES {
                lines.flush()?;
            }
            // Before a pause, in which what is held counts.
            self.memory.hold(self.files.held_bytes())?;
            if lines.should_pause() {
                return Ok(Progress::Paused);
            }
        }
        Ok(Progress::Whole)
    }

    fn end(mut self, lines: &mut Lines) -> Result<()> {
        let expires = (self.page.files() > 0).then(|| self.lines.expiration_millis());
        if !self.files.has_more()? {
            return self.end.write(lines, expires, None);
        }
        let place = FilesPlace {
            origin: self.files.origin().clone(),
            position: self.files.position(),
            stats: self.stats,
        };
        let next = self.page.next_token(self.head.format, place)?;
        self.table.pause_files(self.files);
        self.end.write(lines, expires, Some(&next))
    }
}

/// Writes the first two lines.
pub(super) fn write_head(lines: &mut Lines, head: &[Vec<u8>; 2]) -> Result<()> {
    for head in head {
        lines.line(|out| {
            out.extend_from_slice(head);
            Ok(())
        })?;
    }
    Ok(())
}

impl End {
    /// Writes the `endStreamAction` where there is one. `expires` is when the first URL ends, in milliseconds
    /// since the epoch; `next` is the token of the next page.
    pub(super) fn write(&self, lines: &mut Lines, expires: Option<i64>, next: Option<&str>) -> Result<()> {
        if !self.action {
            return Ok(());
        }
        let end_stream_action = EndStreamAction {
            refresh_token: self.refresh_token.as_deref(),
            next_page_token: next,
            min_url_expiration_timestamp: expires,
            ..EndStreamAction::default()
        };
        lines.line(|out| write_json(out, &EndStreamLine { end_stream_action }).map_err(Error::internal))
    }
}
