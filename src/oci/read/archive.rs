//! OCI archives: a layout in one tar file, whose blobs are read where they lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::layer::{DetectedCompression, MAGIC};
use super::layout::check_version;
use super::path::clean_path;
use super::tar::{EntryKind, TarReader};
use super::{Blobs, json};
use crate::checksum::Checksum;
use crate::oci::RegularFile;
use crate::oci::layout::{INDEX, LAYOUT_FILE};
use crate::oci::stage::BLOBS;

/// An OCI archive to read from.
#[derive(Debug)]
pub struct Archive {
    path: Utf8PathBuf,
    file: File,
    members: BTreeMap<String, Extent>,
}

/// A piece of the archive, in bytes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    start: u64,
    size: u64,
}

impl Archive {
    /// The archive at `path`. Its headers are read, not its content.
    ///
    /// # Errors
    /// When it cannot be read, is compressed, is damaged, or holds no layout.
    pub fn new(path: &Utf8Path) -> Result<Self> {
        if path.is_dir() {
            bail!("{path} is a directory; if it is a layout, name it as oci:{path}");
        }
        let file = match RegularFile::open_named(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => bail!(
                "{path} is not a regular file; blobs are read out of order, so store the archive first"
            ),
            Err(e) => return Err(e).with_context(|| format!("opening the archive {path}")),
        };
        let (len, file) = (file.len(), file.into_file());
        let mut magic = [0; MAGIC];
        let got = file.read_at(&mut magic, 0);
        let got = got.with_context(|| format!("reading the archive {path}"))?;
        let compression = DetectedCompression::of(&magic[..got]);
        ensure!(
            compression == DetectedCompression::None,
            "the archive {path} is compressed with {compression}; decompress it first"
        );
        let members =
            find_members(&file, len).with_context(|| format!("reading the archive {path}"))?;
        let Some(marker) = members.get(LAYOUT_FILE) else {
            bail!(
                "{path} is not an OCI archive (it has no {LAYOUT_FILE} file); a docker archive becomes one with 'skopeo copy docker-archive:{path} oci-archive:FILE'"
            );
        };
        check_version(marker.reader(&file))
            .with_context(|| format!("reading {LAYOUT_FILE} in the archive {path}"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            members,
        })
    }
}

impl Blobs for Archive {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        match self.members.get(&blob_name(digest)) {
            Some(extent) => Ok(Box::new(extent.reader(&self.file))),
            None => bail!(
                "the archive {} has no blob {}; the image is incomplete: copy it again",
                self.path,
                digest.to_digest()
            ),
        }
    }

    fn index_json(&self) -> Result<Value> {
        let Some(index) = self.members.get(INDEX) else {
            bail!(
                "the archive {} has no {INDEX}; copy the image again",
                self.path
            );
        };
        let index = json::object_from(index.reader(&self.file))
            .with_context(|| format!("reading {INDEX} in the archive {}", self.path))?;
        Ok(Value::Object(index))
    }
}

/// The members of a layout in `file`, which has `len` bytes. Of two with one name the later
/// counts, as it does for who unpacks the archive.
fn find_members(file: &File, len: u64) -> Result<BTreeMap<String, Extent>> {
    let mut members = BTreeMap::new();
    let whole = Extent {
        start: 0,
        size: len,
    };
    let mut tar = TarReader::seeking(BufReader::new(whole.reader(file)));
    while let Some(entry) = tar.next_entry()? {
        let name = clean_path(&entry.path)?;
        let extent = match entry.kind {
            EntryKind::Regular => Extent {
                start: tar.offset(),
                size: entry.size,
            },
            EntryKind::HardLink(target) => match members.get(&clean_path(&target)?) {
                Some(extent) => *extent,
                None => continue,
            },
            _ => continue,
        };
        let end = extent.start.checked_add(extent.size);
        ensure!(
            end.is_some_and(|end| end <= len),
            "the archive ends within the member {name}; copy the image again"
        );
        // Only what a layout has is remembered, however many members there are.
        let is_blob = name.starts_with(BLOBS) && name.len() == blob_name(Checksum::default()).len();
        if is_blob || name == INDEX || name == LAYOUT_FILE {
            members.insert(name, extent);
        }
    }
    Ok(members)
}

fn blob_name(digest: Checksum) -> String {
    format!("{BLOBS}/{digest}")
}

impl Extent {
    /// A reader of its own: other extents of `file` may be read meanwhile.
    fn reader(self, file: &File) -> ExtentReader<'_> {
        ExtentReader { file, rest: self }
    }
}

struct ExtentReader<'a> {
    file: &'a File,
    rest: Extent,
}

/// Only forwards, over what is not wanted; a place behind the end reads as the end.
impl Seek for ExtentReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Current(step) = to else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let step = u64::try_from(step).map_err(|_| io::ErrorKind::Unsupported)?;
        self.rest.start = self.rest.start.saturating_add(step);
        self.rest.size = self.rest.size.saturating_sub(step);
        Ok(self.rest.start)
    }
}

impl Read for ExtentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = usize::try_from(self.rest.size).unwrap_or(usize::MAX);
        let len = len.min(buffer.len());
        let got = self.file.read_at(&mut buffer[..len], self.rest.start)?;
        self.rest.start += got as u64;
        self.rest.size -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::oci::{Member, MemberKind, TarWriter};

    const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

    fn opened(bytes: &[u8]) -> Result<Archive> {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::try_from(dir.path().join("a.tar")).unwrap();
        std::fs::write(&path, bytes).unwrap();
        Archive::new(&path)
    }

    fn read(archive: &Archive, digest: Checksum) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut blob = archive.open(digest).unwrap();
        blob.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn blobs_are_found_whatever_their_names_look_like() {
        let (one, two) = (Checksum::of(b"one"), Checksum::of(b"two"));
        let mut writer = TarWriter::new(Vec::new());
        for (name, content) in [
            ("./oci-layout".to_owned(), MARKER),
            (format!("./blobs/sha256/{one}"), &b"zero"[..]),
            (format!("blobs//sha256/{one}"), b"one"),
            ("index.json".to_owned(), br#"{"manifests":[]}"#),
        ] {
            writer.append_bytes(&name, content).unwrap();
        }
        let (link, target) = (blob_name(two), blob_name(one));
        let link = Member {
            path: &link,
            kind: MemberKind::HardLink(&target),
            permissions: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
        };
        writer.append(&link, &[]).unwrap();
        let archive = opened(&writer.finish().unwrap()).unwrap();
        assert_eq!(read(&archive, one), b"one", "the later member counts");
        assert_eq!(read(&archive, two), b"one", "through a hard link");
        assert_eq!(
            archive.index_json().unwrap(),
            serde_json::json!({"manifests": []})
        );
        let missing = Checksum::of(b"three");
        let error = archive.open(missing).err().unwrap().to_string();
        assert!(error.contains(&missing.to_string()), "{error}");
        assert!(error.contains("a.tar"), "{error}");
    }

    #[test]
    fn what_is_no_archive_is_refused_with_a_reason() {
        let with = |members: &[(&str, &[u8])]| {
            let mut writer = TarWriter::new(Vec::new());
            for (name, content) in members {
                writer.append_bytes(name, content).unwrap();
            }
            writer.finish().unwrap()
        };
        let layout = with(&[("oci-layout", MARKER), ("x", &[1; 9000])]);
        for (bytes, why) in [
            (vec![], "not an OCI archive"),
            (
                with(&[("manifest.json", b"[]")]),
                "skopeo copy docker-archive",
            ),
            (b"\x1f\x8b\x08\0\0".to_vec(), "compressed with gzip"),
            (b"\x28\xb5\x2f\xfd\0".to_vec(), "compressed with zstd"),
            (b"no tar at all".to_vec(), "reading the archive"),
            (with(&[("../oci-layout", MARKER)]), "'..'"),
            (
                with(&[("oci-layout", br#"{"imageLayoutVersion":"2.0"}"#)]),
                "only version 1",
            ),
            (layout[..4000].to_vec(), "ends within the member x"),
        ] {
            let error = format!("{:#}", opened(&bytes).err().unwrap());
            assert!(error.contains(why), "{why}: {error}");
        }
        let error = opened(&with(&[("oci-layout", MARKER)]))
            .unwrap()
            .index_json();
        assert!(error.unwrap_err().to_string().contains("no index.json"));
    }
}
