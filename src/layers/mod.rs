//! Decides which entry goes into which layer and writes the layers, in both formats, from one plan.
//! It also goes the other way: layers are read back, into a repository or into memory.

mod assignment;
mod encapsulated;
mod lower;
mod members;
mod merge;
mod nodes;
mod plain;
mod unpack;

pub use assignment::{Assignment, Sharing, component_sizes};
pub use encapsulated::{FormatVersion, write_commit_layer, write_content_layer};
pub use lower::{Compared, LowerLayers, Overlay, write_mending_layer};
pub use members::Source;
pub use merge::{ContentSink, LayerFile, Merged};
pub use nodes::{Node, NodeKind};
pub use plain::write_plain_layer;
pub use unpack::{CommitObject, OBJECTS, unpack_commit_layer, unpack_content_layer};

/// How much of a file is read at once, in bytes.
pub const BUFFER: usize = 256 * 1024;
