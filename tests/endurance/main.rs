//! Bad input, faults of the system, ends at any moment, and several at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod errors;
mod faults;
mod hostile;
mod interrupt;
mod killed;
mod writers;
