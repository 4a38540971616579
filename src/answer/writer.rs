//! Writes an answer: its first two lines, a line for each step of a cursor, and its end if the client asked for one.
//! The same for the files of a version and for the changes of a range.

use super::file_line::FileLineWriter;
use super::page::{Page, Place};
use crate::app::{Charge, MemoryAccount};
use crate::error::{Error, Result};
use crate::ndjson::{Lines, Progress};
use crate::protocol::actions::{EndStreamAction, EndStreamLine};
use crate::protocol::json::write_json;

/// What an answer is written from: a cursor, and what turns its items into lines.
pub trait LineCursor: Send + 'static {
    /// A place in the cursor, as page tokens have it.
    type Place: Place;

    /// With how many files the first lines are sent, so that a client has them before the rest is computed.
    const FIRST_FILES: u64;

    /// The first two lines: `protocol` and `metaData`. Called once, before anything else.
    fn head(&mut self) -> Result<[Vec<u8>; 2]>;

    /// Advances the cursor and writes the line of what it finds, if there is one to write.
    fn write_next(&mut self, lines: &mut Lines) -> Result<Step>;

    /// Passes over the next item if the query can do without it; `false` if it cannot, or if the list is complete.
    fn pass_over(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// How many bytes of the log the cursor holds.
    fn held_bytes(&self) -> usize;

    /// What writes the lines of files.
    fn lines(&self) -> &FileLineWriter;

    /// Where the next page begins; `None` if the list is complete.
    fn next_place(&mut self) -> Result<Option<Self::Place>>;

    /// Keeps the cursor with its table for the next page.
    fn pause(self);
}

/// What a step of a cursor came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A file, which counts for its page.
    File,
    /// Something else, with a line or without one.
    Other,
    /// The list is complete.
    End,
}

/// Writes one answer, or one page of it.
pub struct AnswerWriter<S> {
    /// What is written.
    pub cursor: S,
    /// How much of it is wanted.
    pub page: Page,
    /// How it ends.
    pub end: AnswerEnd,
    /// Whether the lines of a full page were sent; `false` at first.
    pub is_flushed: bool,
    /// The account of what the cursor holds in memory.
    pub memory: MemoryAccount,
    /// What counts the bytes of the files.
    pub charge: Charge,
}

/// How an answer ends.
#[derive(Debug, Default)]
pub struct AnswerEnd {
    /// Whether an `endStreamAction` ends it.
    pub action: bool,
    /// The token that asks for the same version again.
    pub refresh_token: Option<String>,
}

impl<S: LineCursor> AnswerWriter<S> {
    /// The function that [`ndjson::stream`](crate::ndjson::stream) calls again and again until the answer is written.
    /// Between two calls, its thread is free for other answers. Blocks on the log's store, and pauses for the client.
    pub fn into_steps(self) -> impl FnMut(&mut Lines) -> Result<Progress> + Send + 'static {
        let (mut writer, mut begun) = (Some(self), false);
        move |lines| {
            let Some(mut this) = writer.take() else {
                return Err(Error::internal("an answer continues after its end"));
            };
            if !begun {
                this.write_head(lines)?;
                begun = true;
            }
            let progress = this.write_lines(lines)?;
            match progress {
                Progress::Paused => writer = Some(this),
                Progress::Whole => this.write_end(lines)?,
            }
            Ok(progress)
        }
    }

    fn write_head(&mut self, lines: &mut Lines) -> Result<()> {
        let head = self.cursor.head()?;
        self.page.check_head(&head)?;
        for line in &head {
            lines.copy(line)?;
        }
        if S::FIRST_FILES == 0 { lines.flush() } else { Ok(()) }
    }

    /// Writes lines until only the end is missing, or until [`Lines::should_pause`].
    fn write_lines(&mut self, lines: &mut Lines) -> Result<Progress> {
        while !self.page.is_full(lines.written()) {
            if lines.should_pause() {
                return Ok(Progress::Paused);
            }
            let step = self.cursor.write_next(lines)?;
            // Before a pause, in which what is held counts.
            self.memory.hold(self.cursor.held_bytes())?;
            match step {
                Step::End => return Ok(Progress::Whole),
                Step::Other => lines.without_line()?,
                Step::File => {
                    self.charge.granted(lines.granted_bytes());
                    self.page.count();
                    if self.page.files() == S::FIRST_FILES {
                        lines.flush()?;
                    }
                }
            }
        }
        // A client that gets the token of another page expects files there.
        while !lines.should_pause() {
            if !self.cursor.pass_over()? {
                return Ok(Progress::Whole);
            }
            if !self.is_flushed {
                // The client can begin with the page meanwhile.
                lines.flush()?;
                self.is_flushed = true;
            }
            self.memory.hold(self.cursor.held_bytes())?;
            lines.without_line()?;
        }
        Ok(Progress::Paused)
    }

    fn write_end(mut self, lines: &mut Lines) -> Result<()> {
        self.charge.settle()?;
        let expires = (self.page.files() > 0).then(|| self.cursor.lines().expiration_millis());
        let Some(place) = self.cursor.next_place()? else {
            return self.end.write(lines, expires, None);
        };
        let next = self.page.next_token(self.cursor.lines().format(), place)?;
        self.cursor.pause();
        self.end.write(lines, expires, Some(&next))
    }
}

impl AnswerEnd {
    /// Writes the `endStreamAction` if there is one. `expires` is when the first URL expires, in milliseconds since the
    /// epoch; `next` is the token of the next page.
    fn write(&self, lines: &mut Lines, expires: Option<i64>, next: Option<&str>) -> Result<()> {
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
