//! The bytes of the image: EROFS (Linux, filesystems/erofs.rst, and fs/erofs/erofs_fs.h) as
//! composefs writes its format version 1. Nothing says it but the writer of composefs, whose
//! choices (what is padded, where a name comes first) this follows to the byte.

use super::directory::write_entries;
use super::inodes::{Content, Inode, Inodes};

/// Bytes of a block.
pub const BLOCK: u64 = 4096;
const LOG_BLOCK: u8 = 12;
/// The address of an inode counts in these.
const SLOT: u64 = 32;
/// Where the superblock is.
const SUPERBLOCK_AT: u64 = 1024;
/// Files are one chunk: the largest that there is holds 2^43 bytes.
const LARGEST_LOG_CHUNK: u32 = LOG_BLOCK as u32 + 31;

// Where the content of an inode is (`enum erofs_inode_layout`, shifted as in `i_format`).
const PLAIN: u16 = 0;
const TAIL: u16 = 2 << 1;
const CHUNKS: u16 = 4 << 1;
/// An inode of 64 bytes, not 32.
const EXTENDED: u16 = 1;

/// What is written, or only counted.
pub struct Out<'a> {
    at: u64,
    sink: &'a mut dyn FnMut(&[u8]),
}

impl<'a> Out<'a> {
    fn new(sink: &'a mut dyn FnMut(&[u8])) -> Self {
        Self { at: 0, sink }
    }

    /// Writes bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.at += bytes.len() as u64;
        (self.sink)(bytes);
    }

    /// Writes zeros up to a multiple of `alignment`.
    pub fn pad(&mut self, alignment: u64) {
        self.zeros(self.at.next_multiple_of(alignment) - self.at);
    }

    fn zeros(&mut self, mut count: u64) {
        const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
        while count > 0 {
            let some = count.min(BLOCK);
            self.write(&ZEROS[..some as usize]);
            count -= some;
        }
    }

    /// What of the block is left; none at its beginning.
    fn left_of_block(&self, after: u64) -> Option<u64> {
        let at = (self.at + after) % BLOCK;
        (at != 0).then(|| BLOCK - at)
    }
}

/// Where everything is. Empty at first: then it is written only to learn that.
#[derive(Default)]
struct Places {
    inodes: Vec<u64>,
    inodes_end: u64,
    xattrs: Vec<u64>,
    blocks: Vec<u64>,
    end: u64,
}

impl Places {
    /// The address of an inode.
    fn inode(&self, number: usize) -> u64 {
        self.inodes.get(number).map_or(0, |at| at / SLOT)
    }

    /// How an inode names a shared attribute: in words from the block that the inodes end in.
    fn xattr(&self, at: usize) -> u32 {
        let place = self.xattrs.get(at).copied();
        place.map_or(0, |place| {
            ((place - self.inodes_end + self.inodes_end % BLOCK) / 4) as u32
        })
    }

    /// The number of the first of an inode's blocks.
    fn block(&self, number: usize) -> u32 {
        self.blocks.get(number).map_or(0, |at| (at / BLOCK) as u32)
    }
}

/// Gives the image to `sink`, piece by piece.
pub fn write(inodes: &Inodes<'_>, sink: &mut dyn FnMut(&[u8])) {
    let oldest = inodes.all.iter().map(|inode| inode.stat.mtime).min();
    let writer = Writer {
        inodes,
        oldest: oldest.unwrap_or_default(),
    };
    let places = writer.write(&Places::default(), &mut Out::new(&mut |_| {}));
    writer.write(&places, &mut Out::new(sink));
}

struct Writer<'a> {
    inodes: &'a Inodes<'a>,
    /// The time that the superblock has for inodes that do not tell theirs.
    oldest: u64,
}

impl Writer<'_> {
    fn write(&self, places: &Places, out: &mut Out<'_>) -> Places {
        let mut found = Places::default();
        self.superblock(places, out);
        for (number, inode) in self.inodes.all.iter().enumerate() {
            found.inodes.push(self.inode(places, number, inode, out));
        }
        out.pad(SLOT);
        found.inodes_end = out.at;
        for xattr in &self.inodes.shared {
            found.xattrs.push(out.at);
            xattr.write(out);
        }
        out.pad(BLOCK);
        for inode in &self.inodes.all {
            found.blocks.push(out.at);
            match &inode.content {
                Content::Directory(directory) => {
                    for block in &directory.blocks {
                        write_entries(block, out, |number| places.inode(number));
                        out.pad(BLOCK);
                    }
                }
                Content::Symlink(target) if self.has_block(inode) => {
                    out.write(target.as_bytes());
                    out.pad(BLOCK);
                }
                _ => {}
            }
        }
        found.end = out.at;
        found
    }

    fn superblock(&self, places: &Places, out: &mut Out<'_>) {
        // composefs: magic, version of the header, flags, version of the format.
        for word in [0xd078_629a, 1, 0, 1u32] {
            out.write(&word.to_le_bytes());
        }
        out.pad(SUPERBLOCK_AT);
        // Magic, no checksum, and what readers may know: times, the filter of attributes.
        for word in [0xE0F5_E1E2, 0, 0b110u32] {
            out.write(&word.to_le_bytes());
        }
        out.write(&[LOG_BLOCK, 0]);
        out.write(&(places.inode(0) as u16).to_le_bytes());
        out.write(&(self.inodes.all.len() as u64).to_le_bytes());
        out.write(&self.oldest.to_le_bytes());
        let blocks = (places.end / BLOCK) as u32;
        let xattrs_at = (places.inodes_end / BLOCK) as u32;
        // Nanoseconds, blocks of it all, where inodes are counted from, and shared attributes.
        for word in [0, blocks, 0, xattrs_at] {
            out.write(&word.to_le_bytes());
        }
        // No name, and nothing that readers must know.
        out.zeros(80);
    }

    /// Whether the time need not be told, and all numbers are small.
    fn is_compact(&self, inode: &Inode<'_>) -> bool {
        const MOST: u32 = u16::MAX as u32;
        inode.stat.mtime == self.oldest
            && inode.stat.uid.max(inode.stat.gid) <= MOST
            && inode.links <= MOST as usize
            && u32::try_from(size(inode)).is_ok()
    }

    fn header_size(&self, inode: &Inode<'_>) -> u64 {
        let header = if self.is_compact(inode) { 32 } else { 64 };
        header + inode.xattrs.size() as u64
    }

    /// Whether a link is too long to lie behind its inode.
    fn has_block(&self, inode: &Inode<'_>) -> bool {
        matches!(inode.content, Content::Symlink(_))
            && self.header_size(inode) + size(inode) >= BLOCK
    }

    /// Writes an inode, and gives where it is.
    fn inode(&self, places: &Places, number: usize, inode: &Inode<'_>, out: &mut Out<'_>) -> u64 {
        let block = places.block(number);
        let (layout, union) = match &inode.content {
            Content::Directory(directory) if directory.tail.is_empty() => (PLAIN, block),
            Content::Directory(directory) if directory.blocks.is_empty() => (TAIL, 0),
            Content::Directory(_) => (TAIL, block),
            Content::Inline([]) | Content::Whiteout => (PLAIN, 0),
            Content::Inline(_) => (TAIL, 0),
            Content::External(size) => (CHUNKS, log_chunk(*size) - u32::from(LOG_BLOCK)),
            Content::Symlink(_) if self.has_block(inode) => (PLAIN, block),
            Content::Symlink(_) => (TAIL, 0),
        };
        out.pad(SLOT);
        self.pad_tail(inode, layout, out);
        let at = out.at;
        self.header(number, inode, layout, union, out);
        inode.xattrs.write(out, |at| places.xattr(at));
        match &inode.content {
            Content::Directory(directory) => {
                write_entries(&directory.tail, out, |number| places.inode(number));
            }
            Content::Inline(bytes) => out.write(bytes),
            // No chunk is in the image.
            Content::External(_) => out.write(&u32::MAX.to_le_bytes()),
            Content::Symlink(target) if layout == TAIL => out.write(target.as_bytes()),
            Content::Symlink(_) | Content::Whiteout => {}
        }
        out.pad(SLOT);
        at
    }

    /// What lies behind an inode may not reach into another block.
    fn pad_tail(&self, inode: &Inode<'_>, layout: u16, out: &mut Out<'_>) {
        let header = self.header_size(inode);
        if matches!(inode.content, Content::Symlink(_)) {
            // Of a link nothing may, the inode included.
            let end = out.at % BLOCK + header + size(inode);
            if let (true, Some(left)) = (end > BLOCK, out.left_of_block(0)) {
                out.zeros(left);
            }
            return;
        }
        let tail = match layout {
            TAIL => size(inode) % BLOCK,
            CHUNKS => 4,
            _ => return,
        };
        if let Some(left) = out.left_of_block(header) {
            if left < tail {
                out.zeros(left.next_multiple_of(SLOT));
            }
        }
    }

    fn header(&self, number: usize, inode: &Inode<'_>, layout: u16, union: u32, out: &mut Out<'_>) {
        let stat = inode.stat;
        let is_compact = self.is_compact(inode);
        let format = if is_compact {
            layout
        } else {
            layout | EXTENDED
        };
        let number = number as u32;
        out.write(&format.to_le_bytes());
        out.write(&inode.xattrs.count().to_le_bytes());
        out.write(&(stat.mode as u16).to_le_bytes());
        if is_compact {
            out.write(&(inode.links as u16).to_le_bytes());
            for word in [size(inode) as u32, 0, union, number] {
                out.write(&word.to_le_bytes());
            }
            for half in [stat.uid as u16, stat.gid as u16] {
                out.write(&half.to_le_bytes());
            }
            out.zeros(4);
            return;
        }
        out.zeros(2);
        out.write(&size(inode).to_le_bytes());
        for word in [union, number, stat.uid, stat.gid] {
            out.write(&word.to_le_bytes());
        }
        out.write(&stat.mtime.to_le_bytes());
        for word in [0, inode.links as u32] {
            out.write(&word.to_le_bytes());
        }
        out.zeros(16);
    }
}

/// Bytes of what an inode holds.
fn size(inode: &Inode<'_>) -> u64 {
    match &inode.content {
        Content::Directory(directory) => directory.size,
        Content::Inline(bytes) => bytes.len() as u64,
        Content::External(size) => *size,
        Content::Symlink(target) => target.len() as u64,
        Content::Whiteout => 0,
    }
}

/// The chunk that a file is, as a power of two.
fn log_chunk(size: u64) -> u32 {
    let log = u64::BITS - size.saturating_sub(1).leading_zeros();
    log.clamp(LOG_BLOCK.into(), LARGEST_LOG_CHUNK)
}
