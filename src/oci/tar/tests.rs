//! What readers see of the dialect.

#![allow(clippy::unwrap_used)]
use super::*;

fn file(path: &str, size: u64) -> Member<'_> {
    Member {
        path,
        kind: MemberKind::Regular(size),
        permissions: 0o4755,
        uid: 3_000_000,
        gid: 7,
        mtime: 12,
    }
}

#[test]
fn another_reader_sees_what_was_written() {
    let long = format!("{}/ü", "d".repeat(120));
    let mut writer = TarWriter::new(Vec::new());
    let dir = Member {
        kind: MemberKind::Directory,
        ..file("usr", 0)
    };
    writer.append(&dir, &[]).unwrap();
    let xattrs = vec![(b"user.a".to_vec(), vec![0, 255, b'='])];
    let mut buffer = [0; 2];
    writer
        .append_content(
            &file(&long, 5),
            &xattrs,
            &mut &b"hello"[..],
            &mut buffer,
            &mut |_| Ok(()),
        )
        .unwrap();
    let link = Member {
        kind: MemberKind::HardLink(&long),
        ..file("again", 0)
    };
    writer.append(&link, &[]).unwrap();
    let symlink = Member {
        kind: MemberKind::Symlink("a//../b"),
        ..file("soft", 0)
    };
    writer.append(&symlink, &[]).unwrap();
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes.len() % 512, 0);

    let mut archive = tar::Archive::new(bytes.as_slice());
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        let xattr = entry.pax_extensions().unwrap().map(|mut all| {
            let record = all.next().unwrap().unwrap();
            (
                record.key().unwrap().to_owned(),
                record.value_bytes().to_vec(),
            )
        });
        let header = entry.header().clone();
        seen.push((
            String::from_utf8(entry.path_bytes().to_vec()).unwrap(),
            entry
                .link_name_bytes()
                .map(|l| String::from_utf8(l.to_vec()).unwrap()),
            content,
            xattr,
            (
                header.uid().unwrap(),
                header.mode().unwrap(),
                header.mtime().unwrap(),
            ),
        ));
    }
    let meta = (3_000_000, 0o4755, 12);
    let attribute = ("SCHILY.xattr.user.a".to_owned(), vec![0, 255, b'=']);
    assert_eq!(
        seen,
        [
            ("usr/".into(), None, String::new(), None, meta),
            (long.clone(), None, "hello".into(), Some(attribute), meta),
            ("again".into(), Some(long), String::new(), None, meta),
            (
                "soft".into(),
                Some("a//../b".into()),
                String::new(),
                None,
                meta
            ),
        ]
    );
}

#[test]
fn names_of_every_length_are_read_again() {
    let part = "0123456789".repeat(30);
    let mut names = Vec::new();
    for (directory, name) in [
        (1, 98),
        (1, 99),
        (50, 60),
        (99, 100),
        (154, 100),
        (155, 100),
        (156, 100),
        (155, 101),
        (20, 200),
        (200, 20),
        (0, 120),
    ] {
        let slash = if directory > 0 { "/" } else { "" };
        names.push(format!("{}{slash}{}", &part[..directory], &part[..name]));
    }
    names.push(format!("{}/{}", "grün".repeat(20), &part[..40]));
    names.push(format!("a/b/{}/c/{}", &part[..60], &part[..60]));
    for name in &names {
        for (uid, mtime) in [(0, 0), (3_000_000, 0), (0, 1 << 33), (0, (1 << 33) - 1)] {
            for kind in [
                MemberKind::Regular(0),
                MemberKind::Directory,
                MemberKind::Symlink("x"),
                MemberKind::HardLink(&part),
            ] {
                let mut writer = TarWriter::new(Vec::new());
                let member = Member {
                    uid,
                    gid: 0,
                    mtime,
                    kind,
                    ..file(name, 0)
                };
                writer.append(&member, &[]).unwrap();
                let bytes = writer.finish().unwrap();
                let mut archive = tar::Archive::new(bytes.as_slice());
                let entry = archive.entries().unwrap().next().unwrap().unwrap();
                let read = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
                assert_eq!(read.trim_end_matches('/'), name);
                let header = entry.header();
                assert_eq!(
                    (header.uid().unwrap(), header.mtime().unwrap()),
                    (uid.into(), mtime)
                );
                let is_posix = header.as_ustar().is_some();
                let fits =
                    uid < 1 << 21 && mtime < 1 << 33 && !matches!(kind, MemberKind::HardLink(_));
                assert!(!is_posix || fits && name.len() > 98, "{name}");
            }
        }
    }
    let object = format!(
        "sysroot/ostree/repo/objects/{}/{}.file-xattrs-link",
        &part[..2],
        &part[..62]
    );
    let mut writer = TarWriter::new(Vec::new());
    let member = Member {
        uid: 0,
        gid: 0,
        ..file(&object, 0)
    };
    writer.append(&member, &[]).unwrap();
    assert_eq!(
        writer.finish().unwrap().len(),
        3 * 512,
        "one block, and two at the end"
    );
}

#[test]
fn content_of_another_length_is_an_error() {
    for content in [&b"hell"[..], b"hello!"] {
        let mut writer = TarWriter::new(Vec::new());
        let outcome = writer.append_content(
            &file("f", 5),
            &[],
            &mut &content[..],
            &mut [0; 64],
            &mut |_| Ok(()),
        );
        assert!(outcome.unwrap_err().to_string().contains("not 5 as it was"));
    }
}

#[test]
fn a_record_counts_the_digits_of_its_length() {
    for len in [
        60, 70, 75, 76, 77, 78, 79, 80, 90, 960, 970, 980, 9980, 9990,
    ] {
        let records = pax_records(&[(b"user.x".to_vec(), vec![b'v'; len])]).unwrap();
        let stated = String::from_utf8_lossy(&records);
        let stated: usize = stated.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(stated, records.len());
    }
    assert!(pax_records(&[(b"user.a=b".to_vec(), vec![])]).is_err());
}
