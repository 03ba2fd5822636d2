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
    /// is given every piece read, and may end this.
    ///
    /// # Errors
    /// As [`TarWriter::append`]; when `content` fails or is not as long as the member says; those
    /// of `on_read`.
    pub fn append_content(
        &mut self,
        member: &Member<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        content: &mut dyn Read,
        buffer: &mut [u8],
        on_read: &mut dyn FnMut(&[u8]) -> Result<()>,
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
            on_read(&buffer[..got])?;
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
mod tests;
