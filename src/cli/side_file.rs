//! Files that are written beside an image: opened before any work, written before the image is
//! published, and put in their places after it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, anyhow};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, OFlags, linkat};

use super::args::usage;
use crate::pipeline::Built;
use crate::undo::Undo;

/// What a file tells of an image.
type Content = Box<dyn Fn(&Built) -> Result<String>>;

/// The files that a command is asked for.
#[derive(Default)]
pub struct SideFiles(Vec<(SideFile, Content)>);

impl SideFiles {
    /// One more file, if it is asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(
        &mut self,
        path: Option<&Utf8PathBuf>,
        content: impl Fn(&Built) -> Result<String> + 'static,
    ) -> Result<()> {
        if let Some(path) = path {
            self.0.push((SideFile::new(path)?, Box::new(content)));
        }
        Ok(())
    }

    /// Writes them, out of sight.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, built: &Built) -> Result<()> {
        for (file, content) in &self.0 {
            file.write(content(built)?.as_bytes())?;
        }
        Ok(())
    }

    /// Puts them in their places.
    ///
    /// # Errors
    /// When that cannot be done; the image is published already.
    pub fn publish(self) -> Result<()> {
        for (file, _) in self.0 {
            file.publish()
                .context("the image is in place, but a file beside it is not")?;
        }
        Ok(())
    }
}

/// A file in the making: it has no name before it is whole, where the file system can do so.
pub struct SideFile {
    path: Utf8PathBuf,
    file: File,
    /// Its name, and what removes it, where files must have one.
    named: Option<(Utf8PathBuf, Undo)>,
}

impl SideFile {
    /// A file that is to be at `path`.
    ///
    /// # Errors
    /// When something else than a regular file is there, or its directory cannot be written to.
    pub fn new(path: &Utf8Path) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => {
                return Err(usage(format!(
                    "cannot write {path}: it is there and is not a regular file"
                )));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(usage(format!("cannot write {path}: {e}"))),
        }
        let directory = crate::oci::parent_directory(path);
        let is_directory = match fs::metadata(directory) {
            Ok(found) => found.is_dir(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(usage(format!("cannot write {path}: {e}"))),
        };
        if !is_directory {
            return Err(usage(format!(
                "cannot write {path}: there is no directory {directory}"
            )));
        }
        let unnamed = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or_default();
        let mut options = OpenOptions::new();
        let opened = options.write(true).custom_flags(unnamed).open(directory);
        let (file, named) = match opened {
            Ok(file) => (file, None),
            // Not every file system has files without a name.
            Err(_) => {
                let (file, named) =
                    new_named(path).map_err(|e| usage(format!("cannot write {path}: {e}")))?;
                (file, Some(named))
            }
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            named,
        })
    }

    /// Writes all of it, to the disk.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, content: &[u8]) -> Result<()> {
        let written = (&self.file)
            .write_all(content)
            .and_then(|()| self.file.sync_all());
        written.with_context(|| format!("writing {}", self.path))
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn publish(self) -> Result<()> {
        let context = || format!("writing {}", self.path);
        let (made, undo) = match self.named {
            Some(named) => named,
            None => {
                let opened = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let link = || -> Result<Utf8PathBuf> {
                    let name = hidden_name(&self.path);
                    linkat(
                        CWD,
                        &opened,
                        CWD,
                        name.as_std_path(),
                        AtFlags::SYMLINK_FOLLOW,
                    )?;
                    Ok(name)
                };
                Undo::around(link, remove).with_context(context)?
            }
        };
        let renamed = undo.disarm_with(|| fs::rename(&made, &self.path));
        renamed.with_context(context)
    }
}

fn new_named(path: &Utf8Path) -> Result<(File, (Utf8PathBuf, Undo))> {
    let mut file = None;
    let make = || -> Result<Utf8PathBuf> {
        let name = hidden_name(path);
        file = Some(
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&name)?,
        );
        Ok(name)
    };
    let (name, undo) = Undo::around(make, remove)?;
    let file = file.ok_or_else(|| anyhow!("it was not made"))?;
    Ok((file, (name, undo)))
}

fn remove(name: &Utf8PathBuf) -> impl FnOnce() + Send + 'static + use<> {
    let name = name.clone();
    move || {
        let _ = fs::remove_file(&name);
    }
}

/// A name beside `path` that no other job has.
fn hidden_name(path: &Utf8Path) -> Utf8PathBuf {
    let time = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let time = time.map(|time| time.as_nanos()).unwrap_or_default();
    let name = path.file_name().unwrap_or_default();
    path.with_file_name(format!(".{name}.{}-{time}", std::process::id()))
}
