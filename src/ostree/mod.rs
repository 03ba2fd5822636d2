//! OSTree objects: computed from a tree, read back into one, kept in repositories.

mod commit;
mod content_cache;
mod extent;
pub mod gvariant;
mod imported_layers;
mod objects;
pub mod parse;
mod repo;
mod sign;
mod stored;

pub use commit::{Commit, CommitInfo, MetadataValue};
pub use content_cache::ContentCache;
pub use extent::check_extent;
pub use imported_layers::ImportedLayers;
pub use objects::{
    ContentObjects, KnownObjects, ObjectHasher, content_checksum, content_header_of,
};
pub use repo::{NewFile, Repository, Transaction};
pub use sign::{PublicKeys, SecretKey, detached_with};
pub use stored::{FileHeader, MetadataKind, ObjectStore, StoredCommit, load_metadata};
