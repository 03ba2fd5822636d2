//! Metadata objects made by hand (ostree-core.h), as no program would write them.

use std::collections::HashMap;

use ::ostree::glib::{self, FixedSizeVariantArray, prelude::*};

use super::sha256;

/// A dirtree of files and directories.
pub fn dirtree(files: &[(&str, &str)], directories: &[(&str, &str, &str)]) -> Vec<u8> {
    let files: Vec<_> = files
        .iter()
        .map(|(name, file)| (*name, bytes(file)))
        .collect();
    let directories = directories.iter();
    let directories = directories.map(|(name, tree, meta)| (*name, bytes(tree), bytes(meta)));
    (files, directories.collect::<Vec<_>>())
        .to_variant()
        .data()
        .to_vec()
}

/// An `ay` that is made at once, not byte by byte.
type Bytes = FixedSizeVariantArray<Vec<u8>, u8>;

fn bytes(checksum: &str) -> Bytes {
    let pairs = checksum.as_bytes().chunks(2);
    let digits = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    let digits = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap());
    Bytes::from(digits.collect::<Vec<u8>>())
}

/// A dirmeta of root's with a mode and attributes.
pub fn dirmeta(mode: u32, xattrs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let xattrs = xattrs.iter();
    let xattrs: Vec<(Bytes, Bytes)> = xattrs
        .map(|(name, value)| ([name, &b"\0"[..]].concat().into(), value.to_vec().into()))
        .collect();
    (0u32, 0u32, mode.to_be(), xattrs)
        .to_variant()
        .data()
        .to_vec()
}

/// A commit of a root directory.
pub fn commit_object(dirtree: &str, dirmeta: &str) -> Vec<u8> {
    let none: Vec<(String, Vec<u8>)> = Vec::new();
    let commit = (
        HashMap::<String, glib::Variant>::new(),
        Vec::<u8>::new(),
        none,
        "subject",
        "body",
        0u64,
        bytes(dirtree),
        bytes(dirmeta),
    );
    commit.to_variant().data().to_vec()
}

/// Where an object is below the directory of objects.
pub fn object_name(kind: &str, object: &[u8]) -> String {
    let sum = sha256(object);
    format!("{}/{}.{kind}", &sum[..2], &sum[2..])
}
