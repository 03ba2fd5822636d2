//! The trait through which the library reports the progress of long work, and learns that its
//! caller wants no more of it. A terminal, a log or another program implements it.

use std::{fmt, io};

/// Told of work in progress, from several threads.
pub trait Progress: Sync {
    /// A stage begins that will handle `total` bytes; 0 where nobody knows how many.
    fn begin(&self, stage: &str, total: u64);
    /// That many bytes more are done: of the stage, and of the part that this thread works on.
    fn advance(&self, bytes: u64);
    /// The stage is over.
    fn end(&self);
    /// This thread begins a part of the stage: a layer of `total` bytes, 0 where nobody knows.
    fn begin_part(&self, _name: &str, _total: u64) {}
    /// The part of this thread is over.
    fn end_part(&self) {}
    /// Whether the work is to be given up. Asked after each call of [`Self::advance`] from where
    /// bytes are read or written. The work then fails with [`Cancelled`], and leaves nothing
    /// behind.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// The work was given up because [`Progress::is_cancelled`] said so.
#[derive(Debug, Clone, Copy)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled by the caller")
    }
}

impl std::error::Error for Cancelled {}

impl Cancelled {
    /// Whether this is why work failed.
    pub fn is_cause_of(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| {
            let io = cause.downcast_ref::<io::Error>();
            let inner = io.and_then(io::Error::get_ref);
            cause.is::<Self>() || inner.is_some_and(|inner| inner.is::<Self>())
        })
    }
}

impl dyn Progress + '_ {
    /// Reports that many bytes, and goes on unless the work is to be given up.
    pub(crate) fn done(&self, bytes: u64) -> Result<(), Cancelled> {
        self.advance(bytes);
        match self.is_cancelled() {
            true => Err(Cancelled),
            false => Ok(()),
        }
    }
}

/// A part of a stage that runs as long as this lives, on one thread.
pub(crate) struct Part<'a>(&'a dyn Progress);

impl<'a> Part<'a> {
    /// Begins a part on this thread.
    pub fn begin(progress: &'a dyn Progress, name: &str, total: u64) -> Self {
        progress.begin_part(name, total);
        Self(progress)
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        self.0.end_part();
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
