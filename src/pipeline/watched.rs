//! Layers of an image as they are read, with progress told in uncompressed bytes.

use std::io::{self, Read};

use anyhow::Result;

use crate::oci::read::LayerReader;
use crate::progress::{Part, Progress};

/// A layer that is read.
pub struct WatchedLayer<'a> {
    layer: LayerReader<'a>,
    progress: &'a dyn Progress,
    _part: Part<'a>,
    /// Bytes so far.
    read: u64,
}

impl<'a> WatchedLayer<'a> {
    /// Begins `layer`, which stands at `at` in its image and is called `name`, its digest, on this
    /// thread.
    pub fn new(layer: LayerReader<'a>, at: usize, name: &str, progress: &'a dyn Progress) -> Self {
        Self {
            layer,
            progress,
            _part: Part::begin(progress, &format!("layer {at} {name}"), 0),
            read: 0,
        }
    }

    /// Reads what is left, checks that the layer was what the image says, and gives the number of
    /// its uncompressed bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn finish(mut self) -> Result<u64> {
        io::copy(&mut self, &mut io::sink())?;
        self.layer.finish()?;
        Ok(self.read)
    }
}

impl Read for WatchedLayer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.layer.read(buffer)?;
        self.read += got as u64;
        self.progress.advance(got as u64);
        Ok(got)
    }
}
