//! podman and buildah: images built and mounted with them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod build_image;
mod faults;
mod mounts;
