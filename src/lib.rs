//! Turns a Debian root filesystem into an OSTree commit and a chunked OCI image whose layers
//! follow packages.
//!
//! A root filesystem is scanned ([`tree`]), dpkg's database says what is installed ([`dpkg`]), both
//! say to which component each path belongs ([`component`]), and [`plan`] puts components into
//! layers. With the feature `image`, [`image`] does all of that and writes the image, reads one,
//! compares two, and makes commits of them; [`finalize`] makes a system what bootc and OSTree
//! expect.
//!
//! | feature | adds |
//! |---|---|
//! | none | scan a root filesystem and plan its layers, with fewer than 40 crates |
//! | `image` | images and commits, registries (through skopeo) |
//! | `libostree` | repositories: commits stored, images of commits, imports |
//! | `cli` | the program |
//!
//! ```
//! use apt_ostree_helper::plan::{Item, plan};
//!
//! let item = |name: &str, size, chance| Item {
//!     name: name.to_owned(),
//!     size,
//!     chance,
//!     cause: None,
//! };
//! let items = [item("firmware", 90_000_000, 0.01), item("tzdata", 1_000_000, 0.5)];
//! let plan = plan(&items, std::num::NonZeroUsize::MIN.saturating_add(9), None);
//! assert_eq!(plan.layers.len(), 2, "what changes often is kept apart from what does not");
//! ```
//!
//! Errors are [`anyhow::Error`]s that say what was being done and why it failed. What a caller may
//! have to tell apart is a type among their causes: [`image::Failure`] of images and registries,
//! [`tree::Unrepresentable`] of files that no image can hold, [`progress::Cancelled`].
//!
//! Files that are being written are removed when an error or a panic unwinds. A signal is the
//! caller's: the library installs no handlers.

// What only the program needs is not used without it. A build with all features tells of code that
// nobody uses.
#![cfg_attr(
    not(all(feature = "cli", feature = "libostree")),
    allow(dead_code, unused_imports)
)]

#[cfg(feature = "image")]
mod checksum;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod component;
#[cfg(feature = "image")]
mod composefs;
pub mod dpkg;
#[cfg(feature = "image")]
pub mod finalize;
#[cfg(feature = "image")]
mod layers;
mod limits;
#[cfg(feature = "image")]
mod oci;
#[cfg(feature = "image")]
mod ostree;
mod parallel;
#[cfg(feature = "image")]
mod pipeline;
pub mod plan;
#[cfg(feature = "image")]
mod process;
pub mod progress;
#[cfg(feature = "image")]
mod registry;
mod remedy;
#[cfg(feature = "cli")]
mod report;
#[cfg(feature = "image")]
mod source;
pub mod tree;
#[cfg(feature = "image")]
mod uki;
#[cfg(feature = "image")]
mod undo;

/// Images: made of root filesystems and commits, read, compared, and made commits of.
///
/// [`build`](image::build) makes one, by [`RootfsOptions`](image::RootfsOptions) and
/// [`ImageOptions`](image::ImageOptions); [`inspect`](image::inspect) says what is in one;
/// [`Difference`](image::Difference) is what an update costs.
#[cfg(feature = "image")]
pub mod image {
    pub use crate::layers::FormatVersion;
    pub use crate::oci::{BaseConfig, Compression, Platform};
    pub use crate::ostree::{MetadataValue, PublicKeys, SecretKey};
    pub use crate::pipeline::{
        Built, Change, ChangedPackage, ChangedSource, ChangelogEntry, CommitOptions, Committed,
        ComponentChange, ContentMetadata, Cost, Difference, DryRun, Explained, FetchedLayer,
        FileOwners, FileTimes, Format, ImageComponent, ImageFile, ImageOptions, ImportOptions,
        Imported, Inspected, InspectedImage, InspectedLayer, InspectedPackage, LayerOptions,
        LayerSummary, Lower, LowerImage, Owner, Parent, Place, PlanFile, Previous, RootfsOptions,
        StoreOptions, build, commit, dry_run, encapsulate, import, inspect,
    };
    pub use crate::registry::{
        Access, Credentials, Description, Destination, Failure, FailureKind, Reference,
        RegistryName, check_writable, describe,
    };
}
