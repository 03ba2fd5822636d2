//! What holds of any archive.

use proptest::prelude::*;

use super::*;
use crate::oci::{Member, MemberKind, TarWriter};

/// A member as our writer takes it.
#[derive(Debug, Clone)]
struct Written {
    path: String,
    /// The target of a link, or the content of a file.
    text: String,
    kind: u8,
    permissions: u32,
    uid: u32,
    mtime: u64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn written() -> impl Strategy<Value = Written> {
    let name = prop_oneof!["[a-zé ]{1,12}", "[a-z/]{90,110}x", "[a-zé]{200,700}"];
    let xattr_name = "[a-z.é%]{1,30}".prop_map(String::into_bytes);
    let value = proptest::collection::vec(any::<u8>(), 0..200);
    (
        name.clone(),
        name,
        0..4_u8,
        0..0o10000_u32,
        any::<u32>(),
        0..1_u64 << 40,
        proptest::collection::btree_map(xattr_name, value, 0..4),
    )
        .prop_map(
            |(path, text, kind, permissions, uid, mtime, xattrs)| Written {
                path: path.trim_start_matches('/').to_owned(),
                text,
                kind,
                permissions,
                uid,
                mtime,
                xattrs: xattrs.into_iter().collect(),
            },
        )
}

/// Blocks that look like headers, with what is in them at random.
fn likely_block() -> impl Strategy<Value = Vec<u8>> {
    let flag = prop::sample::select(b"\x0001234567LKxgSVD".to_vec());
    let size = prop::sample::select(vec![0, 1, 5, 511, 512, 513, 1 << 20, 1 << 30]);
    let changes = proptest::collection::vec((0..BLOCK, any::<u8>()), 0..3);
    prop_oneof![
        4 => (flag, size, changes).prop_map(|(flag, size, changes)| {
            let block = with(header(flag, "name", size), 157, b"link");
            changes.iter().fold(block, |block, (at, byte)| with(block, *at, &[*byte]))
        }),
        1 => Just(vec![0; BLOCK]),
        1 => Just(pax(&[("path", "p"), ("SCHILY.xattr.user.a", "\0"), ("size", "5")])),
        1 => proptest::collection::vec(any::<u8>(), 0..BLOCK),
        1 => Just(padded(b"9 uid=12\n")),
    ]
}

proptest! {
    #[test]
    fn what_our_writer_writes_is_read(members in proptest::collection::vec(written(), 0..6)) {
        let mut writer = TarWriter::new(Vec::new());
        let mut expected = Vec::new();
        for written in members {
            let (kind, found, content) = match written.kind {
                0 => (MemberKind::Directory, EntryKind::Directory, ""),
                1 => {
                    let size = written.text.len() as u64;
                    (MemberKind::Regular(size), EntryKind::Regular, &*written.text)
                }
                2 => {
                    let target = written.text.clone().into_bytes();
                    (MemberKind::Symlink(&written.text), EntryKind::Symlink(target), "")
                }
                _ => {
                    let target = written.text.clone().into_bytes();
                    (MemberKind::HardLink(&written.text), EntryKind::HardLink(target), "")
                }
            };
            let member = Member {
                path: &written.path,
                kind,
                permissions: written.permissions,
                uid: written.uid,
                gid: written.uid / 2,
                mtime: written.mtime,
            };
            if let MemberKind::Regular(_) = kind {
                let mut input = content.as_bytes();
                writer.append_content(&member, &written.xattrs, &mut input, &mut [0; 64], &mut |_| Ok(())).unwrap();
            } else {
                writer.append(&member, &written.xattrs).unwrap();
            }
            let slash = if found == EntryKind::Directory { "/" } else { "" };
            let entry = Entry {
                path: format!("{}{slash}", written.path).into_bytes(),
                kind: found,
                permissions: written.permissions,
                uid: written.uid,
                gid: written.uid / 2,
                mtime: i64::try_from(written.mtime).unwrap(),
                size: content.len() as u64,
                xattrs: written.xattrs,
            };
            expected.push((entry, content.as_bytes().to_vec()));
        }
        let archive = writer.finish().unwrap();
        prop_assert_eq!(read(&*archive).unwrap(), expected);
    }

    #[test]
    fn any_blocks_make_no_panic_and_no_content_from_nowhere(
        blocks in proptest::collection::vec(likely_block(), 0..8)
    ) {
        let archive = blocks.concat();
        let mut reader = TarReader::new(&*archive);
        let mut held = 0;
        while let Ok(Some(entry)) = reader.next_entry() {
            held += entry.path.len() + entry.xattrs.len();
            let mut content = Vec::new();
            if reader.read_to_end(&mut content).is_ok() {
                prop_assert_eq!(content.len() as u64, entry.size);
            }
            held += content.len();
        }
        prop_assert!(held <= archive.len());
        prop_assert!(reader.offset() <= archive.len() as u64);
    }
}
