//! Repositories, through libostree. A program built without it says so when one is opened.

#[cfg(not(feature = "libostree"))]
mod absent;
#[cfg(feature = "libostree")]
mod contents;
#[cfg(feature = "libostree")]
mod linked;
#[cfg(feature = "libostree")]
mod staging;
#[cfg(feature = "libostree")]
mod transaction;

#[cfg(not(feature = "libostree"))]
pub use absent::{Repository, Transaction, sign_with_libostree, verify_with_libostree};
#[cfg(feature = "libostree")]
pub use linked::{Repository, sign_with_libostree, verify_with_libostree};
#[cfg(feature = "libostree")]
pub use transaction::Transaction;

use super::stored::FileHeader;

/// A content object to be written.
pub struct NewFile<'a> {
    /// All but the content.
    pub header: &'a FileHeader,
    /// The object's checksum, where it is known: another one is an error then.
    pub expected: Option<crate::checksum::Checksum>,
}
