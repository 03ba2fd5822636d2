//! Extended attributes as EROFS has them: a prefix by number, those that several files have in one
//! shared table, a filter of names that tells a reader what is not there.

use std::collections::HashMap;

use super::image::Out;

/// The prefixes that have a number, by that (Linux, fs/erofs/xattr.h). composefs leaves `lustre.`
/// (5) out, and no attribute of ours has it.
const PREFIXES: [(u8, &[u8]); 6] = [
    (6, b"security."),
    (4, b"trusted."),
    (3, b"system.posix_acl_default"),
    (2, b"system.posix_acl_access"),
    (1, b"user."),
    (0, b""),
];
/// What the filter's hash begins with (`EROFS_XATTR_FILTER_SEED`).
const FILTER_SEED: u32 = 0x25BB_E08F;
/// Bytes of what stands before the attributes of a file.
const HEADER: usize = 12;

/// An attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xattr {
    prefix: u8,
    suffix: Vec<u8>,
    value: Vec<u8>,
}

impl Xattr {
    fn key(&self) -> Vec<u8> {
        let prefix = PREFIXES.iter().find(|(number, _)| *number == self.prefix);
        let prefix = prefix.map_or(&b""[..], |(_, prefix)| prefix);
        [prefix, &self.suffix].concat()
    }

    /// The order that composefs writes them in.
    fn order(&self) -> (Vec<u8>, usize, &[u8]) {
        (self.key(), self.value.len(), &self.value)
    }

    fn size(&self) -> usize {
        (4 + self.suffix.len() + self.value.len()).next_multiple_of(4)
    }

    /// Writes it, up to a multiple of four bytes.
    pub fn write(&self, out: &mut Out<'_>) {
        out.write(&[self.suffix.len() as u8, self.prefix]);
        out.write(&(self.value.len() as u16).to_le_bytes());
        out.write(&self.suffix);
        out.write(&self.value);
        out.pad(4);
    }
}

/// The attributes of a file.
#[derive(Debug, Default)]
pub struct Xattrs {
    own: Vec<Xattr>,
    /// Places in the shared table.
    shared: Vec<usize>,
    /// A bit for each name.
    filter: u32,
}

impl Xattrs {
    /// Adds one.
    pub fn add(&mut self, name: &[u8], value: Vec<u8>) {
        for (number, prefix) in PREFIXES {
            if let Some(suffix) = name.strip_prefix(prefix) {
                let bit = xxh32(suffix, FILTER_SEED.wrapping_add(number.into())) % 32;
                self.filter |= 1 << bit;
                self.own.push(Xattr {
                    prefix: number,
                    suffix: suffix.to_vec(),
                    value,
                });
                return;
            }
        }
    }

    /// Bytes in the image.
    pub fn size(&self) -> usize {
        match self.filter {
            0 => 0,
            _ => HEADER + 4 * self.shared.len() + self.own.iter().map(Xattr::size).sum::<usize>(),
        }
    }

    /// The number by which an inode tells the size (`i_xattr_icount`).
    pub fn count(&self) -> u16 {
        match self.size() {
            0 => 0,
            size => (1 + (size - HEADER) / 4) as u16,
        }
    }

    /// Writes them; `place` gives how a shared one is named.
    pub fn write(&self, out: &mut Out<'_>, place: impl Fn(usize) -> u32) {
        if self.filter == 0 {
            return;
        }
        out.write(&(!self.filter).to_le_bytes());
        out.write(&[self.shared.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
        for at in &self.shared {
            out.write(&place(*at).to_le_bytes());
        }
        for xattr in &self.own {
            xattr.write(out);
        }
    }
}

/// Takes the attributes that several files have out of them; gives the shared table. In that the
/// last of the order comes first.
pub fn share<'a>(files: impl Iterator<Item = &'a mut Xattrs>) -> Vec<Xattr> {
    let mut files: Vec<&mut Xattrs> = files.collect();
    let mut counts: HashMap<Xattr, usize> = HashMap::new();
    for file in &mut files {
        file.own.sort_by(|a, b| a.order().cmp(&b.order()));
        for xattr in &file.own {
            *counts.entry(xattr.clone()).or_default() += 1;
        }
    }
    counts.retain(|_, count| *count > 1);
    let mut table: Vec<Xattr> = counts.into_keys().collect();
    table.sort_by(|a, b| b.order().cmp(&a.order()));
    let places: HashMap<&Xattr, usize> = table.iter().zip(0..).collect();
    for file in files {
        let shared = file.own.iter().filter_map(|xattr| places.get(xattr));
        file.shared = shared.copied().collect();
        file.own.retain(|xattr| !places.contains_key(xattr));
    }
    table
}

/// The hash XXH32 (xxHash, doc/xxhash_spec.md).
fn xxh32(bytes: &[u8], seed: u32) -> u32 {
    const P: [u32; 5] = [
        0x9E37_79B1,
        0x85EB_CA77,
        0xC2B2_AE3D,
        0x27D4_EB2F,
        0x1656_67B1,
    ];
    let word = |four: &[u8]| {
        four.iter()
            .rev()
            .fold(0, |word, b| word << 8 | u32::from(*b))
    };
    let lane = |acc: u32, four: &[u8]| {
        let acc = acc.wrapping_add(word(four).wrapping_mul(P[1]));
        acc.rotate_left(13).wrapping_mul(P[0])
    };
    let mut stripes = bytes.chunks_exact(16);
    let mut hash = if bytes.len() < 16 {
        seed.wrapping_add(P[4])
    } else {
        let mut acc = [
            seed.wrapping_add(P[0]).wrapping_add(P[1]),
            seed.wrapping_add(P[1]),
            seed,
            seed.wrapping_sub(P[0]),
        ];
        for stripe in &mut stripes {
            for (acc, four) in acc.iter_mut().zip(stripe.chunks_exact(4)) {
                *acc = lane(*acc, four);
            }
        }
        let turned = acc.iter().zip([1, 7, 12, 18]);
        turned.fold(0u32, |sum, (acc, by)| sum.wrapping_add(acc.rotate_left(by)))
    };
    hash = hash.wrapping_add(bytes.len() as u32);
    let mut words = stripes.remainder().chunks_exact(4);
    for four in &mut words {
        hash = hash.wrapping_add(word(four).wrapping_mul(P[2]));
        hash = hash.rotate_left(17).wrapping_mul(P[3]);
    }
    for byte in words.remainder() {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(P[4]));
        hash = hash.rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(P[1]);
    hash = (hash ^ hash >> 13).wrapping_mul(P[2]);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation.
    #[test]
    fn xxh32_is_the_known_hash() {
        assert_eq!(xxh32(b"", 0), 0x02CC_5D05);
        assert_eq!(xxh32(b"a", 0), 0x550D_7456);
        assert_eq!(xxh32(b"abc", 0), 0x32D1_53FF);
        assert_eq!(
            xxh32(b"Nobody inspects the spammish repetition", 0),
            0xE229_3B2F
        );
    }
}
