//! The tar dialect of all our layers: GNU headers, POSIX ones for names that their `prefix` makes
//! fit, `L` and `K` records for longer names and links, PAX records for extended attributes only,
//! integer times, numeric owners. Readers disagree about everything else (libostree under
//! `LC_ALL=C` fails on a PAX path that is not ASCII).

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};
use tar::{EntryType, Header};

/// Size of a tar block in bytes.
const BLOCK: u64 = 512;
/// What is written at once, in bytes: few enough that they stay in the processor's cache from one
/// who works on them to the next.
const PIECE: usize = 256 * 1024;
/// Bytes of a name or link that fit in a header.
const SHORT: usize = 100;
/// Bytes of the field `prefix` of a POSIX header.
const PREFIX: usize = 155;
/// What a field of eleven octal digits cannot hold any more.
const SMALL: u64 = 1 << 33;
/// What a field of seven cannot.
const SMALL_ID: u32 = 1 << 21;
/// The name GNU tar gives to `L` and `K` records.
const LONG_LINK: &str = "././@LongLink";
/// The name of PAX records.
const PAX_NAME: &str = "././@PaxHeader";

/// What a member is.
#[derive(Debug, Clone, Copy)]
pub enum MemberKind<'a> {
    /// A directory; the slash behind its name is added.
    Directory,
    /// A regular file of that many bytes, which follow.
    Regular(u64),
    /// A symbolic link to a target.
    Symlink(&'a str),
    /// A hard link to the member of that name, earlier in the archive.
    HardLink(&'a str),
}

/// The header of one member.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its name, without a leading slash.
    pub path: &'a str,
    /// What it is.
    pub kind: MemberKind<'a>,
    /// Permission bits (`07777`).
    pub permissions: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: u64,
}

/// Writes an archive member by member.
#[derive(Debug)]
pub struct TarWriter<W: Write> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    /// An archive written to `out`, which should buffer: headers are written one by one.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Appends a member that has no content of its own.
    ///
    /// # Errors
    /// When `out` fails, or an attribute's name cannot stand in a PAX record.
    pub fn append(&mut self, member: &Member<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.headers(member, xattrs)
            .with_context(|| format!("writing /{} to the layer", member.path))
    }

    /// Appends a small regular file of root, 0644, that is in memory.
    ///
    /// # Errors
    /// As [`TarWriter::append`].
    pub fn append_bytes(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let member = Member {
            path,
            kind: MemberKind::Regular(content.len() as u64),
            permissions: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        self.append_buffered(&member, &[], content)
    }

    /// Appends a regular file that is in memory.
    ///
    /// # Errors
    /// As [`TarWriter::append`].
    pub fn append_buffered(
        &mut self,
        member: &Member<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        content: &[u8],
    ) -> Result<()> {
        self.append(member, xattrs)?;
        for piece in content.chunks(PIECE) {
            self.out.write_all(piece)?;
        }
        self.pad(content.len() as u64)?;
        Ok(())
    }

    /// Appends a regular file whose content is read from `content` through `buffer`. `on_read`
    /// is given every piece read.
    ///
    /// # Errors
    /// As [`TarWriter::append`]; when `content` fails or is not as long as the member says.
    pub fn append_content(
        &mut self,
        member: &Member<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        content: &mut dyn Read,
        buffer: &mut [u8],
        on_read: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        self.append(member, xattrs)?;
        let MemberKind::Regular(size) = member.kind else {
            bail!("/{} has no content", member.path);
        };
        let mut copied = 0;
        loop {
            let got = match content.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                got => got?,
            };
            if got == 0 {
                break;
            }
            copied += got as u64;
            if copied > size {
                break;
            }
            self.out.write_all(&buffer[..got])?;
            on_read(&buffer[..got]);
        }
        if copied != size {
            bail!("/{} is {copied} bytes, not {size} as it was", member.path);
        }
        self.pad(size)?;
        Ok(())
    }

    /// Appends a regular file whose content is left out, with `name` in its place, which stands for
    /// it: what comes of it is not to be read, but to be compared.
    ///
    /// # Errors
    /// As [`TarWriter::append`].
    pub fn append_named(
        &mut self,
        member: &Member<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        name: &[u8],
    ) -> Result<()> {
        self.append(member, xattrs)?;
        self.out.write_all(name)?;
        Ok(())
    }

    /// Ends the archive and gives back what it was written to.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK as usize])?;
        Ok(self.out)
    }

    fn headers(&mut self, member: &Member<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let name = match member.kind {
            MemberKind::Directory if !member.path.ends_with('/') => format!("{}/", member.path),
            _ => member.path.to_owned(),
        };
        let (kind, size, link) = match member.kind {
            MemberKind::Directory => (EntryType::Directory, 0, ""),
            MemberKind::Regular(size) => (EntryType::Regular, size, ""),
            MemberKind::Symlink(target) => (EntryType::Symlink, 0, target),
            MemberKind::HardLink(target) => (EntryType::Link, 0, target),
        };
        if !xattrs.is_empty() {
            let records = pax_records(xattrs)?;
            self.record(EntryType::XHeader, PAX_NAME, &records)?;
        }
        if link.len() > SHORT {
            let link = [link.as_bytes(), b"\0"].concat();
            self.record(EntryType::GNULongLink, LONG_LINK, &link)?;
        }
        let is_posix = link.len() <= SHORT
            && size.max(member.mtime) < SMALL
            && member.uid.max(member.gid) < SMALL_ID;
        let split = if is_posix { split_name(&name) } else { None };
        let mut header = match split {
            Some((prefix, rest)) => {
                let mut header = Header::new_ustar();
                if let Some(ustar) = header.as_ustar_mut() {
                    ustar.prefix[..prefix.len()].copy_from_slice(prefix.as_bytes());
                }
                set_text(&mut header.as_old_mut().name, rest);
                header
            }
            None => {
                if name.len() > SHORT {
                    let name = [name.as_bytes(), b"\0"].concat();
                    self.record(EntryType::GNULongName, LONG_LINK, &name)?;
                }
                let mut header = Header::new_gnu();
                set_text(&mut header.as_old_mut().name, &name);
                header
            }
        };
        set_text(&mut header.as_old_mut().linkname, link);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(member.permissions);
        header.set_uid(member.uid.into());
        header.set_gid(member.gid.into());
        header.set_mtime(member.mtime);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        Ok(())
    }

    /// A member that describes the next one.
    fn record(&mut self, kind: EntryType, name: &str, content: &[u8]) -> Result<()> {
        let mut header = Header::new_gnu();
        set_text(&mut header.as_old_mut().name, name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(content)?;
        self.pad(content.len() as u64)?;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = size.next_multiple_of(BLOCK) - size;
        self.out.write_all(&[0; BLOCK as usize][..padding as usize])
    }
}

/// Splits a name that is too long for its field in two, the first for the field `prefix` of a POSIX
/// header (pax(1), "ustar Interchange Format"): all readers know it, and it saves two blocks for
/// each object of a repository. Not for names that are not ASCII, of which POSIX says nothing.
fn split_name(name: &str) -> Option<(&str, &str)> {
    if name.len() <= SHORT || !name.is_ascii() {
        return None;
    }
    // The slash between both is in neither; one at the end belongs to a directory's name.
    let body = name.strip_suffix('/').unwrap_or(name);
    let mut slashes = body
        .char_indices()
        .filter(|(_, c)| *c == '/')
        .map(|(at, _)| at);
    let at = slashes.find(|at| name.len() - at - 1 <= SHORT)?;
    (0 < at && at <= PREFIX).then(|| (&name[..at], &name[at + 1..]))
}

/// Fills a field with as much of `text` as fits: a longer one stands in a record as well.
fn set_text(field: &mut [u8; SHORT], text: &str) {
    let len = text.len().min(SHORT);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
}

/// PAX records (pax(1), "pax Extended Header") as GNU tar and Go name attributes. A record
/// begins with its own length, which counts the digits of that length.
fn pax_records(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    for (name, value) in xattrs {
        let readable = std::str::from_utf8(name).is_ok_and(|name| !name.contains(['=', '\n']));
        if !readable {
            bail!(
                "the extended attribute '{}' cannot be written to a layer; remove it with setfattr -x",
                name.escape_ascii()
            );
        }
        let rest = [b" SCHILY.xattr.", name.as_slice(), b"=", value, b"\n"].concat();
        let mut len = rest.len() + 1;
        while len != rest.len() + len.to_string().len() {
            len = rest.len() + len.to_string().len();
        }
        records.extend_from_slice(len.to_string().as_bytes());
        records.extend_from_slice(&rest);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
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
                &mut |_| {},
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
                    let fits = uid < 1 << 21
                        && mtime < 1 << 33
                        && !matches!(kind, MemberKind::HardLink(_));
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
                &mut |_| {},
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
}
