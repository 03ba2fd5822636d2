#![allow(clippy::unwrap_used)]

use std::process::Command;

use super::*;
use crate::oci::read::clean_path;

mod properties;
mod refused;

/// Two blocks of zeros.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A header of the ustar format whose size field says `size`.
fn header(flag: u8, name: &str, size: usize) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, text) in [
        (100, "0000644\0".to_owned()),
        (108, "0001750\0".to_owned()),
        (116, "0000144\0".to_owned()),
        (124, format!("{size:011o}\0")),
        (136, "00000000014\0".to_owned()),
        (257, "ustar\x0000".to_owned()),
    ] {
        block[at..at + text.len()].copy_from_slice(text.as_bytes());
    }
    block[156] = flag;
    with(block, 0, b"")
}

/// A header with `bytes` at a place of it, and its checksum made anew.
fn with(mut block: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    block[148..156].fill(b' ');
    let sum: u32 = block[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(BLOCK), 0);
    padded
}

fn member(flag: u8, name: &str, content: &[u8]) -> Vec<u8> {
    [header(flag, name, content.len()), padded(content)].concat()
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let digits = (1..8).find(|n| (rest.len() + n).to_string().len() == *n);
    format!("{}{rest}", rest.len() + digits.unwrap())
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let records = records.iter().map(|(key, value)| record(key, value));
    member(b'x', "pax", records.collect::<String>().as_bytes())
}

/// All members with their content.
fn read(input: impl Read) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = TarReader::new(input);
    let mut members = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        members.push((entry, content));
    }
    assert_eq!(reader.next_entry().unwrap(), None, "the end stays the end");
    Ok(members)
}

/// The only member of an archive.
fn only(parts: &[&[u8]]) -> (Entry, Vec<u8>) {
    let archive = [&parts.concat()[..], &END].concat();
    let mut members = read(&*archive).unwrap();
    assert_eq!(members.len(), 1, "{members:?}");
    members.swap_remove(0)
}

#[test]
fn reads_a_header() {
    let (entry, content) = only(&[&member(b'0', "usr/a", b"hello")]);
    let expected = Entry {
        path: b"usr/a".to_vec(),
        kind: EntryKind::Regular,
        permissions: 0o644,
        uid: 1000,
        gid: 100,
        mtime: 12,
        size: 5,
        xattrs: vec![],
    };
    assert_eq!((entry, content.as_slice()), (expected, &b"hello"[..]));
}

#[test]
fn knows_every_kind() {
    let link = |flag| with(header(flag, "l", 0), 157, b"to/there");
    for (header, kind) in [
        (header(b'0', "a", 0), EntryKind::Regular),
        (header(0, "a", 0), EntryKind::Regular),
        (header(b'7', "a", 0), EntryKind::Regular),
        (header(0, "a/", 0), EntryKind::Directory),
        (header(b'0', "a/", 0), EntryKind::Directory),
        (header(b'5', "a", 0), EntryKind::Directory),
        (link(b'1'), EntryKind::HardLink(b"to/there".to_vec())),
        (link(b'2'), EntryKind::Symlink(b"to/there".to_vec())),
        (header(b'3', "a", 0), EntryKind::CharDevice),
        (header(b'4', "a", 0), EntryKind::BlockDevice),
        (header(b'6', "a", 0), EntryKind::Fifo),
        (header(b'V', "a", 0), EntryKind::Other(b'V')),
    ] {
        assert_eq!(only(&[&header]).0.kind, kind);
    }
    let linked = with(header(b'1', "l", 700), 157, b"there");
    assert_eq!(only(&[&linked]).0.size, 0, "a link's size is its target's");
    let (entry, content) = only(&[&member(b'V', "label", b"text")]);
    assert_eq!((entry.size, content.as_slice()), (4, &b"text"[..]));
}

#[test]
fn names_come_from_where_each_dialect_puts_them() {
    let prefixed = |prefix: &[u8]| with(header(b'0', "name", 0), 345, prefix);
    let full_prefix = "p".repeat(131);
    let star = with(prefixed(full_prefix.as_bytes()), 476, b"01234567012\0");
    let gnu = with(
        with(header(b'0', "name", 0), 257, b"ustar  \0"),
        345,
        b"01234567012\0",
    );
    let full = "f".repeat(100);
    for (parts, path) in [
        (vec![prefixed(b"dir/sub")], "dir/sub/name"),
        (
            vec![with(star, 508, b"tar\0")],
            &format!("{full_prefix}/name"),
        ),
        (vec![gnu], "name"),
        (vec![header(b'0', &full, 0)], &full),
        (
            vec![
                member(b'L', "././@LongLink", b"long\0"),
                header(b'0', "short", 0),
            ],
            "long",
        ),
        (
            vec![member(b'L', "././@LongLink", b"long"), prefixed(b"dir")],
            "long",
        ),
        (
            vec![pax(&[("path", "new\nline")]), prefixed(b"dir")],
            "new\nline",
        ),
        (vec![pax(&[("path", "")]), header(b'0', "kept", 0)], "kept"),
        (
            vec![
                member(b'g', "g", record("comment", "x").as_bytes()),
                pax(&[("path", "both")]),
                member(b'L', "././@LongLink", b"both\0"),
                header(b'0', "short", 0),
            ],
            "both",
        ),
    ] {
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (entry, _) = only(&parts);
        assert_eq!(String::from_utf8(entry.path).unwrap(), path);
    }
    let link = with(header(b'2', "l", 0), 157, b"short");
    let (entry, _) = only(&[&member(b'K', "././@LongLink", b"long/target\0"), &link]);
    assert_eq!(entry.kind, EntryKind::Symlink(b"long/target".to_vec()));
    let (entry, _) = only(&[&pax(&[("linkpath", "caf\u{e9}")]), &link]);
    assert_eq!(entry.kind, EntryKind::Symlink("café".into()));
}

#[test]
fn numbers_come_from_where_each_dialect_puts_them() {
    let (entry, content) = only(&[
        &pax(&[
            ("size", "5"),
            ("uid", "4000000000"),
            ("gid", "3000000"),
            ("mtime", "-1.5"),
            ("SCHILY.xattr.user.a", "1\n2"),
        ]),
        &header(b'0', "a", 0),
        &padded(b"hello"),
    ]);
    assert_eq!(
        (entry.uid, entry.gid, entry.mtime),
        (4_000_000_000, 3_000_000, -2)
    );
    assert_eq!(entry.xattrs, [(b"user.a".to_vec(), b"1\n2".to_vec())]);
    assert_eq!(content, b"hello");

    let binary = with(header(b'0', "a", 0), 136, &[0xff; 12]);
    let binary = with(binary, 108, b"\x80\0\0\0\xee\x6b\x28\0");
    let binary = with(binary, 124, b"\x80\0\0\0\0\0\0\0\0\0\0\x05");
    let (entry, content) = only(&[&with(binary, 100, b"0104755\0"), &padded(b"hello")]);
    assert_eq!((entry.uid, entry.mtime), (4_000_000_000, -1));
    assert_eq!(
        entry.permissions, 0o4755,
        "the type of the file is no permission"
    );
    assert_eq!(content, b"hello");
}

#[test]
fn a_checksum_may_be_of_signed_bytes() {
    let mut block = header(b'0', "\u{e9}", 0);
    let signed: i32 = block[..148]
        .iter()
        .chain(&block[156..])
        .map(|byte| i32::from(*byte as i8))
        .sum();
    let signed = signed + 8 * 32;
    block[148..156].copy_from_slice(format!("{signed:06o}\0 ").as_bytes());
    assert_eq!(only(&[&block]).0.path, "\u{e9}".as_bytes());
}

#[test]
fn an_archive_may_end_with_zeros_or_with_nothing() {
    let whole = member(b'0', "a", b"x");
    let zero = vec![0; BLOCK];
    let junk = vec![7; 100];
    for end in [
        vec![],
        zero.clone(),
        END.to_vec(),
        [&END[..], &junk].concat(),
    ] {
        assert_eq!(read(&*[&whole[..], &end].concat()).unwrap().len(), 1);
    }
    assert!(read(&b""[..]).unwrap().is_empty());
}

#[test]
fn content_that_is_not_read_is_passed_over() {
    let archive = [
        member(b'0', "a", &[1; 100_000]),
        member(b'0', "b", &[2; 512]),
        member(b'0', "c", b"last"),
        END.to_vec(),
    ]
    .concat();
    let mut reading = TarReader::new(&*archive);
    let mut seeking = TarReader::seeking(io::Cursor::new(&archive));
    for expected in [&b"a"[..], b"b", b"c"] {
        let entry = reading.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, expected);
        assert_eq!(seeking.next_entry().unwrap().unwrap(), entry);
        assert_eq!(seeking.offset(), reading.offset());
        let at = usize::try_from(reading.offset()).unwrap();
        let mut first = [0; 3];
        reading.read_exact(&mut first).unwrap();
        assert_eq!(first, archive[at..at + 3]);
        seeking.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(reading.next_entry().unwrap(), None);
    assert_eq!(seeking.next_entry().unwrap(), None);
    assert!(reading.into_inner().is_empty(), "the end is read");
}

#[test]
fn truncation_gives_an_error_or_ends_between_members() {
    let first = member(b'0', "a", b"content");
    let second = [pax(&[("path", "b")]), member(b'0', "x", &[9; 600])].concat();
    let border = first.len();
    let end = border + second.len();
    let whole = [first, second, END.to_vec()].concat();
    for len in 0..whole.len() {
        let expected = match len {
            0 => Some(0),
            len if len == border => Some(1),
            len if len >= end && (len - end) % BLOCK == 0 => Some(2),
            _ => None,
        };
        let found = read(&whole[..len]).ok().map(|members| members.len());
        assert_eq!(found, expected, "cut at {len}");
    }
}

#[test]
fn what_gnu_tar_writes_is_read_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let long = [("d", 60), ("e", 60), ("f", 30)].map(|(letter, len)| letter.repeat(len));
    let outer = long[0].clone();
    let long = long.join("/");
    let make = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    make("short/ä", "one");
    std::os::unix::fs::symlink("../away", dir.path().join("short/soft")).unwrap();
    std::fs::hard_link(dir.path().join("short/ä"), dir.path().join("short/zhard")).unwrap();
    for (format, has_long) in [
        ("v7", false),
        ("oldgnu", true),
        ("gnu", true),
        ("ustar", true),
        ("posix", true),
    ] {
        if has_long {
            make(&long, "two");
        }
        let output = Command::new("tar")
            .args(["--sort=name", "--mtime=@12", "--owner=:7", "--group=:8"])
            .arg(format!("--format={format}"))
            .arg("-C")
            .arg(dir.path())
            .args(["-c", "."])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let mut found = Vec::new();
        for (entry, content) in read(&*output.stdout).unwrap() {
            assert_eq!((entry.uid, entry.gid, entry.mtime), (7, 8, 12), "{format}");
            let kind = match entry.kind {
                EntryKind::Directory => "directory".to_owned(),
                EntryKind::Regular => String::from_utf8(content).unwrap(),
                EntryKind::Symlink(target) => String::from_utf8(target).unwrap(),
                EntryKind::HardLink(target) => clean_path(&target).unwrap(),
                other => format!("{other:?}"),
            };
            found.push((clean_path(&entry.path).unwrap(), kind));
        }
        let mut expected = vec![
            (String::new(), "directory".to_owned()),
            ("short".into(), "directory".into()),
            ("short/soft".into(), "../away".into()),
            ("short/zhard".into(), "short/ä".into()),
            ("short/ä".into(), "one".into()),
        ];
        if has_long {
            let inner = long.rsplit_once('/').unwrap().0.to_owned();
            expected.push((outer.clone(), "directory".into()));
            expected.push((inner, "directory".into()));
            expected.push((long.clone(), "two".into()));
        }
        // Of two links to one file the first in the archive is the file.
        let is_link = |kind: &str| kind.starts_with("short/");
        if found
            .iter()
            .any(|(path, kind)| path == "short/ä" && is_link(kind))
        {
            expected[3].1 = "one".into();
            expected[4].1 = "short/zhard".into();
        }
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{format}");
    }
}
