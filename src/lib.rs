//! Turns a Debian root filesystem into an OSTree commit and a chunked OCI image whose layers
//! follow packages.
//!
//! The way of the data, one module a step: [`tree`] (the filesystem as a value) and [`dpkg`] (what
//! is installed) meet in [`component`] (who owns each path); [`plan`] puts components into layers;
//! [`ostree`] names the commit; [`layers`] writes layers in either format through [`oci`] (bytes on
//! disk); [`registry`] says where they go. [`pipeline`] joins the steps; [`cli`] and [`report`] are
//! its face. [`finalize`] makes a system what bootc and OSTree expect; [`composefs`] and [`uki`]
//! seal an image.

pub mod checksum;
pub mod cli;
pub mod component;
pub mod composefs;
pub mod dpkg;
pub mod finalize;
pub mod layers;
pub mod limits;
pub mod oci;
pub mod ostree;
pub mod parallel;
pub mod pipeline;
pub mod plan;
pub mod process;
pub mod progress;
pub mod registry;
pub mod remedy;
pub mod report;
pub mod source;
pub mod tree;
pub mod uki;
pub mod undo;
