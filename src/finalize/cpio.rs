//! What is in an initramfs: archives of the format "newc" one after the other (Linux,
//! Documentation/driver-api/early-userspace/buffer-format.rst), the last of them compressed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context, Result, bail, ensure};

/// Bytes of the header of an entry: a magic number of 6 and 13 fields of 8 hexadecimal digits.
const HEADER: usize = 110;
/// The longest name that Linux takes (PATH_MAX).
const MAX_NAME: u64 = 4096;
/// More entries than any initramfs has.
const MAX_ENTRIES: usize = 1_000_000;
const END: &str = "TRAILER!!!";

/// The regular files of an initramfs by path, without a leading slash; and the content of those
/// wanted.
#[derive(Debug, Default)]
pub struct Initramfs {
    /// Every regular file with its size.
    pub files: BTreeMap<String, u64>,
    /// The content of the files that were asked for.
    pub contents: BTreeMap<String, Vec<u8>>,
}

/// Reads an initramfs; of the files in `wanted` also the content, up to `limit` bytes each.
///
/// # Errors
/// When it is none, is damaged, or is compressed by what is not known here (gzip and zstd are).
pub fn read(initramfs: impl Read, wanted: &[&str], limit: u64) -> Result<Initramfs> {
    let mut found = Initramfs::default();
    let mut reader: Box<dyn BufRead + '_> =
        Box::new(BufReader::with_capacity(256 << 10, initramfs));
    let mut is_packed = false;
    loop {
        let begin = reader.fill_buf().context("reading the initramfs")?;
        match begin {
            [] => return Ok(found),
            [0, ..] => {
                let zeros = begin.iter().take_while(|byte| **byte == 0).count();
                reader.consume(zeros);
            }
            [b'0', b'7', ..] => archive(&mut reader, wanted, limit, &mut found)?,
            _ if is_packed => bail!("it holds what is not an archive"),
            [0x1f, 0x8b, ..] => {
                reader = Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader)));
                is_packed = true;
            }
            [0x28, 0xb5, ..] => {
                let decoder = zstd::Decoder::with_buffer(reader)?;
                reader = Box::new(BufReader::new(decoder));
                is_packed = true;
            }
            _ => bail!("it is compressed by something else than gzip or zstd"),
        }
    }
}

fn archive(
    reader: &mut dyn BufRead,
    wanted: &[&str],
    limit: u64,
    found: &mut Initramfs,
) -> Result<()> {
    loop {
        let mut header = [0; HEADER];
        reader.read_exact(&mut header).context("reading an entry")?;
        ensure!(
            header.starts_with(b"070701") || header.starts_with(b"070702"),
            "an entry has another format than newc"
        );
        let mode = field(&header, 1)?;
        let size = field(&header, 6)?;
        let name_size = field(&header, 11)?;
        ensure!(
            (1..=MAX_NAME).contains(&name_size),
            "a name has {name_size} bytes"
        );
        let mut name = vec![0; name_size as usize];
        reader.read_exact(&mut name).context("reading a name")?;
        skip(reader, padding(HEADER as u64 + name_size))?;
        name.pop();
        let name = String::from_utf8_lossy(&name).into_owned();
        if name == END {
            return Ok(());
        }
        let name = name
            .trim_start_matches("./")
            .trim_start_matches('/')
            .to_owned();
        if wanted.contains(&name.as_str()) && size <= limit {
            let mut content = vec![0; size as usize];
            reader.read_exact(&mut content).context("reading a file")?;
            found.contents.insert(name.clone(), content);
        } else {
            skip(reader, size)?;
        }
        skip(reader, padding(size))?;
        if mode & 0o170_000 == 0o100_000 {
            ensure!(found.files.len() < MAX_ENTRIES, "it has too many files");
            found.files.insert(name, size);
        }
    }
}

/// The field at that position, from 0.
fn field(header: &[u8; HEADER], at: usize) -> Result<u64> {
    let digits = std::str::from_utf8(&header[6 + at * 8..14 + at * 8])?;
    u64::from_str_radix(digits, 16).with_context(|| format!("'{digits}' is not a number"))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % 4
}

fn skip(reader: &mut dyn BufRead, bytes: u64) -> Result<()> {
    let skipped = io::copy(&mut reader.take(bytes), &mut io::sink())?;
    ensure!(skipped == bytes, "it ends too early");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"070701".to_vec();
        let fields = [
            0,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            0,
            0,
            name.len() as u32 + 1,
            0,
        ];
        for field in fields {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn two_archives(pack: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut early = entry("kernel/x86/microcode/a.bin", 0o100_644, b"code");
        early.extend(entry(END, 0, b""));
        early.resize(512, 0);
        let mut main = entry("./usr", 0o040_755, b"");
        main.extend(entry("usr/conf", 0o100_644, b"[a]\n"));
        main.extend(entry("usr/link", 0o120_777, b"conf"));
        main.extend(entry(END, 0, b""));
        early.extend(pack(&main));
        early
    }

    #[test]
    fn both_archives_are_read() {
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        for packed in [
            two_archives(<[u8]>::to_vec),
            two_archives(gzip),
            two_archives(zstd),
        ] {
            let found = read(packed.as_slice(), &["usr/conf"], 100).unwrap();
            let names: Vec<_> = found.files.keys().map(String::as_str).collect();
            assert_eq!(names, ["kernel/x86/microcode/a.bin", "usr/conf"]);
            assert_eq!(found.contents["usr/conf"], b"[a]\n");
        }
        let other = read(two_archives(|_| b"\xfd7zXZ".to_vec()).as_slice(), &[], 0);
        assert!(format!("{:#}", other.unwrap_err()).contains("gzip or zstd"));
        let cut = two_archives(<[u8]>::to_vec);
        assert!(read(&cut[..cut.len() - 140], &[], 0).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_make_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(bytes.as_slice(), &[], 10);
            let mut with_magic = b"070701".to_vec();
            with_magic.extend(bytes);
            let _ = read(with_magic.as_slice(), &[], 10);
        }
    }
}
