//! Which components there are, who owns what, and which layer each is put into.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../common/mod.rs"]
mod common;

mod components;
mod explained;
mod history;
mod intervals;
mod lock;
mod ownership;
mod stability;
mod systems;
