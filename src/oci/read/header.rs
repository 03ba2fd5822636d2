//! The fixed header of a tar member (pax(1), "ustar Interchange Format"; GNU tar's manual, "Basic
//! Tar Format"): 512 bytes of text and numbers.

use anyhow::{Context, Result, ensure};
use tar::Header;

use super::path::show;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;
/// Bytes of a name's prefix where times follow it, in the headers of star.
const STAR_PREFIX: usize = 131;

/// What a header says by itself; records before it may say otherwise.
#[derive(Debug)]
pub(super) struct Fixed {
    /// The type flag.
    pub(super) flag: u8,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) permissions: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
}

impl Fixed {
    /// Reads a header whose checksum must be right.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self> {
        check_sum(block)?;
        let header = Header::from_byte_slice(block);
        let old = header.as_old();
        let path = full_name(header);
        let field = |what: &str, field: &[u8]| {
            number(field).with_context(|| {
                format!(
                    "the {what} of the member '{}' is not a number: '{}'",
                    show(&path),
                    field.escape_ascii()
                )
            })
        };
        let small = |what: &str, bytes: &[u8]| {
            let value = field(what, bytes)?;
            u32::try_from(value).with_context(|| {
                format!(
                    "the {what} of the member '{}' is out of range: {value}",
                    show(&path)
                )
            })
        };
        let size = field("size", &old.size)?;
        let size = u64::try_from(size).with_context(|| {
            format!(
                "the size of the member '{}' is negative: {size}",
                show(&path)
            )
        })?;
        Ok(Self {
            flag: old.linkflag[0],
            link: until_nul(&old.linkname).to_vec(),
            size,
            permissions: small("mode", &old.mode)? & 0o7777,
            uid: small("owner", &old.uid)?,
            gid: small("group", &old.gid)?,
            mtime: field("time", &old.mtime)?,
            path,
        })
    }
}

/// The sum of all bytes with the sum itself taken for spaces. Some old writers took bytes for
/// signed.
fn check_sum(block: &[u8; BLOCK]) -> Result<()> {
    let stored = number(&Header::from_byte_slice(block).as_old().cksum);
    let counted = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = || {
        block
            .iter()
            .enumerate()
            .map(|(at, byte)| counted(at, *byte))
    };
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    ensure!(
        stored == Some(unsigned) || stored == Some(signed),
        "the header's checksum is wrong"
    );
    Ok(())
}

fn full_name(header: &Header) -> Vec<u8> {
    let name = until_nul(&header.as_old().name);
    let Some(ustar) = header.as_ustar() else {
        return name.to_vec();
    };
    let is_star = header.as_bytes().ends_with(b"tar\0");
    let prefix = if is_star {
        &ustar.prefix[..STAR_PREFIX]
    } else {
        &ustar.prefix[..]
    };
    match until_nul(prefix) {
        [] => name.to_vec(),
        prefix => [prefix, b"/", name].concat(),
    }
}

/// The text in a field, which a NUL ends unless it is full.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number in octal digits, or in GNU's base 256: big-endian in two's complement, where the
/// highest bit of all is a mark.
fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let top = i128::from(((first << 1) as i8) >> 1);
        let value = rest
            .iter()
            .fold(top, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let is_blank = |byte: &u8| [b' ', 0].contains(byte);
    let start = field.iter().position(|byte| !is_blank(byte));
    let end = field.iter().rposition(|byte| !is_blank(byte));
    let (Some(start), Some(end)) = (start, end) else {
        return Some(0);
    };
    field[start..=end]
        .iter()
        .try_fold(0_i64, |value, byte| match byte {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_of_both_kinds() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (
                b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00",
                Some(-256),
            ),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX),
            ),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xc0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"+000644\0", None),
            (b"0x00644\0", None),
            (b"644\0junk", None),
            (b"", None),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }
}
