//! Escapes text from others for a terminal. Names of files, packages and components, labels and
//! dates come from whoever made an image: a control character, or one that changes the direction of
//! text, could make a terminal show something that is not there.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::progress::around_bars;

/// A name on one line: characters that are no text are shown as escapes (`\u{1b}`).
pub fn shown(name: &str) -> Cow<'_, str> {
    escaped(name, is_text)
}

/// Several lines: as [`shown`], but line ends stay.
pub fn shown_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || is_text(c))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&stays) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if stays(c) => escaped.push(c),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            // Writing to a String cannot fail.
            c => {
                let _ = write!(escaped, "{}", c.escape_unicode());
            }
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character is shown as itself, and changes nothing that is shown beside it: no control
/// (C0, DEL, C1), no line or paragraph separator, nothing that has no width or turns the direction
/// of text (Unicode, UAX 9).
pub(super) fn is_text(c: char) -> bool {
    let is_hidden = matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
    );
    !c.is_control() && !is_hidden
}

/// Standard error for messages: escapes what is written, line by line or more at a time, and
/// takes bars of progress out of the way.
#[derive(Debug, Default)]
pub struct EscapedStderr {
    /// Whether each piece is one line, whatever line ends are in it.
    is_of_lines: bool,
}

impl EscapedStderr {
    /// For what writes a line at a time, as loggers do.
    pub fn of_lines() -> Self {
        Self { is_of_lines: true }
    }
}

impl Write for EscapedStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let text = match text.strip_suffix('\n').filter(|_| self.is_of_lines) {
            Some(line) => format!("{}\n", shown(line)),
            None => shown_lines(&text).into_owned(),
        };
        around_bars(|| io::stderr().write_all(text.as_bytes()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_is_shown_as_it_is() {
        for (name, expected) in [
            ("usr/bin/ü", "usr/bin/ü"),
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("a\nb\tc\rd", "a\\nb\\tc\\u{d}d"),
            ("\u{9b}31m\x7f", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!(shown(name), expected);
        }
        assert_eq!(shown_lines("a\nb\x1bc\n"), "a\nb\\u{1b}c\n");
    }
}
