//! Reads the layers of an image while reporting progress in uncompressed bytes. A thread of its own
//! fetches, decompresses and verifies them, a little ahead of whoever consumes them.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, Scope};

use anyhow::{Context, Result, bail};

use crate::oci::read::LayerReader;
use crate::progress::{Part, Progress};

/// Bytes that are handed over at once.
const PIECE: usize = 256 * 1024;
/// Pieces that may wait to be taken: what is read ahead is four times as much at most.
const WAITING: usize = 4;

/// What the thread that reads hands over.
enum Sent {
    /// The layer is open, or cannot be opened.
    Opened(Result<()>),
    /// The next bytes of the layer.
    Bytes(Vec<u8>),
    /// The layer cannot be read on.
    Broken(io::Error),
    /// The layer has ended, and was what the image says, or not.
    End(Result<()>),
}

/// Layers that are read, one after the other.
pub struct Layers<'a> {
    received: Receiver<Sent>,
    /// Where pieces that have been taken go back to.
    taken: Sender<Vec<u8>>,
    progress: &'a dyn Progress,
}

/// A layer that is read.
pub struct ProgressReader<'a> {
    layers: &'a Layers<'a>,
    piece: Vec<u8>,
    /// Bytes of the piece that have been taken.
    at: usize,
    /// How the layer ended, when it has.
    end: Option<Result<()>>,
    _part: Part<'a>,
    /// Bytes so far.
    read: u64,
}

impl<'a> Layers<'a> {
    /// Starts to read the layers that `open` opens, those at the places `which` in their order. It
    /// is told the place of a layer and that of the next one.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        which: impl IntoIterator<Item = usize> + Send + 'scope,
        open: impl Fn(usize, Option<usize>) -> Result<LayerReader<'scope>> + Send + 'scope,
        progress: &'a dyn Progress,
    ) -> Result<Self> {
        let (send, received) = mpsc::sync_channel(WAITING);
        let (taken, empty) = mpsc::channel();
        thread::Builder::new()
            .name("layers".into())
            .spawn_scoped(scope, move || {
                let mut which = which.into_iter().peekable();
                while let Some(at) = which.next() {
                    let opened = open(at, which.peek().copied());
                    if !read_ahead(opened, &send, &empty) {
                        return;
                    }
                }
            })
            .context("starting a thread")?;
        Ok(Self {
            received,
            taken,
            progress,
        })
    }

    /// Begins the next layer, which stands at `at` in its image and is called `name`, its digest.
    /// The one before must be finished.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn next(&'a self, at: usize, name: &str) -> Result<ProgressReader<'a>> {
        match self.received.recv() {
            Ok(Sent::Opened(opened)) => opened?,
            _ => bail!("nobody reads the layer"),
        }
        Ok(ProgressReader {
            layers: self,
            piece: Vec::new(),
            at: 0,
            end: None,
            _part: Part::begin(self.progress, &format!("layer {at} {name}"), 0),
            read: 0,
        })
    }
}

/// Hands a layer over; whether somebody wants the next one.
fn read_ahead(
    opened: Result<LayerReader<'_>>,
    send: &SyncSender<Sent>,
    empty: &Receiver<Vec<u8>>,
) -> bool {
    let (layer, opened) = match opened {
        Ok(layer) => (Some(layer), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let is_wanted = send.send(Sent::Opened(opened)).is_ok();
    let Some(mut layer) = layer.filter(|_| is_wanted) else {
        return false;
    };
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let sent = match fill(&mut layer, &mut piece) {
            Ok(0) => {
                let end = layer.finish();
                let is_whole = end.is_ok();
                return send.send(Sent::End(end)).is_ok() && is_whole;
            }
            Ok(got) => {
                piece.truncate(got);
                send.send(Sent::Bytes(piece))
            }
            Err(error) => {
                let _ = send.send(Sent::Broken(error));
                return false;
            }
        };
        if sent.is_err() {
            return false;
        }
    }
}

/// Reads until the buffer is full or the layer ends.
fn fill(layer: &mut LayerReader<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match layer.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

impl ProgressReader<'_> {
    /// Reads what is left, checks that the layer was what the image says, and gives the number of
    /// its uncompressed bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn finish(mut self) -> Result<u64> {
        io::copy(&mut self, &mut io::sink())?;
        self.end.take().unwrap_or(Ok(()))?;
        Ok(self.read)
    }
}

impl Read for ProgressReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.end.is_some() || buffer.is_empty() {
            return Ok(0);
        }
        if self.at == self.piece.len() {
            match self.layers.received.recv() {
                Ok(Sent::Bytes(piece)) => {
                    // The thread that reads may have ended.
                    let _ = self
                        .layers
                        .taken
                        .send(std::mem::replace(&mut self.piece, piece));
                    self.at = 0;
                }
                Ok(Sent::End(end)) => {
                    self.end = Some(end);
                    return Ok(0);
                }
                Ok(Sent::Broken(error)) => return Err(error),
                Ok(Sent::Opened(_)) | Err(_) => {
                    return Err(io::Error::other("nobody reads the layer any more"));
                }
            }
        }
        let rest = &self.piece[self.at..];
        let got = rest.len().min(buffer.len());
        buffer[..got].copy_from_slice(&rest[..got]);
        self.at += got;
        self.read += got as u64;
        let progress = self.layers.progress;
        progress.done(got as u64).map_err(io::Error::other)?;
        Ok(got)
    }
}
