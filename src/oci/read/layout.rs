//! Image layouts in a directory (image-spec, image-layout.md).

use std::fs::{self, File};
use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use super::{Blobs, json};
use crate::checksum::Checksum;
use crate::oci::RegularFile;
use crate::oci::layout::{INDEX, LAYOUT_FILE};
use crate::oci::lock::reading;
use crate::oci::stage::BLOBS;

/// An image layout to read from.
#[derive(Debug)]
pub struct Layout {
    path: Utf8PathBuf,
    /// What is read now stays while it is held, whatever others write.
    reading: Option<File>,
}

impl Layout {
    /// The layout at `path`.
    ///
    /// # Errors
    /// When there is none, or of a version that is not known.
    pub fn new(path: &Utf8Path) -> Result<Self> {
        let mut layout = Self::for_writer(path)?;
        layout.reading = reading(path);
        Ok(layout)
    }

    /// The same for one who holds the writers' lock, or reads the index only.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub(in crate::oci) fn for_writer(path: &Utf8Path) -> Result<Self> {
        let is_dir = fs::metadata(path)
            .with_context(|| format!("opening the layout {path}"))?
            .is_dir();
        ensure!(
            is_dir,
            "{path} is not a directory; if it is an archive, name it as oci-archive:{path}"
        );
        let file = path.join(LAYOUT_FILE);
        let marker = match RegularFile::open(&file) {
            Ok(marker) => marker,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                bail!("{path} is not an OCI layout (it has no {LAYOUT_FILE} file)")
            }
            Err(e) => return Err(e).with_context(|| format!("opening {file}")),
        };
        check_version(marker).with_context(|| format!("reading {file}"))?;
        Ok(Self {
            path: path.to_owned(),
            reading: None,
        })
    }
}

impl Blobs for Layout {
    fn open(&self, digest: Checksum) -> Result<Box<dyn Read + Send + '_>> {
        let path = self.path.join(BLOBS).join(digest.to_string());
        match RegularFile::open(&path) {
            Ok(file) => Ok(Box::new(file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "the layout {} has no blob {}; the image is incomplete: copy it again",
                self.path,
                digest.to_digest()
            ),
            Err(e) => Err(e).with_context(|| format!("opening the blob {path}")),
        }
    }

    fn index_json(&self) -> Result<Value> {
        let path = self.path.join(INDEX);
        let file = RegularFile::open(&path).with_context(|| format!("opening {path}"))?;
        let index = json::object_from(file).with_context(|| format!("reading {path}"))?;
        Ok(Value::Object(index))
    }
}

/// Whether the content of an `oci-layout` file is of version 1.
pub(super) fn check_version(marker: impl Read) -> Result<()> {
    let marker = json::object_from(marker)?;
    let version = json::text(&marker, "imageLayoutVersion")?;
    ensure!(
        version.starts_with("1."),
        "the layout has version '{}', and only version 1 is read",
        version.escape_debug()
    );
    Ok(())
}
