//! The trait through which the library reports the progress of long work. A terminal or a log
//! implements it.

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
}

/// A part of a stage that runs as long as this lives, on one thread.
pub struct Part<'a>(&'a dyn Progress);

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
