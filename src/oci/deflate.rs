//! Where the blocks of a deflate stream begin and end (RFC 1951, section 3.2).
//!
//! A compressor that is given one chunk at a time marks the last block of each chunk as the last of
//! the stream. To join chunks, that mark has to be cleared, and the bit at which the block ends has
//! to be known. Both places can only be found by decoding all blocks from the start. They are
//! decoded for their lengths here; what they stand for does not matter.

use anyhow::{Context, Result, bail, ensure};

/// Entries of the table by which literals and lengths are looked up: by as many bits as that has.
/// Longer codes, which are rare, are searched.
const LITERALS: usize = 1 << 12;
/// The same of distances.
const DISTANCES: usize = 1 << 10;
/// The same of the lengths of codes, which have seven bits at most.
const LENGTHS: usize = 1 << 7;
/// The longest code, in bits.
const LONGEST: usize = 15;
/// The code for literals and lengths: of the end of a block.
const END_OF_BLOCK: usize = 256;
/// The order of the lengths of the codes for lengths of codes.
const ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];
/// The most literals, lengths and distances that a block can name codes for.
const MOST_CODES: usize = 257 + 31 + 1 + 31;
/// Bits of a code with the extra bits behind it; the rest of an entry says what it is.
const BITS: u16 = 0x1f;
/// A length, behind which a distance comes.
const LENGTH: u16 = 0x20;
/// The end of the block.
const END: u16 = 0x40;
/// No entry: no code, or one that is longer than the bits of the table.
const NONE: u16 = 0x80;
/// Where an entry has a symbol, if it matters.
const SYMBOL: u32 = 8;

/// The last block of a stream, in bits from the beginning of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastBlock {
    /// Its first bit, which is set because it is the last.
    pub header: usize,
    /// The bit behind its last one.
    pub end: usize,
}

/// Finds the last block of `stream`.
///
/// # Errors
/// When it is no whole deflate stream.
pub fn last_block(stream: &[u8]) -> Result<LastBlock> {
    let mut reader = Reader { stream, at: 0 };
    let mut codes = Codes::default();
    loop {
        let header = reader.at;
        let bits = reader.take(3)?;
        match bits >> 1 {
            0 => reader.stored()?,
            1 => {
                codes.make_fixed()?;
                reader.block(&codes)?;
            }
            2 => {
                reader.codes(&mut codes)?;
                reader.block(&codes)?;
            }
            _ => bail!("a block of a type that there is not"),
        }
        if bits & 1 == 1 {
            let end = reader.at;
            return Ok(LastBlock { header, end });
        }
    }
}

/// Reads a stream bit by bit, the lowest of a byte first.
struct Reader<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next bits, 57 at least, with zeros behind the end.
    fn peek(&self) -> u64 {
        let rest = self.stream.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk::<8>() {
            Some(word) => *word,
            None => {
                let mut word = [0; 8];
                word[..rest.len()].copy_from_slice(rest);
                word
            }
        };
        u64::from_le_bytes(word) >> (self.at % 8)
    }

    fn skip(&mut self, bits: usize) -> Result<()> {
        self.at += bits;
        ensure!(self.at <= self.stream.len() * 8, "it is cut short");
        Ok(())
    }

    /// At most 16 bits.
    fn take(&mut self, bits: u32) -> Result<usize> {
        let value = self.peek() & ((1 << bits) - 1);
        self.skip(bits as usize)?;
        Ok(value as usize)
    }

    fn stored(&mut self) -> Result<()> {
        self.at = self.at.next_multiple_of(8);
        let len = self.take(16)?;
        let inverted = self.take(16)?;
        ensure!(len ^ inverted == 0xffff, "a stored block has no length");
        self.skip(len * 8)
    }

    /// Reads the codes of a block that has its own.
    fn codes(&mut self, codes: &mut Codes) -> Result<()> {
        let literals = self.take(5)? + 257;
        let distances = self.take(5)? + 1;
        let count = self.take(4)? + 4;
        let mut of_lengths = [0; ORDER.len()];
        for symbol in &ORDER[..count] {
            of_lengths[*symbol] = self.take(3)? as u8;
        }
        codes
            .of_lengths
            .make(&of_lengths, |symbol| (0, (symbol as u16) << SYMBOL))?;
        let mut lengths = [0; MOST_CODES];
        let mut known = 0;
        while known < literals + distances {
            let entry = codes.of_lengths.find(self.peek())?;
            self.skip(usize::from(entry & BITS))?;
            let symbol = usize::from(entry >> SYMBOL);
            let (length, count) = match symbol {
                0..=15 => (symbol as u8, 1),
                16 => {
                    let last = known.checked_sub(1);
                    let last = last.context("a length is repeated, but there is none")?;
                    (lengths[last], 3 + self.take(2)?)
                }
                17 => (0, 3 + self.take(3)?),
                _ => (0, 11 + self.take(7)?),
            };
            let repeated = lengths[..literals + distances].get_mut(known..known + count);
            repeated.context("too many lengths")?.fill(length);
            known += count;
        }
        let (literals, distances) = lengths[..known].split_at(literals);
        codes.make(literals, distances)
    }

    /// The rest of a block with these codes.
    fn block(&mut self, codes: &Codes) -> Result<()> {
        loop {
            self.skip_most(codes);
            let bits = self.peek();
            let entry = codes.literals.find(bits)?;
            let mut used = entry & BITS;
            if entry & LENGTH != 0 {
                used += codes.distances.find(bits >> used)? & BITS;
            }
            self.skip(usize::from(used))?;
            if entry & END != 0 {
                return Ok(());
            }
        }
    }

    /// Skips what the tables have entries for, up to the end of the block or some eight bytes
    /// before that of the stream.
    ///
    /// This is where the time goes. So bits are kept in a register, and nothing depends on whether
    /// a literal or a length comes, which no processor could foresee.
    fn skip_most(&mut self, codes: &Codes) {
        let word_at = |at: usize| self.stream.get(at..)?.first_chunk::<8>();
        let mut next = self.at / 8;
        let Some(word) = word_at(next) else {
            return;
        };
        let mut bits = u64::from_le_bytes(*word) >> (self.at % 8);
        let mut filled = 56 - (self.at % 8);
        next += 7;
        while let Some(word) = word_at(next) {
            // Those above `filled` are the right ones, too, where there are some.
            bits |= u64::from_le_bytes(*word) << filled;
            next += (63 - filled) / 8;
            filled |= 56;
            // A literal or a length, a distance, and what is behind them: 40 bits at most.
            let entry = codes.literals.direct(bits);
            let length = usize::from(entry & BITS);
            // All bits where it is one, no bits where it is not.
            let is_length = u16::from(entry & LENGTH == 0).wrapping_sub(1);
            let distance = codes.distances.direct(bits >> length) & is_length;
            let second = codes.literals.direct(bits >> length);
            let are_literals = u16::from((entry | second) & !BITS != 0).wrapping_sub(1);
            if (entry & (NONE | END)) | (distance & NONE) != 0 {
                break;
            }
            let used = length + usize::from((distance | second & are_literals) & BITS);
            bits >>= used;
            filled -= used;
        }
        self.at = next * 8 - filled;
    }
}

/// The codes of a block.
#[derive(Default)]
struct Codes {
    literals: Code<LITERALS>,
    distances: Code<DISTANCES>,
    /// Of the lengths of the codes of both.
    of_lengths: Code<LENGTHS>,
}

impl Codes {
    /// Makes them of the lengths of their codes, 0 for what has none.
    fn make(&mut self, literals: &[u8], distances: &[u8]) -> Result<()> {
        self.literals.make(literals, |symbol| match symbol {
            0..END_OF_BLOCK => (0, 0),
            END_OF_BLOCK => (0, END),
            // 257 to 264 and 285 have no extra bits.
            265..=284 => ((symbol - 261) as u16 / 4, LENGTH),
            _ => (0, LENGTH),
        })?;
        self.literals.join_literals();
        let extra = |symbol: usize| (symbol / 2).saturating_sub(1) as u16;
        self.distances.make(distances, |symbol| (extra(symbol), 0))
    }

    fn make_fixed(&mut self) -> Result<()> {
        let mut literals = [8; 288];
        literals[144..256].fill(9);
        literals[256..280].fill(7);
        self.make(&literals, &[5; 30])
    }
}

/// A Huffman code as deflate has them, with a table of `SIZE` entries, a power of two.
struct Code<const SIZE: usize> {
    /// By the next bits: an entry.
    direct: Box<[u16; SIZE]>,
    /// Longer codes: their bits, how many, and the entry.
    long: Vec<(u64, u32, u16)>,
}

impl<const SIZE: usize> Default for Code<SIZE> {
    fn default() -> Self {
        Self {
            direct: Box::new([NONE; SIZE]),
            long: Vec::new(),
        }
    }
}

impl<const SIZE: usize> Code<SIZE> {
    /// Bits by which a code is looked up.
    const DIRECT: u32 = SIZE.ilog2();

    /// Makes it the code of these lengths. `kind` says how many bits come behind the code of a
    /// symbol, and what it is.
    fn make(&mut self, lengths: &[u8], kind: impl Fn(usize) -> (u16, u16)) -> Result<()> {
        self.direct.fill(NONE);
        self.long.clear();
        let mut next = [0u32; LONGEST + 2];
        for length in lengths.iter().filter(|length| **length > 0) {
            next[usize::from(*length) + 1] += 1;
        }
        // The first code of each length (RFC 1951, 3.2.2).
        for length in 1..next.len() {
            next[length] = (next[length] + next[length - 1]) << 1;
        }
        for (symbol, length) in lengths
            .iter()
            .enumerate()
            .filter(|(_, length)| **length > 0)
        {
            let length = u32::from(*length);
            let value = next[length as usize];
            next[length as usize] += 1;
            ensure!(value < 1 << length, "there are too many codes");
            // Codes begin with their highest bit.
            let bits = (value.reverse_bits() >> (32 - length)) as usize;
            let (extra, what) = kind(symbol);
            let entry = what | (length as u16 + extra);
            if length > Self::DIRECT {
                self.long.push((bits as u64, length, entry));
                continue;
            }
            for at in (bits..SIZE).step_by(1 << length) {
                self.direct[at] = entry;
            }
        }
        Ok(())
    }

    /// Makes a literal and another one behind it one entry, where both are looked up at once: most
    /// of what a stream has are short codes of literals.
    fn join_literals(&mut self) {
        // From the end: the entry of what is behind a literal has a lower place, and is not joined
        // yet.
        for at in (0..SIZE).rev() {
            let first = self.direct[at];
            let second = self.direct[at >> (first & BITS)];
            let are_literals = (first | second) & !BITS == 0;
            let length = (first & BITS) + (second & BITS);
            if are_literals && u32::from(length) <= Self::DIRECT {
                self.direct[at] = length;
            }
        }
    }

    /// The entry of the table for what `bits` begin with.
    fn direct(&self, bits: u64) -> u16 {
        self.direct[bits as usize & (SIZE - 1)]
    }

    /// The entry of the code that `bits` begin with.
    fn find(&self, bits: u64) -> Result<u16> {
        let entry = self.direct(bits);
        if entry != NONE {
            return Ok(entry);
        }
        let begins = |(code, length, _): &&(u64, u32, u16)| bits & ((1 << length) - 1) == *code;
        let found = self.long.iter().find(begins);
        found.map(|(.., entry)| *entry).context("no code")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libdeflater::{CompressionLvl, Compressor};
    use proptest::prelude::*;

    use super::*;

    fn compressed(input: &[u8], level: i32) -> Vec<u8> {
        let mut compressor = Compressor::new(CompressionLvl::new(level).unwrap());
        let mut output = vec![0; compressor.deflate_compress_bound(input.len())];
        let len = compressor.deflate_compress(input, &mut output).unwrap();
        output.truncate(len);
        output
    }

    /// Of all kinds: what repeats, nearby and far away, what has few values, and what has none that
    /// is rare.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let part = (0..5u8, 1..60_000usize, any::<u64>());
        prop::collection::vec(part, 0..5).prop_map(|parts| {
            let mut input = Vec::new();
            for (kind, len, mut state) in parts {
                let end = input.len() + len;
                while input.len() < end {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let random = (state >> 40) as u32;
                    input.push(match kind {
                        0 => ((end - input.len()) / 7 % 100) as u8,
                        1 | 4 => random as u8,
                        // Long codes: each value is half as likely as the one before.
                        2 => random.trailing_zeros() as u8,
                        _ => (random.trailing_zeros() * 16) as u8 | (random >> 28) as u8 & 3,
                    });
                    // Matches one behind the other, with all the bits that there are.
                    for n in (0..8).filter(|_| kind == 4 && random % 8 == 0) {
                        let distance = 1 << ((random >> n) % 16) | random as usize & 0x7fff;
                        let from = input.len().saturating_sub(distance);
                        let to = input.len().min(from + 3 + (random >> n) as usize % 250);
                        input.extend_from_within(from..to);
                    }
                }
            }
            input
        })
    }

    /// Matches with the longest codes that the tables have, and all the bits behind them.
    #[test]
    fn the_longest_entries_are_skipped() {
        let mut bits = Vec::new();
        let mut lowest_first = |value: u32, count: u32| {
            bits.extend((0..count).map(|bit| value >> bit & 1 == 1));
        };
        // The last block, with codes of its own: for 286 literals and lengths, 30 distances, and 18
        // lengths of codes, of which 0, 10, 12 and 1 have two bits each, in that order.
        lowest_first(1, 1);
        lowest_first(2, 2);
        lowest_first(29, 5);
        lowest_first(29, 5);
        lowest_first(14, 4);
        for symbol in &ORDER[..18] {
            lowest_first(
                if [0, 1, 10, 12].contains(symbol) {
                    2
                } else {
                    0
                },
                3,
            );
        }
        let mut highest_first = |value: u32, count: u32| {
            bits.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        };
        for symbol in 0..286 {
            let length = match symbol {
                0 => 1,
                END_OF_BLOCK | 284 => 3,
                _ => 0,
            };
            highest_first(length, 2);
        }
        for symbol in 0..30 {
            let length = match symbol {
                0 => 1,
                27 | 29 => 2,
                _ => 0,
            };
            highest_first(length, 2);
        }
        for _ in 0..100 {
            highest_first(0b1000_0000_0001, 12);
            highest_first(0b1_1111, 5);
            highest_first(0b10_0000_0001, 10);
            highest_first(0b1_1111_1111_1111, 13);
        }
        highest_first(0b1000_0000_0000, 12);
        let end = bits.len();
        let stream: Vec<u8> = bits
            .chunks(8)
            .map(|byte| {
                byte.iter()
                    .rev()
                    .fold(0, |sum, bit| sum << 1 | u8::from(*bit))
            })
            .collect();
        assert_eq!(last_block(&stream).unwrap(), LastBlock { header: 0, end });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Without the mark of the last block, and with another block behind its end, a stream
        /// says the same.
        #[test]
        fn the_last_block_is_where_it_is_said_to_be(input in input(), level in 0..=12) {
            let mut stream = compressed(&input, level);
            let LastBlock { header, end } = last_block(&stream).unwrap();
            prop_assert_eq!(end.div_ceil(8), stream.len());
            prop_assert_eq!(stream[header / 8] >> (header % 8) & 1, 1);
            stream[header / 8] ^= 1 << (header % 8);
            // A stored block, the last, with nothing in it: three bits and to the end of the byte.
            stream.push(0);
            stream[end / 8] |= 1 << (end % 8);
            stream.truncate((end + 3).div_ceil(8));
            stream.extend([0, 0, 0xff, 0xff]);
            let mut output = Vec::new();
            let mut decoder = flate2::read::DeflateDecoder::new(stream.as_slice());
            std::io::Read::read_to_end(&mut decoder, &mut output).unwrap();
            prop_assert!(output == input);
        }

        #[test]
        fn what_is_no_stream_is_an_error_or_ends_in_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(last) = last_block(&bytes) {
                prop_assert!(last.header < last.end && last.end <= bytes.len() * 8);
            }
        }
    }
}
