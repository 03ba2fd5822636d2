//! What is read out of images: by `inspect`, `diff` and their pages, from every transport.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

#[path = "../common/mod.rs"]
mod common;

mod from_layers;
mod inspect;
mod others;
mod page;
mod page_speed;
mod transports;
