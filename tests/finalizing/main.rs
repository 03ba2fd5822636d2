//! `finalize` and `lint`: a Debian that bootc boots.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod killed;
mod layers;
mod lint;
mod real;
mod steps;
