//! The members of a tar archive that may be hostile: every dialect that layers come in (ustar, GNU,
//! PAX), and an error where a name, a number or a length is not what it must be or readers would
//! understand different things. Memory is bounded: names and records by [`EXTENSION_LIMIT`],
//! content not held at all.

use std::io::{self, Read, Seek};

use anyhow::{Context, Result, bail, ensure};

use super::header::{BLOCK, Fixed, until_nul};
use super::path::show;
use super::pax::{Records, check_global};
use crate::limits;

/// The longest name, link, or set of PAX records of one member, in bytes.
const EXTENSION_LIMIT: u64 = 1024 * 1024;
/// Bytes that are passed over at once.
const SKIP: usize = 64 * 1024;

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file, whose content follows.
    Regular,
    /// A symbolic link with its target, which is neither empty nor has a NUL in it. It need not
    /// be UTF-8.
    Symlink(Vec<u8>),
    /// A hard link with the name of the member it links to, to be cleaned as a name is.
    HardLink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Another type flag (a volume label, say); its content follows.
    Other(u8),
}

/// A member: its header, with what the records before it say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it is written; see [`super::clean_path`].
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits (`07777`).
    pub permissions: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Seconds since the epoch, fractions rounded down.
    pub mtime: i64,
    /// Bytes of content, 0 where there is none.
    pub size: u64,
    /// Extended attributes by name, sorted: of `SCHILY.xattr` records, and of `LIBARCHIVE.xattr`
    /// records where the former do not name them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads an archive member by member. As a [`Read`] it gives the content of the current one.
pub struct TarReader<R> {
    input: R,
    skip: fn(&mut R, u64) -> io::Result<u64>,
    state: State,
    /// Bytes read so far.
    offset: u64,
    /// Bytes of the current content that have not been read.
    left: u64,
    /// Bytes from the end of the content to the next header.
    padding: u64,
    /// The current member's name, for errors.
    current: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
    Failed,
}

/// What stands before a header and is about its member.
#[derive(Default)]
struct Before {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Records>,
}

impl<R: Read> TarReader<R> {
    /// A reader of the archive `input`.
    pub fn new(input: R) -> Self {
        Self::skipping_with(input, skip_by_reading)
    }

    fn skipping_with(input: R, skip: fn(&mut R, u64) -> io::Result<u64>) -> Self {
        Self {
            input,
            skip,
            state: State::Reading,
            offset: 0,
            left: 0,
            padding: 0,
            current: String::new(),
        }
    }

    /// The next member, or nothing when the archive ends: with a block of zeros (what follows two
    /// of them is not looked at), or where a header would begin. Content that was not read is
    /// passed over.
    ///
    /// # Errors
    /// When the input fails or ends too early, or the member cannot be understood without doubt.
    /// Nothing more can be read then.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Failed => bail!("the archive could not be read before"),
        }
        self.state = State::Failed;
        let entry = self.advance()?;
        self.state = match entry {
            Some(_) => State::Reading,
            None => State::Ended,
        };
        Ok(entry)
    }

    /// Bytes of the archive read so far: right after [`TarReader::next_entry`] where the content
    /// of the entry begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What the archive is read from, where reading has come to.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        self.skip_content()?;
        let mut before = Before::default();
        loop {
            let start = self.offset;
            let at = || format!("in the tar header at byte {start}");
            let Some(block) = self.block().with_context(at)? else {
                ensure!(
                    before.is_empty(),
                    "the archive ends at byte {start} with records about a member that does not follow"
                );
                return Ok(None);
            };
            let header = Fixed::parse(&block).with_context(at)?;
            match header.flag {
                b'L' => before.long_path = Some(self.name(&header).with_context(at)?),
                b'K' => before.long_link = Some(self.name(&header).with_context(at)?),
                b'x' => {
                    let records = self.extension(&header).with_context(at)?;
                    let records = Records::parse(&records).with_context(at)?;
                    ensure!(
                        before.pax.replace(records).is_none(),
                        "the member after byte {start} has two sets of PAX records, of which readers take one or both"
                    );
                }
                b'g' => {
                    let records = self.extension(&header).with_context(at)?;
                    check_global(&records).with_context(at)?;
                }
                _ => {
                    let entry = before.entry(header).with_context(at)?;
                    self.left = entry.size;
                    self.padding = padding(entry.size);
                    self.current = show(&entry.path);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The next header, or nothing at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let Some(block) = self.any_block()? else {
            return Ok(None);
        };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        // Readers disagree about a single block of zeros with more behind it.
        match self.any_block()? {
            None => Ok(None),
            Some(second) if second == [0; BLOCK] => Ok(None),
            Some(_) => bail!("there is a single block of zeros where two would end the archive"),
        }
    }

    fn any_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut got = 0;
        while got < BLOCK {
            match self.input.read(&mut block[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => bail!("the archive is cut short after {got} of {BLOCK} bytes"),
                Ok(more) => got += more,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    /// The name in a GNU `L` or `K` record.
    fn name(&mut self, header: &Fixed) -> Result<Vec<u8>> {
        let mut name = self.extension(header)?;
        name.truncate(until_nul(&name).len());
        Ok(name)
    }

    /// The content of a record that is about the next member.
    fn extension(&mut self, header: &Fixed) -> Result<Vec<u8>> {
        let size = header.size;
        ensure!(
            size <= EXTENSION_LIMIT,
            "a record of type '{}' has {size} bytes, and only up to {EXTENSION_LIMIT} are read",
            header.flag.escape_ascii()
        );
        let mut content = Vec::new();
        let whole = size + padding(size);
        self.input.by_ref().take(whole).read_to_end(&mut content)?;
        ensure!(
            content.len() as u64 == whole,
            "the archive is cut short in a record of type '{}'",
            header.flag.escape_ascii()
        );
        self.offset += whole;
        content.truncate(usize::try_from(size)?);
        Ok(content)
    }

    fn skip_content(&mut self) -> Result<()> {
        let (rest, offset) = (self.left + self.padding, self.offset);
        if rest == 0 {
            return Ok(());
        }
        let context = || format!("reading the member '{}'", self.current);
        let skipped = (self.skip)(&mut self.input, rest).with_context(context)?;
        ensure!(
            skipped == rest,
            "the archive is cut short in the member '{}', at byte {}",
            self.current,
            offset + skipped
        );
        self.offset = offset.saturating_add(rest);
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

impl<R: Read + Seek> TarReader<R> {
    /// A reader that passes over content by seeking. It does not see when the archive is cut
    /// short in what it passes over.
    pub fn seeking(input: R) -> Self {
        Self::skipping_with(input, skip_by_seeking)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX);
        let len = len.min(buffer.len());
        if len == 0 {
            return Ok(0);
        }
        let got = self.input.read(&mut buffer[..len])?;
        if got == 0 {
            let (name, offset) = (&self.current, self.offset);
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the archive is cut short in the member '{name}', at byte {offset}"),
            ));
        }
        self.left -= got as u64;
        self.offset += got as u64;
        Ok(got)
    }
}

impl Before {
    fn is_empty(&self) -> bool {
        self.long_path.is_none() && self.long_link.is_none() && self.pax.is_none()
    }

    /// The member of `header` with all that was said of it before.
    fn entry(self, header: Fixed) -> Result<Entry> {
        let mut pax = self.pax.unwrap_or_default();
        let path = one_of(self.long_path, pax.path.take(), header.path)?;
        let link = one_of(self.long_link, pax.link.take(), header.link)?;
        let name = show(&path);
        ensure!(
            !pax.is_sparse && header.flag != b'S',
            "the member '{name}' is a sparse file, which is not read; make the archive without --sparse"
        );
        let kind = match header.flag {
            // Before there was a type for directories, a slash told them.
            b'0' | 0 | b'7' if path.ends_with(b"/") => EntryKind::Directory,
            b'0' | 0 | b'7' => EntryKind::Regular,
            b'1' => EntryKind::HardLink(link),
            b'2' => EntryKind::Symlink(link),
            b'3' => EntryKind::CharDevice,
            b'4' => EntryKind::BlockDevice,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => EntryKind::Other(other),
        };
        if let EntryKind::HardLink(target) | EntryKind::Symlink(target) = &kind {
            ensure!(
                !target.is_empty() && !target.contains(&0),
                "the link '{name}' has the target '{}', which no file can have",
                show(target)
            );
        }
        if let EntryKind::Symlink(target) = &kind {
            limits::check_target(target).with_context(|| format!("the link '{name}'"))?;
        }
        let size = pax.size.unwrap_or(header.size);
        let size = match kind {
            EntryKind::Regular | EntryKind::Other(_) => size,
            // Some writers state the size of the file that is linked to; no content follows.
            EntryKind::HardLink(_) => 0,
            _ if size == 0 => 0,
            _ => bail!(
                "the member '{name}' states {size} bytes of content, which only a file has; readers disagree about them"
            ),
        };
        ensure!(
            i64::try_from(size).is_ok(),
            "the member '{name}' states {size} bytes, more than any file has"
        );
        let xattrs = pax.take_xattrs();
        let mut each = xattrs.iter();
        each.try_for_each(|(name, value)| limits::check_xattr(name, value))
            .with_context(|| format!("the member '{name}'"))?;
        Ok(Entry {
            permissions: header.permissions,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            mtime: pax.mtime.unwrap_or(header.mtime),
            xattrs,
            path,
            kind,
            size,
        })
    }
}

/// The name in a GNU record, in a PAX record, or else in the header. Readers disagree which of
/// the records counts where both are there, so they must agree.
fn one_of(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>, header: Vec<u8>) -> Result<Vec<u8>> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => bail!(
            "a member has two names, '{}' in a GNU record and '{}' in a PAX record",
            show(&gnu),
            show(&pax)
        ),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(header),
    }
}

fn padding(size: u64) -> u64 {
    let over = size % BLOCK as u64;
    if over == 0 { 0 } else { BLOCK as u64 - over }
}

/// Reads up to `bytes` and says how many there were.
fn skip_by_reading<R: Read>(input: &mut R, bytes: u64) -> io::Result<u64> {
    let mut buffer = [0; SKIP];
    let mut skipped = 0;
    while skipped < bytes {
        let len = usize::try_from(bytes - skipped).unwrap_or(SKIP).min(SKIP);
        match input.read(&mut buffer[..len]) {
            Ok(0) => break,
            Ok(got) => skipped += got as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(skipped)
}

fn skip_by_seeking<R: Seek>(input: &mut R, bytes: u64) -> io::Result<u64> {
    let step = i64::try_from(bytes).map_err(io::Error::other)?;
    input.seek_relative(step)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
