//! What users and contributors read: help, book, recipes, schemas, and the borders of the house.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod book;
mod book_runs;
mod borders;
mod help;
mod manual;
mod progress;
mod recipes;
mod schema;
