//! OCI archives: a layout in one tar file, as podman and skopeo read it.

use std::fs::File;
use std::io::{BufWriter, Write};

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::{metadata_files, new_index};
use super::stage::Stage;
use super::tar::{Member, MemberKind, TarWriter};
use crate::checksum::Checksum;

/// Writes the image that `descriptor` names, with `blobs` from the stage, to `out`.
///
/// # Errors
/// When a blob cannot be read or `out` fails.
pub fn write_archive(
    stage: &Stage,
    blobs: &[Checksum],
    descriptor: Value,
    tag: Option<&str>,
    out: impl Write,
) -> Result<()> {
    let mut archive = TarWriter::new(BufWriter::with_capacity(256 * 1024, out));
    for (name, text) in metadata_files(&new_index(descriptor, tag)) {
        archive.append_bytes(name, text.as_bytes())?;
    }
    let mut buffer = vec![0; 256 * 1024];
    for directory in ["blobs", "blobs/sha256"] {
        archive.append(&member(directory, MemberKind::Directory), &[])?;
    }
    for blob in blobs {
        let path = stage.blob_path(*blob);
        let mut file = File::open(&path).with_context(|| format!("opening {path}"))?;
        let size = file.metadata()?.len();
        let name = format!("blobs/sha256/{blob}");
        let member = member(&name, MemberKind::Regular(size));
        archive.append_content(&member, &[], &mut file, &mut buffer, &mut |_| Ok(()))?;
    }
    archive.finish()?.flush()?;
    Ok(())
}

fn member<'a>(path: &'a str, kind: MemberKind<'a>) -> Member<'a> {
    let permissions = match kind {
        MemberKind::Directory => 0o755,
        _ => 0o644,
    };
    Member {
        path,
        kind,
        permissions,
        uid: 0,
        gid: 0,
        mtime: 0,
    }
}
