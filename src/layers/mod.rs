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

pub use assignment::{Assignment, Sharing, component_sizes, possible_duplicates};
pub use encapsulated::{FormatVersion, write_commit_layer, write_content_layer};
pub use lower::{Compared, LowerLayers, Overlay, write_mending_layer};
pub use members::{Source, WrittenContent};
pub use merge::{ContentSink, LayerFile, Merged};
pub use nodes::{Node, NodeKind};
pub use plain::write_plain_layer;
pub use unpack::{CommitObject, NamedFiles, OBJECTS, unpack_commit_layer, unpack_content_layer};

/// How much of a file is read at once, in bytes.
const BUFFER: usize = 256 * 1024;
/// The largest file whose name in an encapsulated commit, which stands before its content, needs no
/// second reading, in bytes. Each thread that writes layers has so much memory for it.
const LARGEST_HELD: usize = 512 * 1024;

/// What a thread reads files through to write layers. Memory that it does not touch it does not
/// take. A byte more than the largest file shows whether that has ended.
pub fn read_buffer() -> Vec<u8> {
    vec![0; LARGEST_HELD + 1]
}
