//! Turns a Debian root filesystem into an OSTree commit and a chunked OCI image whose layers
//! follow packages.
//!
//! The way of the data, one module a step: [`tree`] (the filesystem as a value) and [`dpkg`] (what
//! is installed) meet in [`component`] (who owns each path); [`plan`] puts components into layers;
//! [`ostree`] names the commit; [`layers`] writes layers in either format through [`oci`] (bytes on
//! disk); [`registry`] says where they go. [`pipeline`] joins the steps; [`cli`] and [`report`] are
//! its face. [`finalize`] makes a system what bootc and OSTree expect; [`composefs`] and [`uki`]
//! seal an image.
//!
//! Without default features the crate has [`tree`], [`dpkg`], [`component`] and [`plan`]: enough to
//! scan a root filesystem and plan its layers, and fewer than 40 crates. The feature `image` adds
//! commits and images, `cli` the program, `libostree` repositories.
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

#[cfg(feature = "image")]
pub mod checksum;
#[cfg(feature = "cli")]
pub mod cli;
pub mod component;
#[cfg(feature = "image")]
pub mod composefs;
pub mod dpkg;
#[cfg(feature = "image")]
pub mod finalize;
#[cfg(feature = "image")]
pub mod layers;
pub mod limits;
#[cfg(feature = "image")]
pub mod oci;
#[cfg(feature = "image")]
pub mod ostree;
pub mod parallel;
#[cfg(feature = "image")]
pub mod pipeline;
pub mod plan;
#[cfg(feature = "image")]
pub mod process;
pub mod progress;
#[cfg(feature = "image")]
pub mod registry;
pub mod remedy;
#[cfg(feature = "cli")]
pub mod report;
#[cfg(feature = "image")]
pub mod source;
pub mod tree;
#[cfg(feature = "image")]
pub mod uki;
#[cfg(feature = "image")]
pub mod undo;
