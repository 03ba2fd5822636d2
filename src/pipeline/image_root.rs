//! The root filesystem that the layers of an image make, read without mounting anything: the layers
//! are applied in memory, and the content of files goes to a spool on disk, a file without a name
//! that the kernel frees with the process, whatever ends that.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};

use super::embedded::RootFiles;
use super::options::Place;
use super::read_ahead::Layers;
use crate::layers::{ContentSink, LayerFile, Merged, Node, NodeKind};
use crate::oci::temporary_directory;
use crate::progress::Progress;
use crate::registry::Image;
use crate::tree::{Contents, EntryId, Filter, Kind, Listed, ListedTree, Metadata, Tree};

/// How much is written to the spool at once, in bytes.
const BUFFER: usize = 256 * 1024;
/// The time of directories that no layer names: not that of one that a layer does, which is 0 in an
/// encapsulated image. (A container runtime makes them, with the time at which it does.)
const MADE_UP: i64 = 1;

/// A root filesystem out of layers.
pub struct ImageRoot {
    /// Its tree.
    pub tree: Tree,
    /// Its files.
    pub files: UnpackedFiles,
}

impl ImageRoot {
    /// Applies the layers of an image.
    ///
    /// # Errors
    /// When a layer cannot be read or is damaged, the spool cannot be written, or there is
    /// something that no image can hold.
    pub fn read(
        image: &Image,
        filter: &Filter,
        name: &Place,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let mut spool = Spool::new()?;
        let mut merged = Merged::with_hints();
        progress.begin("reading layers", 0);
        let all = 0..image.layers().len();
        std::thread::scope(|scope| {
            let open = |at, next| image.open_layer_before(at, next);
            let layers = Layers::start(scope, all, open, progress)?;
            for (at, (descriptor, _)) in image.layers().iter().enumerate() {
                let digest = descriptor.digest.to_digest();
                let mut apply = || {
                    let layer = layers.next(at, &digest)?;
                    merged.apply(layer, &mut spool)?.finish()
                };
                apply().with_context(|| format!("reading layer {at} ({digest}) of {name}"))?;
            }
            anyhow::Ok(())
        })?;
        progress.end();
        let spooled = spool.finish()?;
        merged.move_etc();
        let (tree, places) = tree_of(&merged, filter, name)?;
        Ok(Self {
            tree,
            files: UnpackedFiles {
                merged,
                spooled,
                places,
            },
        })
    }
}

/// The tree, and for each entry the place of its content.
fn tree_of(
    merged: &Merged<'_, SpooledRange>,
    filter: &Filter,
    name: &Place,
) -> Result<(Tree, Vec<u64>)> {
    let mut listed = ListedTree::new(metadata(merged.root()), filter);
    let mut offsets = vec![0];
    merged.walk(None, |path, node, _| {
        let is_in = listed.push(
            path,
            Listed {
                metadata: metadata(node),
                target: &node.target,
                is_special: node.kind == NodeKind::Special,
                inode: node.kept.map(|kept| kept.number),
            },
        )?;
        if is_in {
            offsets.push(node.kept.map_or(0, |kept| kept.offset));
        }
        Ok(())
    })?;
    let (tree, new_ids) = listed.finish(name)?;
    let mut places = vec![0; tree.len()];
    for (offset, id) in offsets.into_iter().zip(new_ids) {
        places[id.index()] = offset;
    }
    Ok((tree, places))
}

fn metadata(node: &Node<SpooledRange>) -> Metadata {
    let mut metadata = node.metadata();
    if node.is_dir() && !node.is_named {
        metadata.mtime = MADE_UP;
    }
    metadata
}

/// The files of an image, those that its tree leaves out too.
pub struct UnpackedFiles {
    merged: Merged<'static, SpooledRange>,
    spooled: Spooled,
    places: Vec<u64>,
}

impl UnpackedFiles {
    /// What opens the content of the tree's files; what is known of the layers is forgotten.
    pub fn into_contents(self) -> SpooledContents {
        SpooledContents {
            spooled: self.spooled,
            places: self.places,
        }
    }
}

impl RootFiles for UnpackedFiles {
    fn read_file(&self, path: &Utf8Path, limit: u64) -> Result<Option<Vec<u8>>> {
        let node = self.merged.find(path.as_str());
        let found = node.filter(|node| node.kind == NodeKind::Known(Kind::Regular));
        let Some((node, kept)) = found.and_then(|node| Some((node, node.kept?))) else {
            return Ok(None);
        };
        ensure!(
            node.size <= limit,
            "/{path} has {} bytes, more than {limit}",
            node.size
        );
        let mut content = Vec::new();
        let mut reader = self.spooled.read(kept.offset, node.size);
        reader
            .read_to_end(&mut content)
            .with_context(|| format!("reading /{path}"))?;
        Ok(Some(content))
    }

    fn list(&self, path: &Utf8Path) -> Result<Option<Vec<String>>> {
        Ok(self.merged.names(path.as_str()))
    }
}

/// What is remembered of a file: its content is in the spool.
#[derive(Debug, Clone, Copy)]
struct SpooledRange {
    /// Hard links of one file have the same.
    number: u64,
    /// Where the content begins.
    offset: u64,
}

/// The content of files, on its way to disk.
struct Spool {
    out: BufWriter<File>,
    directory: Utf8PathBuf,
    files: u64,
    len: u64,
}

impl Spool {
    fn new() -> Result<Self> {
        let directory = temporary_directory()?;
        let file = tempfile::tempfile_in(&directory)
            .with_context(|| format!("making a temporary file in {directory}"))?;
        tracing::info!(
            "the files of the layers go to a temporary file without a name in {directory}"
        );
        Ok(Self {
            out: BufWriter::with_capacity(BUFFER, file),
            directory,
            files: 0,
            len: 0,
        })
    }

    fn full(&self) -> String {
        format!(
            "writing the files of the layers to a temporary file in {} ({} bytes so far); TMPDIR may name a directory with more room",
            self.directory, self.len
        )
    }

    fn finish(self) -> Result<Spooled> {
        let full = self.full();
        tracing::info!("{} bytes are in the temporary file", self.len);
        let file = self
            .out
            .into_inner()
            .map_err(io::IntoInnerError::into_error);
        Ok(Spooled(file.context(full)?))
    }
}

impl ContentSink for Spool {
    type Handle = SpooledRange;

    fn file(&mut self, file: &LayerFile<'_>, content: &mut dyn Read) -> Result<SpooledRange> {
        let kept = SpooledRange {
            number: self.files,
            offset: self.len,
        };
        self.files += 1;
        let mut buffer = [0; 16 * 1024];
        loop {
            let got = content.read(&mut buffer)?;
            if got == 0 {
                break;
            }
            let written = self.out.write_all(&buffer[..got]);
            written.with_context(|| self.full())?;
            self.len += got as u64;
        }
        ensure!(
            self.len - kept.offset == file.metadata.size,
            "its content has {} bytes, and the layer says {}",
            self.len - kept.offset,
            file.metadata.size
        );
        Ok(kept)
    }

    fn link(&mut self, _metadata: &Metadata, _target: &[u8]) -> Result<SpooledRange> {
        // Nothing of a link is on disk, and no link is another's hard link here.
        Ok(SpooledRange {
            number: u64::MAX,
            offset: 0,
        })
    }
}

/// The content of files, on disk.
struct Spooled(File);

impl Spooled {
    fn read(&self, offset: u64, size: u64) -> SpooledFile<'_> {
        SpooledFile {
            file: &self.0,
            at: offset,
            end: offset + size,
        }
    }
}

/// Opens the content of the files of an image's tree.
pub struct SpooledContents {
    spooled: Spooled,
    places: Vec<u64>,
}

impl Contents for SpooledContents {
    fn open(&self, tree: &Tree, id: EntryId) -> Result<Box<dyn Read + '_>> {
        let offset = self.places[id.index()];
        Ok(Box::new(self.spooled.read(offset, tree.entry(id).size)))
    }
}

/// The content of one file.
struct SpooledFile<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for SpooledFile<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        if got == 0 && want > 0 {
            return Err(io::Error::other(
                "the temporary file with the files of the layers has been cut short",
            ));
        }
        self.at += got as u64;
        Ok(got)
    }
}
