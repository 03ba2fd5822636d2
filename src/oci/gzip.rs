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
//! Where chunks and blocks end depends on the input alone, and not on how it is handed over. So a
//! chunk may as well be compressed by another thread, one that has no blob of its own to write.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use anyhow::{Context, Result, ensure};
use flate2::Crc;
use libdeflater::{CompressionLvl, Compressor};

use super::deflate::{LastBlock, last_block};
use crate::parallel::Idle;

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
    level: CompressionLvl,
    sum: Crc,
    started: bool,
    /// What has not been compressed: whole blocks up to `looked_at`, and the beginning of one.
    chunk: Vec<u8>,
    looked_at: usize,
    buffer: Vec<u8>,
    /// Who may compress a chunk.
    idle: Arc<Idle>,
    /// What comes after a chunk that somebody else compresses, that first.
    pending: VecDeque<Pending>,
}

/// A piece of the member that cannot be written yet.
enum Pending {
    /// It is there.
    Here(Vec<u8>),
    /// Somebody makes it.
    There(Receiver<Result<Vec<u8>>>),
}

/// Pieces that are there and wait for an earlier one, at most.
const WAITING: usize = 2;

impl<W: Write> GzipEncoder<W> {
    /// Writes to `out` at `level`, 1 to 12, with the help of `idle`.
    ///
    /// # Errors
    /// When there is no such level.
    pub fn new(out: W, level: u32, idle: Arc<Idle>) -> Result<Self> {
        let known = i32::try_from(level)
            .ok()
            .and_then(|level| CompressionLvl::new(level).ok());
        let level = known.with_context(|| format!("gzip has no level {level}"))?;
        Ok(Self {
            out,
            compressor: Compressor::new(level),
            level,
            sum: Crc::new(),
            started: false,
            chunk: Vec::with_capacity(CHUNK),
            looked_at: 0,
            buffer: Vec::new(),
            idle,
            pending: VecDeque::new(),
        })
    }

    /// Ends the member and gives back what it was written to.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        self.end_chunk()?;
        self.write_pending(true)?;
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

    /// Compresses what is there, or leaves that to somebody who is idle.
    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        self.looked_at = 0;
        if self.chunk.len() == CHUNK && self.idle.is_there() {
            return self.leave_chunk();
        }
        compress(&mut self.compressor, &self.chunk, &mut self.buffer).map_err(io::Error::other)?;
        self.chunk.clear();
        if self.pending.is_empty() {
            return self.out.write_all(&self.buffer);
        }
        let made = self.buffer.clone();
        self.put(Pending::Here(made))
    }

    fn leave_chunk(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        let level = self.level;
        let (reply, answer) = channel();
        let errand = move || {
            let mut made = Vec::new();
            let done = compress(&mut Compressor::new(level), &chunk, &mut made);
            made.shrink_to_fit();
            // Nobody hears it where writing has failed.
            let _ = reply.send(done.map(|()| made));
        };
        if let Err(errand) = self.idle.offer(Box::new(errand)) {
            errand();
        }
        self.put(Pending::There(answer))
    }

    /// Puts a piece behind those that wait, and writes what is ready.
    fn put(&mut self, piece: Pending) -> io::Result<()> {
        self.pending.push_back(piece);
        let here = |piece: &&Pending| matches!(piece, Pending::Here(_));
        let is_full = self.pending.iter().filter(here).count() > WAITING;
        self.write_pending(is_full)
    }

    /// Writes the pieces that are there; waits for those that are not if it `may_wait`.
    fn write_pending(&mut self, may_wait: bool) -> io::Result<()> {
        let ended = || io::Error::other("a thread ended too early");
        while let Some(piece) = self.pending.front() {
            let made = match piece {
                Pending::Here(made) => made,
                Pending::There(answer) => {
                    let made = match answer.try_recv() {
                        Err(TryRecvError::Empty) if !may_wait => return Ok(()),
                        Err(TryRecvError::Empty) => answer.recv().map_err(|_| ended())?,
                        made => made.map_err(|_| ended())?,
                    };
                    &made.map_err(io::Error::other)?
                }
            };
            self.out.write_all(made)?;
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Writes a stored block: not the last, of type 0, its length and that inverted (RFC 1951,
    /// 3.2.4).
    fn store(&mut self, block: &[u8]) -> io::Result<()> {
        let len = block.len() as u16;
        let [low, high] = len.to_le_bytes();
        let header = [0, low, high, !low, !high];
        if self.pending.is_empty() {
            self.out.write_all(&header)?;
            return self.out.write_all(block);
        }
        self.put(Pending::Here([&header, block].concat()))
    }
}

/// Makes `made` the blocks of a chunk, none of them the last, up to the end of a byte.
fn compress(compressor: &mut Compressor, chunk: &[u8], made: &mut Vec<u8>) -> Result<()> {
    let bound = compressor.deflate_compress_bound(chunk.len());
    made.resize(bound + 1 + EMPTY.len(), 0);
    let len = compressor.deflate_compress(chunk, made)?;
    let stream = &mut made[..len];
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
    made.truncate(len);
    if used == 0 || used > 5 {
        made.push(0);
    }
    made.extend(EMPTY);
    Ok(())
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

    use super::super::tests::noise;
    use super::*;
    use crate::parallel::tests::keep_busy;

    fn compressed(input: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = GzipEncoder::new(Vec::new(), 6, Arc::default()).unwrap();
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
    fn who_compresses_does_not_show() {
        let words = (0..CHUNK * 9).map(|n| (n / 7 * (n >> 16) % 100) as u8);
        let mut input: Vec<u8> = words.collect();
        input[CHUNK * 5..CHUNK * 6].copy_from_slice(&noise(CHUNK));
        let idle = Arc::new(Idle::default());
        let threads = std::num::NonZeroUsize::new(4).unwrap();
        let jobs = [&input[..], b"a", b"b", b"c"];
        let work = |(): &mut (), input: &&[u8]| {
            let mut encoder = GzipEncoder::new(Vec::new(), 6, idle.clone())?;
            let is_long = input.len() > 1;
            // While all others are busy, a chunk that is left to them stays there.
            let busy = is_long.then(|| [(); 3].map(|()| keep_busy(&idle)));
            let (first, rest) = input.split_at(input.len().min(CHUNK));
            encoder.write_all(first)?;
            assert_eq!(!encoder.pending.is_empty(), is_long);
            drop(busy);
            encoder.write_all(rest)?;
            Ok(encoder.finish()?)
        };
        let made = crate::parallel::map_with(&idle, threads, &jobs, || (), work).unwrap();
        for (input, made) in jobs.iter().zip(made) {
            assert!(made == compressed(input, usize::MAX));
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
