//! Images in registries: fetched, pushed, joined, signed, and what goes wrong on the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "../common/mod.rs"]
mod common;

mod commands;
mod faults;
mod index;
mod secrets;
mod signing;
mod transfer;
mod updates;
