//! Files that are synced by a thread of its own, so that those who hash and compress need not wait
//! for the disk.

use std::fs::File;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Result, anyhow};
use camino::Utf8PathBuf;

/// Files that wait, and stay open as long.
const WAITING: usize = 32;

/// Writes files to the disk in the order in which it gets them.
pub struct Syncer {
    writer: Mutex<Option<Writer>>,
}

struct Writer {
    files: SyncSender<(File, Utf8PathBuf)>,
    thread: JoinHandle<Result<()>>,
}

impl Syncer {
    /// Has nothing to write yet.
    pub fn new() -> Self {
        Self {
            writer: Mutex::new(None),
        }
    }

    /// Takes one more file, which is whole and has the path `path` for errors. Waits where too many
    /// do. Where no thread is to be had, the file is written at once.
    ///
    /// # Errors
    /// When it is written at once, and that fails.
    pub fn add(&self, file: File, path: Utf8PathBuf) -> Result<()> {
        let files = {
            let mut writer = self.writer.lock().map_err(|_| ended())?;
            if writer.is_none() {
                *writer = Writer::start();
            }
            writer.as_ref().map(|writer| writer.files.clone())
        };
        let Some(files) = files else {
            return write(&file, &path);
        };
        // Where the thread has ended, a file has failed: `wait` tells which.
        let _ = files.send((file, path));
        Ok(())
    }

    /// Waits until all files are on the disk.
    ///
    /// # Errors
    /// When one could not be written: the first.
    pub fn wait(&self) -> Result<()> {
        let writer = self.writer.lock().map_err(|_| ended())?.take();
        let Some(Writer { files, thread }) = writer else {
            return Ok(());
        };
        drop(files);
        thread.join().map_err(|_| ended())?
    }
}

impl Writer {
    fn start() -> Option<Self> {
        let (files, waiting) = sync_channel(WAITING);
        let thread = Builder::new().name("to disk".to_owned());
        let thread = thread.spawn(move || write_all(&waiting)).ok()?;
        Some(Self { files, thread })
    }
}

fn write_all(files: &Receiver<(File, Utf8PathBuf)>) -> Result<()> {
    for (file, path) in files {
        write(&file, &path)?;
    }
    Ok(())
}

fn write(file: &File, path: &Utf8PathBuf) -> Result<()> {
    file.sync_data()
        .with_context(|| format!("writing {path} to the disk"))
}

fn ended() -> anyhow::Error {
    anyhow!("a thread ended too early")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn waits_for_all_and_tells_of_the_first_that_fails() {
        let syncer = Syncer::new();
        syncer.wait().unwrap();
        for _ in 0..3 * WAITING {
            syncer
                .add(tempfile::tempfile().unwrap(), "file".into())
                .unwrap();
        }
        syncer.wait().unwrap();
        // What has no place on a disk.
        for name in ["first", "second"] {
            let null = File::open("/dev/null").unwrap();
            syncer.add(null, name.into()).unwrap();
        }
        let failed = syncer.wait().unwrap_err();
        assert!(
            format!("{failed:#}").starts_with("writing first to the disk: "),
            "{failed:#}"
        );
        syncer.wait().unwrap();
    }
}
