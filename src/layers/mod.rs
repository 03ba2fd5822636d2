//! Which entry stands in which layer, and the layers written: both formats, from one plan.

mod assignment;
mod encapsulated;
mod members;
mod plain;

pub use assignment::{Assignment, component_sizes};
pub use encapsulated::{FormatVersion, write_commit_layer, write_content_layer};
pub use members::Source;
pub use plain::write_plain_layer;

/// How much of a file is read at once, in bytes.
pub const BUFFER: usize = 256 * 1024;
