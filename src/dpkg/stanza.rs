//! The syntax of the database's files: stanzas of fields, as deb822(5) has them. What the fields
//! mean is `status`'s part.
//!
//! Everything works on bytes: a description in an old encoding is no reason to refuse a database.

use std::io::{self, BufRead};
use std::ops::Range;

/// What is wrong with a file, and on which line, counted from 1.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) line: usize,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

/// Why there is no next stanza.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file cannot be read.
    Read(io::Error),
    /// It is not what dpkg writes.
    Fault(Fault),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A field: its name, the first line of its value without white space around it, and its line.
/// Continuation lines are left out, as no field the caller needs may have any.
#[derive(Debug)]
struct Field {
    line: usize,
    name: Range<usize>,
    value: Range<usize>,
}

/// The fields between two empty lines; never without one.
#[derive(Debug, Default)]
pub(super) struct Stanza {
    /// Names and values, which the fields are pieces of.
    text: Vec<u8>,
    fields: Vec<Field>,
}

impl Stanza {
    /// The line of the first field.
    pub(super) fn line(&self) -> usize {
        self.fields.first().map_or(0, |field| field.line)
    }

    /// The value and line of the field `name`, in whatever case the file writes it; `None` when it
    /// is missing or empty.
    pub(super) fn get(&self, name: &str) -> Result<Option<(&str, usize)>, Fault> {
        let has_name =
            |field: &&Field| self.text[field.name.clone()].eq_ignore_ascii_case(name.as_bytes());
        let mut found = self.fields.iter().filter(has_name);
        let Some(field) = found.next() else {
            return Ok(None);
        };
        if let Some(second) = found.next() {
            return Err(Fault::new(
                second.line,
                format!(
                    "a second {name} field (the first is on line {}); is an empty line missing?",
                    field.line
                ),
            ));
        }
        let value = &self.text[field.value.clone()];
        match std::str::from_utf8(value) {
            Ok("") => Ok(None),
            Ok(value) => Ok(Some((value, field.line))),
            Err(_) => Err(Fault::new(
                field.line,
                format!("the {name} field is not UTF-8: {}", excerpt(value)),
            )),
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    fn add(&mut self, line: usize, name: &[u8], value: &[u8]) {
        let mut piece = |bytes: &[u8]| {
            let start = self.text.len();
            self.text.extend_from_slice(bytes);
            start..self.text.len()
        };
        let (name, value) = (piece(name), piece(value));
        self.fields.push(Field { line, name, value });
    }
}

/// The stanzas of a file, one at a time: a database may be large, and only a part of it is needed.
pub(super) struct Stanzas<R> {
    reader: R,
    /// Whether every line has an end.
    strict: bool,
    line: usize,
    buffer: Vec<u8>,
    stanza: Stanza,
}

impl<R: BufRead> Stanzas<R> {
    /// Those that `reader` gives. Where `strict`, a last line without an end is a fault.
    pub(super) fn new(reader: R, strict: bool) -> Self {
        Self {
            reader,
            strict,
            line: 0,
            buffer: Vec::new(),
            stanza: Stanza::default(),
        }
    }

    /// The next one; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<&Stanza>, Failure> {
        self.stanza.clear();
        loop {
            self.buffer.clear();
            let got = self.reader.read_until(b'\n', &mut self.buffer);
            if got.map_err(Failure::Read)? == 0 {
                break;
            }
            self.line += 1;
            let line = match self.buffer.strip_suffix(b"\n") {
                Some(line) => line,
                None if self.strict => {
                    let what = "the file ends in the middle of a line";
                    return Err(Fault::new(self.line, what).into());
                }
                None => &self.buffer,
            };
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                if !self.stanza.fields.is_empty() {
                    break;
                }
            } else if line.starts_with(b" ") || line.starts_with(b"\t") {
                if self.stanza.fields.is_empty() && !line.trim_ascii().is_empty() {
                    let what = format!("a continuation line without a field: {}", excerpt(line));
                    return Err(Fault::new(self.line, what).into());
                }
            } else if let Some((name, value)) = split_field(line) {
                self.stanza.add(self.line, name, value);
            } else {
                let what = format!("neither a field nor a continuation line: {}", excerpt(line));
                return Err(Fault::new(self.line, what).into());
            }
        }
        Ok((!self.stanza.fields.is_empty()).then_some(&self.stanza))
    }
}

/// Splits `Name: value`. A name is of printable ASCII and starts with neither `#` nor `-`
/// (deb822(5)).
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, rest) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let legal =
        name.iter().all(u8::is_ascii_graphic) && !matches!(name.first(), None | Some(b'#' | b'-'));
    legal.then_some((name, rest.strip_prefix(b":")?.trim_ascii()))
}

/// The beginning of `bytes`, quoted, for a message.
fn excerpt(bytes: &[u8]) -> String {
    const SHOWN: usize = 40;
    let dots = if bytes.len() > SHOWN { "…" } else { "" };
    format!(
        "\"{}{dots}\"",
        bytes.get(..SHOWN).unwrap_or(bytes).escape_ascii()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    type Value = Option<(String, usize)>;

    fn values(text: &[u8], name: &str) -> Vec<Value> {
        let mut stanzas = Stanzas::new(text, false);
        let mut values = Vec::new();
        while let Some(stanza) = stanzas.next().unwrap() {
            let value = stanza.get(name).unwrap();
            values.push(value.map(|(value, line)| (value.to_owned(), line)));
        }
        values
    }

    fn fault(text: &[u8]) -> Fault {
        let mut stanzas = Stanzas::new(text, false);
        loop {
            match stanzas.next() {
                Ok(found) => assert!(found.is_some(), "no fault in {}", text.escape_ascii()),
                Err(Failure::Fault(fault)) => return fault,
                Err(Failure::Read(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn stanzas_and_fields() {
        let some = |value: &str, line| Some((value.to_owned(), line));
        let table: [(&[u8], Vec<Value>); 9] = [
            (b"", vec![]),
            (b"\n\n\n", vec![]),
            (b"Package: a\n", vec![some("a", 1)]),
            (b"Package: a", vec![some("a", 1)]),
            (
                b"\n\nPACKAGE:a\n\n\n\npackage :\tb \n",
                vec![some("a", 3), some("b", 7)],
            ),
            (
                b"Package: a\r\n\r\nPackage: b\r\n",
                vec![some("a", 1), some("b", 3)],
            ),
            (
                b"Other: x\n Package: no\n\tPackage: no\n .\n  \nPackage: a\n",
                vec![some("a", 6)],
            ),
            (
                b"Description: \xff\xfe\n \xff\nPackage: a\n",
                vec![some("a", 3)],
            ),
            (b"Package:\n a\n\nX: y\n", vec![None, None]),
        ];
        for (text, expected) in table {
            assert_eq!(values(text, "Package"), expected, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn broken_lines_are_told_by_number() {
        let table: [(&[u8], usize, &str); 7] = [
            (
                b"Package: a\nnonsense\n",
                2,
                "neither a field nor a continuation line: \"nonsense\"",
            ),
            (
                b"Package: a\n\n continued\n",
                3,
                "a continuation line without a field",
            ),
            (b"\0\0\0\0", 1, "neither a field"),
            (b"\n# a comment: here\n", 2, "neither a field"),
            (b"-----BEGIN: x\n", 1, "neither a field"),
            (b": x\n", 1, "neither a field"),
            (b"two words: x\n", 1, "neither a field"),
        ];
        for (text, line, what) in table {
            let fault = fault(text);
            assert_eq!(fault.line, line, "{}", text.escape_ascii());
            assert!(fault.what.contains(what), "{}", fault.what);
        }
    }

    #[test]
    fn a_field_is_there_once_and_utf8() {
        let mut stanzas = Stanzas::new(&b"A: 1\nB: \xff\na: 2\n"[..], true);
        let stanza = stanzas.next().unwrap().unwrap();
        let twice = stanza.get("A").unwrap_err();
        assert_eq!(
            (twice.line, twice.what.contains("second A field")),
            (3, true)
        );
        let binary = stanza.get("B").unwrap_err();
        assert_eq!(
            (binary.line, binary.what.contains("not UTF-8: \"\\xff\"")),
            (2, true)
        );
    }
}
