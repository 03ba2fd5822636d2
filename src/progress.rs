//! How the library tells of long work. A face (a terminal, a log) implements it.

/// Told of work in progress, from several threads.
pub trait Progress: Sync {
    /// A stage begins that will handle `total` bytes.
    fn begin(&self, stage: &str, total: u64);
    /// That many bytes more are done.
    fn advance(&self, bytes: u64);
    /// The stage is over.
    fn end(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _stage: &str, _total: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
