//! A gzip writer (RFC 1952, one member): libdeflate for what can be compressed, and stored blocks
//! for what cannot.
//!
//! libdeflate compresses better than zlib, in two thirds of the time, but only what is in memory.
//! So the input is compressed in chunks, and their deflate streams are joined to one: the last
//! block of a chunk is no longer marked as the last, and an empty stored block after it fills the
//! last byte, so that the next chunk begins at a byte. No chunk refers to an earlier one, which
//! costs one byte in a thousand.
//!
//! Kernel modules, an initramfs, firmware and pictures are compressed already: 13 % of the bytes of
//! a trixie with a kernel and a compiler. So the input is examined in blocks of a fixed size, and a
//! block whose byte values are evenly distributed is stored.
//!
//! Where chunks and blocks end depends on the input alone, and not on how it is handed over.

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};
use flate2::Crc;
use libdeflater::{CompressionLvl, Compressor};

use super::deflate::{LastBlock, last_block};

/// Bytes that are looked at at once: as many as a stored block can have (RFC 1951, 3.2.4).
const BLOCK: usize = u16::MAX as usize;
/// Bytes that are compressed at once.
const CHUNK: usize = 16 * BLOCK;
/// Bits that a byte of a block carries at least, by how often each value occurs, when the block is
/// stored: compression could then save one byte in 160 at most by that, and repetitions are rare in
/// what is that even.
const INCOMPRESSIBLE: f64 = 7.95;
/// gzip, deflate, no flags, no time, no hint about the level, unknown system (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The length of an empty stored block and that inverted, behind its three bits and what fills the
/// byte up.
const EMPTY: [u8; 4] = [0, 0, 0xff, 0xff];
/// A stored block that is the last of the member, and empty.
const LAST: [u8; 5] = [1, 0, 0, 0xff, 0xff];

/// Compresses what is written to it.
pub struct GzipEncoder<W: Write> {
    out: W,
    compressor: Compressor,
    sum: Crc,
    started: bool,
    /// What has not been compressed: whole blocks up to `looked_at`, and the beginning of one.
    chunk: Vec<u8>,
    looked_at: usize,
    buffer: Vec<u8>,
}

impl<W: Write> GzipEncoder<W> {
    /// Writes to `out` at `level`, 1 to 12.
    ///
    /// # Errors
    /// When there is no such level.
    pub fn new(out: W, level: u32) -> Result<Self> {
        let known = i32::try_from(level)
            .ok()
            .and_then(|level| CompressionLvl::new(level).ok());
        let level = known.with_context(|| format!("gzip has no level {level}"))?;
        Ok(Self {
            out,
            compressor: Compressor::new(level),
            sum: Crc::new(),
            started: false,
            chunk: Vec::with_capacity(CHUNK),
            looked_at: 0,
            buffer: Vec::new(),
        })
    }

    /// Ends the member and gives back what it was written to.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        self.end_chunk()?;
        self.out.write_all(&LAST)?;
        self.out.write_all(&self.sum.sum().to_le_bytes())?;
        self.out.write_all(&self.sum.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.started {
            self.out.write_all(&HEADER)?;
            self.started = true;
        }
        let block = &self.chunk[self.looked_at..];
        self.sum.update(block);
        if is_incompressible(block) {
            let block = self.chunk.split_off(self.looked_at);
            self.end_chunk()?;
            return self.store(&block);
        }
        self.looked_at = self.chunk.len();
        if self.chunk.len() == CHUNK {
            self.end_chunk()?;
        }
        Ok(())
    }

    /// Compresses what is there.
    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.compress().map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)?;
        self.chunk.clear();
        self.looked_at = 0;
        Ok(())
    }

    /// Makes the buffer the blocks of the chunk, none of them the last, up to the end of a byte.
    fn compress(&mut self) -> Result<()> {
        let bound = self.compressor.deflate_compress_bound(self.chunk.len());
        self.buffer.resize(bound + 1 + EMPTY.len(), 0);
        let len = self
            .compressor
            .deflate_compress(&self.chunk, &mut self.buffer)?;
        let stream = &mut self.buffer[..len];
        let LastBlock { header, end } =
            last_block(stream).context("libdeflate has made something else than deflate")?;
        ensure!(
            end.div_ceil(8) == len,
            "libdeflate has made more than a stream"
        );
        stream[header / 8] &= !(1 << (header % 8));
        // The three bits of a stored block, all 0, begin in the last byte: it is theirs now.
        let used = end % 8;
        if used > 0 {
            stream[len - 1] &= (1 << used) - 1;
        }
        self.buffer.truncate(len);
        if used == 0 || used > 5 {
            self.buffer.push(0);
        }
        self.buffer.extend(EMPTY);
        Ok(())
    }

    /// Writes a stored block: not the last, of type 0, its length and that inverted (RFC 1951,
    /// 3.2.4).
    fn store(&mut self, block: &[u8]) -> io::Result<()> {
        let len = block.len() as u16;
        self.out.write_all(&[0])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&(!len).to_le_bytes())?;
        self.out.write_all(block)
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.looked_at + BLOCK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == self.looked_at + BLOCK {
            self.end_block()?;
        }
        Ok(count)
    }

    /// Gives nothing to `out` that the end of the member would not: where blocks end must not
    /// depend on it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the values of the bytes are spread so evenly that no code for them is shorter.
fn is_incompressible(block: &[u8]) -> bool {
    // Few bytes are never spread evenly, and not worth a change.
    if block.len() < BLOCK / 4 {
        return false;
    }
    // Four tables, so that equal neighbours do not wait for each other. Every second line of the
    // cache says enough.
    let mut counts = [[0u32; 256]; 4];
    let mut total = 0;
    for line in block.chunks_exact(64).step_by(2) {
        total += line.len();
        for four in line.chunks_exact(4) {
            for (table, byte) in counts.iter_mut().zip(four) {
                table[usize::from(*byte)] += 1;
            }
        }
    }
    let total = total as f64;
    let bits = (0..256).map(|value| {
        let count: u32 = counts.iter().map(|table| table[value]).sum();
        let share = f64::from(count) / total;
        if count == 0 {
            0.0
        } else {
            -share * share.log2()
        }
    });
    bits.sum::<f64>() > INCOMPRESSIBLE
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    /// Bytes that no compressor makes smaller.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    fn compressed(input: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = GzipEncoder::new(Vec::new(), 6).unwrap();
        for piece in input.chunks(piece.max(1)) {
            encoder.write_all(piece).unwrap();
        }
        encoder.finish().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn another_reader_gets_it_back_and_pieces_do_not_show(
            parts in prop::collection::vec((any::<bool>(), 0..200_000usize), 0..5),
            piece in 1..300_000usize,
        ) {
            let mut input = Vec::new();
            for (is_noise, len) in parts {
                match is_noise {
                    true => input.extend(noise(len)),
                    false => input.extend((0..len).map(|n| (n / 7 % 100) as u8)),
                }
            }
            let once = compressed(&input, usize::MAX);
            prop_assert_eq!(&once, &compressed(&input, piece));
            let mut output = Vec::new();
            // One member: this decoder reads no second one.
            GzDecoder::new(once.as_slice()).read_to_end(&mut output).unwrap();
            prop_assert!(output == input);
        }
    }

    #[test]
    fn what_cannot_shrink_hardly_grows_and_the_rest_shrinks() {
        let mut input = noise(1 << 20);
        assert!(is_incompressible(&input[..BLOCK]));
        let grown = compressed(&input, 1000).len();
        assert!(
            (input.len()..input.len() + 1000).contains(&grown),
            "{grown}"
        );
        let text = b"the quick brown fox jumps over the lazy dog\n".repeat(20_000);
        assert!(!is_incompressible(&text[..BLOCK]));
        let alone = compressed(&text, 1000).len();
        input.extend(&text);
        assert!(compressed(&input, 1000).len() < grown + alone + 2000);
    }
}
