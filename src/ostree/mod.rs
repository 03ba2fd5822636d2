//! OSTree objects computed from a tree: content checksums, dirmeta, dirtree and commit objects.

mod commit;
pub mod gvariant;
mod objects;

pub use commit::{Commit, CommitInfo, MetadataValue};
pub use objects::ContentObjects;
