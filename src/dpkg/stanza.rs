//! The syntax of the database's files: stanzas of fields, as deb822(5) has them. What the fields mean is `status`'s part.
//!
//! Everything works on bytes: a description in an old encoding is no reason to refuse a database.

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

/// A field: its name, the first line of its value without white space around it, and its line. Continuation lines are
/// left out, as no field the caller needs may have any.
#[derive(Debug)]
struct Field<'a> {
    line: usize,
    name: &'a [u8],
    value: &'a [u8],
}

/// The fields between two empty lines; never without one.
#[derive(Debug)]
pub(super) struct Stanza<'a> {
    fields: Vec<Field<'a>>,
}

impl<'a> Stanza<'a> {
    /// The line of the first field.
    pub(super) fn line(&self) -> usize {
        self.fields.first().map_or(0, |field| field.line)
    }

    /// The value and line of the field `name`, in whatever case the file writes it; `None` when it is missing or empty.
    pub(super) fn get(&self, name: &str) -> Result<Option<(&'a str, usize)>, Fault> {
        let mut found = self
            .fields
            .iter()
            .filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()));
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
        match std::str::from_utf8(field.value) {
            Ok("") => Ok(None),
            Ok(value) => Ok(Some((value, field.line))),
            Err(_) => Err(Fault::new(
                field.line,
                format!("the {name} field is not UTF-8: {}", excerpt(field.value)),
            )),
        }
    }
}

/// Splits `bytes` into stanzas.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Stanza<'_>>, Fault> {
    let mut stanzas = Vec::new();
    let mut fields: Vec<Field<'_>> = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            if !fields.is_empty() {
                stanzas.push(Stanza {
                    fields: std::mem::take(&mut fields),
                });
            }
        } else if line.starts_with(b" ") || line.starts_with(b"\t") {
            if fields.is_empty() && !line.trim_ascii().is_empty() {
                return Err(Fault::new(
                    number,
                    format!("a continuation line without a field: {}", excerpt(line)),
                ));
            }
        } else if let Some((name, value)) = split_field(line) {
            fields.push(Field {
                line: number,
                name,
                value,
            });
        } else {
            return Err(Fault::new(
                number,
                format!("neither a field nor a continuation line: {}", excerpt(line)),
            ));
        }
    }
    if !fields.is_empty() {
        stanzas.push(Stanza { fields });
    }
    Ok(stanzas)
}

/// Splits `Name: value`. A name is of printable ASCII and starts with neither `#` nor `-` (deb822(5)).
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
        let value = |stanza: &Stanza<'_>| {
            stanza
                .get(name)
                .unwrap()
                .map(|(value, line)| (value.to_owned(), line))
        };
        parse(text).unwrap().iter().map(value).collect()
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
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.line, line, "{}", text.escape_ascii());
            assert!(fault.what.contains(what), "{}", fault.what);
        }
    }

    #[test]
    fn a_field_is_there_once_and_utf8() {
        let stanzas = parse(b"A: 1\nB: \xff\na: 2\n").unwrap();
        let stanza = stanzas.first().unwrap();
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
