//! The content of files in a repository, checked as it is read.

use std::io::{self, Read};
use std::sync::Mutex;

use anyhow::{Context, Result};
use camino::Utf8PathBuf;
use ostree::Repo;
use ostree::gio::{self, prelude::*};
use sha2::{Digest, Sha256};

use super::linked::{NO_CANCELLABLE, Repository, open};
use crate::checksum::Checksum;
use crate::ostree::objects::{ContentObjects, content_header};
use crate::tree::{Contents, EntryId, Tree};

/// Opens the content of the files of a commit's tree. What has been read to the end was what the
/// object's name says; everything else is an error.
pub struct StoredContents {
    path: Utf8PathBuf,
    objects: ContentObjects,
    /// A repository handle may move between threads, but not be used by two at once.
    idle: Mutex<Vec<Repo>>,
}

impl Repository {
    /// The content of the files of a tree, whose objects `objects` names, for several threads.
    pub fn contents(&self, objects: ContentObjects) -> StoredContents {
        StoredContents {
            path: self.path().to_owned(),
            objects,
            idle: Mutex::new(Vec::new()),
        }
    }
}

impl StoredContents {
    fn handle(&self) -> Result<Repo> {
        let idle = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        idle.map_or_else(|| open(&self.path), Ok)
    }
}

impl Contents for StoredContents {
    fn open(&self, tree: &Tree, id: EntryId) -> Result<Box<dyn Read + '_>> {
        let checksum = self.objects.checksum(id);
        let repo = self.handle()?;
        let loaded = repo.load_file(&checksum.to_string(), NO_CANCELLABLE);
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(repo);
        }
        let context = || format!("reading object {checksum}.file in {}", self.path);
        let (content, ..) = loaded.with_context(context)?;
        let content = content.context("it has no content").with_context(context)?;
        Ok(Box::new(CheckedObject {
            content,
            hasher: Some(Sha256::new_with_prefix(content_header(tree, id))),
            checksum,
            path: tree.path(id).into_string(),
        }))
    }
}

struct CheckedObject {
    content: gio::InputStream,
    /// None when the end has been seen.
    hasher: Option<Sha256>,
    checksum: Checksum,
    path: String,
}

impl Read for CheckedObject {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut hasher) = self.hasher.take() else {
            return Ok(0);
        };
        let got = self
            .content
            .read(&mut *buffer, NO_CANCELLABLE)
            .map_err(|e| io::Error::other(format!("reading object {}.file: {e}", self.checksum)))?;
        if got > 0 || buffer.is_empty() {
            hasher.update(&buffer[..got]);
            self.hasher = Some(hasher);
            return Ok(got);
        }
        let actual = Checksum::finish(hasher);
        if actual != self.checksum {
            return Err(io::Error::other(format!(
                "object {}.file (/{}) is damaged: its content has the checksum {actual}; run 'ostree fsck'",
                self.checksum, self.path
            )));
        }
        Ok(0)
    }
}
