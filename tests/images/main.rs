//! What `build` and its like write: layers, configs and what lies beside an image.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod base;
mod build;
mod cache;
mod chunked_oci;
mod config;
mod injected;
mod instructions;
mod library;
mod output;
mod previous;
mod reading;
mod real;
mod rechunk;
mod sbom;
mod sbom_build;
mod seal;
mod shared_blobs;
mod sharing;
mod side_files;
mod stable_layers;
mod waste;
