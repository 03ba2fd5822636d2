//! PAX records (pax(1), "pax Extended Header"): what the header after them cannot say. A record
//! begins with its own length, and is read by it: values may have line ends and NULs in them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::path::show;

/// How star, GNU tar and Go name extended attributes.
const SCHILY_XATTR: &[u8] = b"SCHILY.xattr.";
/// How libarchive names them besides: name URL-encoded, value in base64.
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";

/// What the records before a member say of it. Unknown ones (comments, access times, names of
/// owners, ACLs as text) are passed over, and so are empty ones but for attributes.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    /// Seconds since the epoch, of a fraction the whole second before.
    pub(super) mtime: Option<i64>,
    /// Whether the content is stored without its holes.
    pub(super) is_sparse: bool,
    /// From SCHILY records.
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// From LIBARCHIVE records, which say the same again.
    encoded_xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    /// Reads the records of one member. Of two with the same key the later counts.
    pub(super) fn parse(content: &[u8]) -> Result<Self> {
        let mut records = Self::default();
        for_each(content, |key, value| records.take(key, value))?;
        Ok(records)
    }

    /// The extended attributes in the order of their names.
    pub(super) fn take_xattrs(&mut self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut xattrs = std::mem::take(&mut self.encoded_xattrs);
        xattrs.append(&mut self.xattrs);
        xattrs.into_iter().collect()
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if let Some(name) = key.strip_prefix(SCHILY_XATTR) {
            self.xattrs.insert(xattr_name(name)?, value.to_vec());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
            let name = url_decoded(name).context("the name of an attribute is not URL-encoded")?;
            let value = base64_decoded(value)
                .with_context(|| format!("the attribute '{}' is not in base64", show(&name)))?;
            self.encoded_xattrs.insert(xattr_name(&name)?, value);
            return Ok(());
        }
        self.is_sparse |= key.starts_with(b"GNU.sparse.") || key == b"SCHILY.realsize";
        if value.is_empty() {
            return Ok(());
        }
        let bad = || format!("{} is '{}'", key.escape_ascii(), show(value));
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value).with_context(bad)?),
            b"uid" => self.uid = Some(owner(value).with_context(bad)?),
            b"gid" => self.gid = Some(owner(value).with_context(bad)?),
            b"mtime" => self.mtime = Some(seconds(value).with_context(bad)?),
            _ => {}
        }
        Ok(())
    }
}

/// Whether global records, which hold for every member after them, can be passed over: comments
/// and the like can, attributes are (no writer of layers makes them), but where readers differ in
/// heeding what is said of names, sizes, owners and times, nobody knows what is meant.
pub(super) fn check_global(content: &[u8]) -> Result<()> {
    for_each(content, |key, _| {
        let matters = [&b"path"[..], b"linkpath", b"size", b"uid", b"gid", b"mtime"];
        if matters.contains(&key) || key.starts_with(b"GNU.sparse.") {
            bail!(
                "a global header sets '{}' for all members, which is not read",
                key.escape_ascii()
            );
        }
        Ok(())
    })
}

fn for_each(mut content: &[u8], mut record: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    while !content.is_empty() {
        let (key, value, rest) = split(content)
            .with_context(|| format!("a PAX record is damaged: '{}'", show(content)))?;
        record(key, value)?;
        content = rest;
    }
    Ok(())
}

/// Key and value of the first record, `LENGTH KEY=VALUE` and a line end, and the bytes after it.
fn split(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&content[..space])?).ok()?;
    let (record, rest) = content.split_at_checked(len)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn xattr_name(name: &[u8]) -> Result<Vec<u8>> {
    ensure!(
        !name.is_empty() && !name.contains(&0),
        "an extended attribute has the name '{}'",
        show(name)
    );
    Ok(name.to_vec())
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn owner(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|number| u32::try_from(number).ok())
}

/// `-1.5` is in the second that begins at -2.
fn seconds(text: &[u8]) -> Option<i64> {
    let (is_negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let point = text.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = i64::try_from(decimal(whole)?).ok()?;
    if !is_negative {
        return Some(whole);
    }
    let has_fraction = fraction.iter().any(|digit| *digit != b'0');
    (-whole).checked_sub(has_fraction.into())
}

fn url_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(decoded),
            [b'%', high, low, rest @ ..] => {
                decoded.push(digit(*high)? << 4 | digit(*low)?);
                rest
            }
            [b'%', ..] => return None,
            [byte, rest @ ..] => {
                decoded.push(*byte);
                rest
            }
        };
    }
}

/// Base64 with or without padding (RFC 4648, 4; libarchive leaves it out).
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |at| at + 1);
    let (text, padding) = text.split_at(end);
    let mut decoded = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    // A single character of six bits is no byte.
    (count < 6 && padding.len() <= 2).then_some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// A record with its length in front.
    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let rest = [b" ", key, b"=", value, b"\n"].concat();
        let digits = (1..8)
            .find(|n| (rest.len() + n).to_string().len() == *n)
            .unwrap();
        [(rest.len() + digits).to_string().as_bytes(), &rest].concat()
    }

    fn parsed(records: &[(&[u8], &[u8])]) -> Result<Records> {
        let content: Vec<u8> = records
            .iter()
            .flat_map(|(key, value)| record(key, value))
            .collect();
        Records::parse(&content)
    }

    #[test]
    fn reads_records_by_their_length() {
        let mut read = parsed(&[
            (b"path", b"a\nb=c"),
            (b"linkpath", b"first"),
            (b"linkpath", b"second"),
            (b"size", b"8589934592"),
            (b"uid", b"4294967295"),
            (b"gid", b"0"),
            (b"comment", b"x"),
            (b"SCHILY.xattr.user.b", b"1\n12 path=evil\0"),
            (b"SCHILY.xattr.user.a", b""),
        ])
        .unwrap();
        assert_eq!(read.path.as_deref(), Some(&b"a\nb=c"[..]));
        assert_eq!(read.link.as_deref(), Some(&b"second"[..]));
        assert_eq!(
            (read.size, read.uid, read.gid),
            (Some(1 << 33), Some(u32::MAX), Some(0))
        );
        assert!(!read.is_sparse);
        let xattrs = read.take_xattrs();
        let expected: [(&[u8], &[u8]); 2] = [(b"user.a", b""), (b"user.b", b"1\n12 path=evil\0")];
        assert_eq!(
            xattrs,
            expected.map(|(name, value)| (name.to_vec(), value.to_vec()))
        );
    }

    #[test]
    fn attributes_of_libarchive_are_decoded_and_yield() {
        let mut read = parsed(&[
            (b"LIBARCHIVE.xattr.user.a%3Db", b"AP8"),
            (b"SCHILY.xattr.user.c", b"raw"),
            (b"LIBARCHIVE.xattr.user.c", b"AA=="),
        ])
        .unwrap();
        let expected: [(&[u8], &[u8]); 2] = [(b"user.a=b", b"\0\xff"), (b"user.c", b"raw")];
        assert_eq!(
            read.take_xattrs(),
            expected.map(|(name, value)| (name.to_vec(), value.to_vec()))
        );
    }

    #[test]
    fn base64_is_read_strictly() {
        for (text, value) in [
            (&b""[..], Some(&b""[..])),
            (b"Zg", Some(b"f")),
            (b"Zg==", Some(b"f")),
            (b"Zm9vYmE=", Some(b"fooba")),
            (b"Zm9vYmFy", Some(b"foobar")),
            (b"+/+/", Some(b"\xfb\xff\xbf")),
            (b"Z", None),
            (b"Zm9vY", None),
            (b"Zg===", None),
            (b"Z g", None),
            (b"Zg==Zg", None),
        ] {
            assert_eq!(
                base64_decoded(text).as_deref(),
                value,
                "{}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn fractions_of_seconds_go_down() {
        for (text, value) in [
            (&b"0"[..], Some(0)),
            (b"12.999", Some(12)),
            (b"12.", Some(12)),
            (b"-1", Some(-1)),
            (b"-1.5", Some(-2)),
            (b"-1.000", Some(-1)),
            (b"-0.1", Some(-1)),
            (b"9223372036854775807", Some(i64::MAX)),
            (b"9223372036854775808", None),
            (b"1e3", None),
            (b"1.-5", None),
            (b"--1", None),
            (b"+1", None),
            (b"-", None),
            (b".5", None),
        ] {
            assert_eq!(seconds(text), value, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for content in [
            &b"x"[..],
            b"0 a=b\n",
            b"1 a=b\n",
            b"5 a=b\n",
            b"7 a=b\n",
            b"+6 a=b\n",
            b"6  a=b\n",
            b"6 a=bc",
            b"5 ab\n",
            b"5 =b\n",
            b"7 a\0=b\n",
            b"6 a=b\nx",
            b"99999999999999999999 a=b\n",
            b"18446744073709551615 a=b\n",
            b"18 SCHILY.xattr.=\n",
            b"16 uid=nobody12\n",
            b"18 uid=4294967296\n",
            b"9 gid=-1\n",
            b"11 size=-1\n",
            b"31 LIBARCHIVE.xattr.user.a=***\n",
        ] {
            assert!(
                Records::parse(content).is_err(),
                "{}",
                content.escape_ascii()
            );
        }
    }

    #[test]
    fn global_records_must_not_matter() {
        let comment = record(b"comment", b"0123");
        assert!(check_global(&comment).is_ok());
        assert!(check_global(&record(b"SCHILY.xattr.user.a", b"x")).is_ok());
        for key in [&b"path"[..], b"size", b"mtime", b"GNU.sparse.major"] {
            let content = [&comment[..], &record(key, b"1")].concat();
            let error = check_global(&content).unwrap_err().to_string();
            assert!(error.contains(&*String::from_utf8_lossy(key)), "{error}");
        }
        assert!(check_global(b"junk").is_err());
    }

    proptest! {
        #[test]
        fn any_records_are_read_back(
            xattrs in proptest::collection::btree_map(
                proptest::collection::vec(1..=255_u8, 1..9).prop_filter("a key ends at =", |name| !name.contains(&b'=')),
                proptest::collection::vec(any::<u8>(), 0..120),
                0..5,
            )
        ) {
            let mut content = Vec::new();
            for (name, value) in &xattrs {
                content.extend(record(&[SCHILY_XATTR, name].concat(), value));
            }
            let read = Records::parse(&content).unwrap().take_xattrs();
            prop_assert_eq!(read, xattrs.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_make_no_panic(
            content in proptest::collection::vec(prop_oneof![Just(b'1'), Just(b' '), Just(b'='), Just(b'\n'), any::<u8>()], 0..60)
        ) {
            if let Ok(mut read) = Records::parse(&content) {
                prop_assert!(read.take_xattrs().len() <= content.len());
            }
            let _ = base64_decoded(&content);
            let _ = url_decoded(&content);
        }
    }
}
