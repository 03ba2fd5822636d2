//! A layer that is read: uncompressed on the way, and verified at its end. Both checksums, of the
//! bytes as stored and as uncompressed, are computed from what passes; nothing is read twice.

use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::manifest::Descriptor;
use crate::checksum::Checksum;

/// Bytes that are read from the blob at once.
const BUFFER: usize = 128 * 1024;
/// Bytes by which a compression is told.
pub(super) const MAGIC: usize = 6;

/// How bytes are compressed, by what they begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DetectedCompression {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl DetectedCompression {
    /// The compression of what begins with `magic` (RFC 1952, 2.3; RFC 8878, 3.1, where frames
    /// may also be skippable ones; the xz file format, 2.1.1.1).
    pub(super) fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

impl fmt::Display for DetectedCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "nothing",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        })
    }
}

/// Reads the uncompressed bytes of a layer. They are to be believed only when
/// [`LayerReader::finish`] has succeeded.
pub struct LayerReader<'a> {
    stream: Stream<'a>,
    /// Of the uncompressed bytes; a layer that is not compressed has one sum for both.
    unpacked: Option<Sha256>,
    digest: Checksum,
    diff_id: Checksum,
}

/// The bytes of a blob: those looked at for the magic, then the others.
type Raw<'a> = BufReader<Chain<Cursor<Vec<u8>>, VerifyingReader<'a>>>;

enum Stream<'a> {
    Plain(Raw<'a>),
    Gzip(Box<MultiGzDecoder<Raw<'a>>>),
    Zstd(zstd::Decoder<'static, Raw<'a>>),
}

impl<'a> LayerReader<'a> {
    /// A reader of the blob `raw` that `descriptor` names. What compresses it is told from its
    /// first bytes, because media types are not always right: gzip (of any number of members),
    /// zstd (of any number of frames, with windows of up to 128 MiB) or nothing.
    ///
    /// # Errors
    /// When the layer is encrypted or compressed otherwise, or its first bytes cannot be read.
    pub fn new(
        raw: Box<dyn Read + Send + 'a>,
        descriptor: &Descriptor,
        diff_id: Checksum,
    ) -> Result<Self> {
        let name = descriptor.digest.to_digest();
        if descriptor.media_type.as_ref().ends_with("+encrypted") {
            bail!(
                "the layer {name} is encrypted; decrypt the image first with 'skopeo copy --decryption-key'"
            );
        }
        Self::of_blob(raw, descriptor.digest, descriptor.size, diff_id)
    }

    /// The same of a blob that no descriptor names: of what digest and size it is to be is all that
    /// is known.
    ///
    /// # Errors
    /// As of [`LayerReader::new`].
    pub fn of_blob(
        raw: Box<dyn Read + Send + 'a>,
        digest: Checksum,
        size: u64,
        diff_id: Checksum,
    ) -> Result<Self> {
        let name = digest.to_digest();
        let mut counted = VerifyingReader {
            raw,
            size,
            count: 0,
            hasher: Sha256::new(),
        };
        let mut magic = Vec::with_capacity(MAGIC);
        let first = counted.by_ref().take(MAGIC as u64).read_to_end(&mut magic);
        first.with_context(|| format!("reading the layer {name}"))?;
        let compression = DetectedCompression::of(&magic);
        let raw = BufReader::with_capacity(BUFFER, Cursor::new(magic).chain(counted));
        let stream = match compression {
            DetectedCompression::None => Stream::Plain(raw),
            DetectedCompression::Gzip => Stream::Gzip(Box::new(MultiGzDecoder::new(raw))),
            DetectedCompression::Zstd => Stream::Zstd(
                zstd::Decoder::with_buffer(raw)
                    .with_context(|| format!("reading the layer {name}"))?,
            ),
            DetectedCompression::Xz => bail!(
                "the layer {name} is compressed with {compression}, and only gzip and zstd are read; convert the image with 'skopeo copy --dest-compress-format gzip'"
            ),
        };
        let unpacked = (compression != DetectedCompression::None).then(Sha256::new);
        Ok(Self {
            stream,
            unpacked,
            digest,
            diff_id,
        })
    }

    /// Reads the rest and compares size, digest and diff id with what manifest and config say.
    ///
    /// # Errors
    /// When the rest cannot be read, or one of them differs.
    pub fn finish(mut self) -> Result<()> {
        let name = self.digest.to_digest();
        let mut rest = vec![0; BUFFER];
        while self.read(&mut rest)? > 0 {}
        let mut raw = match self.stream {
            Stream::Plain(raw) => raw,
            Stream::Gzip(decoder) => decoder.into_inner(),
            Stream::Zstd(decoder) => decoder.finish(),
        };
        // Decoders read on until the blob ends; this holds the sums should one ever stop before.
        while raw.read(&mut rest).map_err(|e| named(self.digest, &e))? > 0 {}
        let (_, counted) = raw.into_inner().into_inner();
        ensure!(
            counted.count == counted.size,
            "the layer {name} has {} bytes, not {} as the manifest says; copy the image again",
            counted.count,
            counted.size
        );
        let found = Checksum::finish(counted.hasher);
        ensure!(
            found == self.digest,
            "the layer {name} is damaged, its bytes have the digest {}; copy the image again",
            found.to_digest()
        );
        let unpacked = self.unpacked.map_or(found, Checksum::finish);
        ensure!(
            unpacked == self.diff_id,
            "the layer {name} unpacks to the diff id {}, not {} as the config says; the image is damaged: build it again",
            unpacked.to_digest(),
            self.diff_id.to_digest()
        );
        Ok(())
    }
}

impl Read for LayerReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A decoder that has nowhere to write may look for the end, or never come back.
        if buffer.is_empty() {
            return Ok(0);
        }
        let got = match &mut self.stream {
            Stream::Plain(raw) => raw.read(buffer),
            Stream::Gzip(decoder) => decoder.read(buffer),
            Stream::Zstd(decoder) => decoder.read(buffer),
        };
        let got = got.map_err(|e| named(self.digest, &e))?;
        if let Some(hasher) = &mut self.unpacked {
            hasher.update(&buffer[..got]);
        }
        Ok(got)
    }
}

fn named(digest: Checksum, error: &io::Error) -> io::Error {
    let name = digest.to_digest();
    io::Error::new(error.kind(), format!("reading the layer {name}: {error}"))
}

/// Hashes and counts the bytes of a blob, of which there must be `size`.
struct VerifyingReader<'a> {
    raw: Box<dyn Read + Send + 'a>,
    size: u64,
    count: u64,
    hasher: Sha256,
}

impl Read for VerifyingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let got = self.raw.read(buffer)?;
        self.count += got as u64;
        let (count, size) = (self.count, self.size);
        if got == 0 && count < size {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the blob ends after {count} of {size} bytes; copy the image again"),
            ));
        }
        if count > size {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the blob has more than {size} bytes; copy the image again"),
            ));
        }
        self.hasher.update(&buffer[..got]);
        Ok(got)
    }
}

#[cfg(test)]
mod tests;
