//! OSTree objects: computed from a tree, read back into one, kept in repositories.

mod commit;
pub mod gvariant;
mod objects;
pub mod parse;
mod repo;
mod sign;
mod stored;

pub use commit::{Commit, CommitInfo, MetadataValue};
pub use objects::{ContentObjects, content_header};
pub use repo::{NewFile, Repository, StoredContents, Transaction};
pub use sign::{PublicKeys, SecretKey, detached_with};
/// How deep directories lie at most: libostree follows them by recursion (ostree-core.h,
/// `OSTREE_MAX_RECURSION`).
pub const MAX_DEPTH: usize = 256;

pub use stored::{FileHeader, FileStore, MetadataKind, ObjectStore, StoredCommit, load_metadata};
