//! Trees become commits, commits images, and images commits again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod commit;
mod encapsulate;
mod encapsulate_options;
mod import;
mod import_faults;
mod import_hostile;
mod import_interrupt;
mod import_layers;
mod import_updates;
mod repository;
mod roundtrip;
