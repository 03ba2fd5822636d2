//! Blobs: compressed, hashed and written in one go.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};
use zstd::stream::raw::CParameter;

use super::gzip::GzipEncoder;
use super::spec::MediaType;
use crate::checksum::Checksum;
use crate::parallel::Idle;

/// The usual level of gzip: blobs are as small as those of zlib's 6, which others use.
const GZIP_LEVEL: i32 = 5;
/// The usual level of zstd. With the window and the table below it is faster than its program's 3,
/// and blobs are smaller.
const ZSTD_LEVEL: i32 = 2;
/// The window of zstd, as a power of two of bytes: the largest that every reader has to have
/// (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW: u32 = 23;
/// The last level whose own window is no larger.
const ZSTD_LAST_SMALL_WINDOW: i32 = 19;

/// How layers are compressed (image-spec, layer.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip at a level from 1 to 12: those above 9 take very long, and few bytes less.
    Gzip(u32),
    /// One zstd frame at a level from 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// The media type of a layer compressed so.
    pub fn media_type(self) -> MediaType {
        match self {
            Self::None => MediaType::ImageLayer,
            Self::Gzip(_) => MediaType::ImageLayerGzip,
            Self::Zstd(_) => MediaType::ImageLayerZstd,
        }
    }

    /// The media type of a layer that stays as it is, for one of that type, OCI's or docker's; none
    /// for one that images may leave out, or that is compressed otherwise.
    pub fn media_type_like(media_type: &MediaType) -> Option<MediaType> {
        let media_type = media_type.as_ref();
        if ["nondistributable", "foreign"]
            .iter()
            .any(|kind| media_type.contains(kind))
        {
            return None;
        }
        let like = match media_type.rsplit(['.', '+']).next()? {
            "tar" => Self::None,
            "gzip" => Self::Gzip(0),
            "zstd" => Self::Zstd(0),
            _ => return None,
        };
        Some(like.media_type())
    }

    /// The method called `name` at `level`, or at its usual level.
    ///
    /// # Errors
    /// When there is no such method, or it has no such level.
    pub fn from_name(name: &str, level: Option<i32>) -> Result<Self> {
        let checked = |usual: i32, range: std::ops::RangeInclusive<i32>| {
            let level = level.unwrap_or(usual);
            if !range.contains(&level) {
                let (from, to) = (range.start(), range.end());
                bail!("compression level {level}: {name} has levels {from} to {to}");
            }
            Ok(level)
        };
        Ok(match name {
            "none" if level.is_some() => {
                bail!("compression level given, but the compression is none")
            }
            "none" => Self::None,
            "gzip" => Self::Gzip(checked(GZIP_LEVEL, 1..=12)?.unsigned_abs()),
            "zstd" => Self::Zstd(checked(ZSTD_LEVEL, 1..=22)?),
            _ => bail!("unknown compression '{name}': use none, gzip or zstd"),
        })
    }
}

/// The entries of the table by which zstd finds at `level` what was there before, as a power of
/// two, where its own table is smaller.
///
/// Systems have the same code and words again and again, far apart. Low levels, which look back
/// over 2 MiB at most, have room for few places in them.
fn zstd_table(level: i32) -> Option<u32> {
    match level {
        ..=2 => Some(18),
        3..=4 => Some(19),
        5..=8 => Some(21),
        _ => None,
    }
}

/// A finished blob in a staging directory.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The checksum of the bytes as stored.
    pub digest: Checksum,
    /// The checksum of the bytes before compression.
    pub diff_id: Checksum,
    /// Bytes as stored.
    pub size: u64,
    /// Bytes before compression.
    pub uncompressed_size: u64,
}

/// Hashes and counts what goes through.
struct Hashing<W> {
    out: W,
    hasher: Sha256,
    count: u64,
}

impl<W: Write> Hashing<W> {
    fn new(out: W) -> Self {
        Self {
            out,
            hasher: Sha256::new(),
            count: 0,
        }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

enum Encoder {
    None(Hashing<File>),
    Gzip(Hashing<GzipEncoder<Hashing<File>>>),
    Zstd(Hashing<zstd::Encoder<'static, Hashing<File>>>),
}

/// Writes one blob to a file; its name is known when it is finished.
pub struct BlobWriter {
    encoder: BufWriter<EncoderWriter>,
    path: Utf8PathBuf,
}

struct EncoderWriter(Encoder);

impl Write for EncoderWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoder::None(out) => out.write(bytes),
            Encoder::Gzip(out) => out.write(bytes),
            Encoder::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Encoder::None(out) => out.flush(),
            Encoder::Gzip(out) => out.flush(),
            Encoder::Zstd(out) => out.flush(),
        }
    }
}

/// Bytes gathered before they are compressed, hashed and written.
const GATHER: usize = 128 * 1024;

impl BlobWriter {
    /// Creates the file at `path`. Threads that are `idle` may help to compress.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: Utf8PathBuf, compression: Compression, idle: Arc<Idle>) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("creating {path}"))?;
        let file = Hashing::new(file);
        let encoder = match compression {
            Compression::None => Encoder::None(file),
            Compression::Gzip(level) => {
                Encoder::Gzip(Hashing::new(GzipEncoder::new(file, level, idle)?))
            }
            Compression::Zstd(level) => {
                let mut encoder = zstd::Encoder::new(file, level)?;
                if level <= ZSTD_LAST_SMALL_WINDOW {
                    encoder.window_log(ZSTD_WINDOW)?;
                }
                if let Some(table) = zstd_table(level) {
                    encoder.set_parameter(CParameter::HashLog(table))?;
                }
                Encoder::Zstd(Hashing::new(encoder))
            }
        };
        let encoder = BufWriter::with_capacity(GATHER, EncoderWriter(encoder));
        Ok(Self { encoder, path })
    }

    /// Ends the compression and writes the rest out. The file is not on the disk yet.
    ///
    /// # Errors
    /// When that fails.
    pub fn finish(self) -> Result<(Blob, File)> {
        let path = self.path;
        let context = || format!("writing {path}");
        let encoder = self
            .encoder
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .with_context(context)?;
        let (inner, outer) = match encoder.0 {
            Encoder::None(out) => (None, out),
            Encoder::Gzip(out) => {
                let (hasher, count) = (out.hasher, out.count);
                (
                    Some((hasher, count)),
                    out.out.finish().with_context(context)?,
                )
            }
            Encoder::Zstd(out) => {
                let (hasher, count) = (out.hasher, out.count);
                (
                    Some((hasher, count)),
                    out.out.finish().with_context(context)?,
                )
            }
        };
        let digest = Checksum::finish(outer.hasher);
        let (diff_id, uncompressed_size) = match inner {
            Some((hasher, count)) => (Checksum::finish(hasher), count),
            None => (digest, outer.count),
        };
        let blob = Blob {
            digest,
            diff_id,
            size: outer.count,
            uncompressed_size,
        };
        Ok((blob, outer.out))
    }

    /// Where the blob is being written.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder
            .write(bytes)
            .map_err(|e| io::Error::new(e.kind(), format!("writing {}: {e}", self.path)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// As many threads as the process may use at once.
pub fn available_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::noise;
    use super::*;

    fn compressed(input: &[u8], compression: Compression) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().join("blob")).unwrap();
        let mut writer = BlobWriter::create(path.clone(), compression, Arc::default()).unwrap();
        writer.write_all(input).unwrap();
        writer.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn the_usual_levels() {
        let usual = |name| Compression::from_name(name, None).unwrap();
        assert_eq!(usual("gzip"), Compression::Gzip(5));
        assert_eq!(usual("zstd"), Compression::Zstd(2));
    }

    #[test]
    fn zstd_finds_what_was_there_megabytes_before() {
        // Not noise alone, in which zstd soon skips what it looks at.
        let noise = noise(3 << 20);
        let once: Vec<u8> = (noise.chunks(48))
            .flat_map(|piece| [piece, &[0; 16]].concat())
            .collect();
        // In pieces of another order, so that each of them has to be found.
        let pieces: Vec<&[u8]> = once.chunks(1024).rev().collect();
        let twice = [&once[..], &pieces.concat()].concat();
        for level in [1, 2, 3, 4, 5] {
            let blob = compressed(&twice, Compression::Zstd(level));
            assert!(
                blob.len() < noise.len() * 8 / 5,
                "level {level}: {}",
                blob.len()
            );
            // The window's size, as a power of two, stands behind the magic number and a byte of
            // flags (RFC 8878, 3.1.1.1.2).
            assert_eq!(10 + (blob[5] >> 3), 23, "level {level}");
        }
    }
}
