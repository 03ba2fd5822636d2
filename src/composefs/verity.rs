//! The digest that fs-verity gives a file (Linux, filesystems/fsverity.rst, "Merkle tree" and
//! "fs-verity descriptor"): SHA-512, blocks of 4096 bytes, no salt.

use sha2::{Digest as _, Sha512};

/// A SHA-512 value.
pub type Digest = [u8; DIGEST];

/// Bytes of a digest.
pub const DIGEST: usize = 64;
/// The kernel's number of SHA-512 (`FS_VERITY_HASH_ALG_SHA512`).
pub const ALGORITHM: u8 = 2;
const LOG_BLOCK: u8 = 12;
const BLOCK: usize = 1 << LOG_BLOCK;

/// Takes the bytes of a file, in pieces of any size.
#[derive(Debug, Default)]
pub struct Verity {
    size: u64,
    /// The block of the file that is not full yet.
    partial: Vec<u8>,
    /// For each level of the tree, the lowest first, the block of digests that is not passed on
    /// yet. A full one waits for the next digest: it may be the last, and then the root is its.
    levels: Vec<Vec<u8>>,
}

impl Verity {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.partial.is_empty() && bytes.len() >= BLOCK {
                let (block, rest) = bytes.split_at(BLOCK);
                self.push(0, of_block(block));
                bytes = rest;
                continue;
            }
            let fits = bytes.len().min(BLOCK - self.partial.len());
            self.partial.extend_from_slice(&bytes[..fits]);
            bytes = &bytes[fits..];
            if self.partial.len() == BLOCK {
                self.end_block();
            }
        }
    }

    /// The digest of all that was taken.
    pub fn finish(mut self) -> Digest {
        if !self.partial.is_empty() {
            self.end_block();
        }
        let root = self.root();
        let mut descriptor = Sha512::new();
        // Version, algorithm, size of a block, size of the salt, and four bytes that are reserved.
        descriptor.update([1, ALGORITHM, LOG_BLOCK, 0, 0, 0, 0, 0]);
        descriptor.update(self.size.to_le_bytes());
        descriptor.update(root);
        // The salt, and what is reserved.
        descriptor.update([0; 32 + 144]);
        descriptor.finalize().into()
    }

    fn end_block(&mut self) {
        let digest = of_block(&self.partial);
        self.partial.clear();
        self.push(0, digest);
    }

    fn push(&mut self, level: usize, digest: Digest) {
        if level == self.levels.len() {
            self.levels.push(Vec::with_capacity(BLOCK));
        }
        if self.levels[level].len() == BLOCK {
            let above = of_block(&self.levels[level]);
            self.levels[level].clear();
            self.push(level + 1, above);
        }
        self.levels[level].extend_from_slice(&digest);
    }

    /// The digest of the one block at the top; zeros for an empty file.
    fn root(&mut self) -> Digest {
        let mut level = 0;
        while level < self.levels.len() {
            let is_top = level + 1 == self.levels.len();
            if let (true, Ok(root)) = (is_top, Digest::try_from(self.levels[level].as_slice())) {
                return root;
            }
            let above = of_block(&self.levels[level]);
            self.push(level + 1, above);
            level += 1;
        }
        [0; DIGEST]
    }
}

/// The digest of a block, filled up with zeros.
fn of_block(bytes: &[u8]) -> Digest {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut hasher = Sha512::new();
    hasher.update(bytes);
    hasher.update(&ZEROS[bytes.len()..]);
    hasher.finalize().into()
}
