//! A gzip writer (RFC 1952, one member) that stores blocks which cannot be compressed as they are.
//!
//! Kernel modules, an initramfs, firmware and pictures are compressed already: 13 % of the bytes of
//! a trixie with a kernel and a compiler. So the input is looked at in blocks of a fixed size, and
//! a block whose bytes are spread evenly is stored. The size is fixed so that the output depends on
//! the input alone, not on how it is handed over.

use std::io::{self, Write};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes that are looked at, and compressed or stored, at once: as many as a stored block can have
/// (RFC 1951, 3.2.4).
const BLOCK: usize = u16::MAX as usize;
/// Bits that a byte of a block carries at least, by how often each value occurs, when the block is
/// stored: compression could then save one byte in 160 at most by that, and repetitions are rare in
/// what is that even.
const INCOMPRESSIBLE: f64 = 7.95;
/// gzip, deflate, no flags, no time, no hint about the level, unknown system (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it.
pub struct GzipEncoder<W: Write> {
    out: W,
    compress: Compress,
    sum: Crc,
    started: bool,
    /// What is stored was not seen by the compressor, which must not refer to anything before it.
    storing: bool,
    block: Vec<u8>,
    buffer: Vec<u8>,
}

impl<W: Write> GzipEncoder<W> {
    /// Writes to `out` at `level`, 1 to 9.
    pub fn new(out: W, level: u32) -> Self {
        Self {
            out,
            compress: Compress::new(Compression::new(level), false),
            sum: Crc::new(),
            started: false,
            storing: false,
            block: Vec::with_capacity(BLOCK),
            buffer: Vec::with_capacity(BLOCK + 1024),
        }
    }

    /// Ends the member and gives back what it was written to.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        self.deflate(&[], FlushCompress::Finish)?;
        self.out.write_all(&self.sum.sum().to_le_bytes())?;
        self.out.write_all(&self.sum.amount().to_le_bytes())?;
        Ok(self.out)
    }

    fn end_block(&mut self) -> io::Result<()> {
        if !self.started {
            self.out.write_all(&HEADER)?;
            self.started = true;
        }
        let block = std::mem::take(&mut self.block);
        self.sum.update(&block);
        if is_incompressible(&block) {
            self.store(&block)?;
        } else {
            self.storing = false;
            self.deflate(&block, FlushCompress::None)?;
        }
        self.block = block;
        self.block.clear();
        Ok(())
    }

    /// Writes a stored block: not the last, of type 0, its length and that inverted (RFC 1951,
    /// 3.2.4).
    fn store(&mut self, block: &[u8]) -> io::Result<()> {
        if !self.storing {
            // Ends at a byte, and makes the compressor forget what came before: from here its
            // distances and the reader's would differ.
            self.deflate(&[], FlushCompress::Full)?;
            self.storing = true;
        }
        let len = block.len() as u16;
        self.out.write_all(&[0])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&(!len).to_le_bytes())?;
        self.out.write_all(block)
    }

    fn deflate(&mut self, mut input: &[u8], flush: FlushCompress) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let before = self.compress.total_in();
            let status = self
                .compress
                .compress_vec(input, &mut self.buffer, flush)
                .map_err(io::Error::other)?;
            let read = (self.compress.total_in() - before) as usize;
            input = &input[read..];
            self.out.write_all(&self.buffer)?;
            let has_room = self.buffer.len() < self.buffer.capacity();
            match status {
                Status::StreamEnd => return Ok(()),
                _ if input.is_empty() && has_room && flush != FlushCompress::Finish => {
                    return Ok(());
                }
                _ if read == 0 && self.buffer.is_empty() => {
                    return Err(io::Error::other("the compressor makes no progress"));
                }
                _ => {}
            }
        }
    }
}

impl<W: Write> Write for GzipEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        if self.block.len() == BLOCK {
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
    // Four tables, so that equal neighbours do not wait for each other.
    let mut counts = [[0u32; 256]; 4];
    for four in block.chunks_exact(4) {
        for (table, byte) in counts.iter_mut().zip(four) {
            table[usize::from(*byte)] += 1;
        }
    }
    let total = (block.len() / 4 * 4) as f64;
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
        let mut encoder = GzipEncoder::new(Vec::new(), 6);
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
