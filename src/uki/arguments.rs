//! The kernel arguments that an image brings, as bootc reads them: files of TOML in
//! `/usr/lib/bootc/kargs.d` with `kargs = [...]`, and `match-architectures = [...]` where they are
//! for some machines only.

use anyhow::{Result, bail, ensure};

/// Where the files are, without a leading slash.
pub const DIRECTORY: &str = "usr/lib/bootc/kargs.d";

/// The arguments of one file, for `machine` as Rust names it (`x86_64`, `aarch64`).
///
/// # Errors
/// When the file has anything but those two lists of plain text.
pub fn of_file(text: &str, machine: &str) -> Result<Vec<String>> {
    let mut tokens = Tokens(text);
    let (mut arguments, mut machines) = (None, None);
    while let Some(key) = tokens.key()? {
        let list = tokens.list()?;
        let place = match key {
            "kargs" => &mut arguments,
            "match-architectures" => &mut machines,
            _ => bail!("it has '{key}', and bootc knows kargs and match-architectures only"),
        };
        ensure!(place.is_none(), "it has '{key}' twice");
        *place = Some(list);
    }
    let Some(arguments) = arguments else {
        bail!("it has no 'kargs = [...]'");
    };
    let is_meant = machines.is_none_or(|machines| machines.iter().any(|name| name == machine));
    Ok(if is_meant { arguments } else { Vec::new() })
}

/// What is left of the text.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    /// The next key, with its sign of equality; none at the end.
    fn key(&mut self) -> Result<Option<&'a str>> {
        self.skip_space();
        if self.0.is_empty() {
            return Ok(None);
        }
        let is_of_key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.0.find(|c| !is_of_key(c)).unwrap_or(self.0.len());
        let (key, rest) = self.0.split_at(end);
        self.0 = rest;
        self.skip_space();
        if key.is_empty() || !self.take('=') {
            let line = self.0.lines().next().unwrap_or_default();
            bail!("'{key}{line}' is no 'kargs = [...]'");
        }
        Ok(Some(key))
    }

    /// A list of texts.
    fn list(&mut self) -> Result<Vec<String>> {
        self.skip_space();
        ensure!(self.take('['), "a list in brackets is expected");
        let mut list = Vec::new();
        loop {
            self.skip_space();
            if self.take(']') {
                return Ok(list);
            }
            list.push(self.text()?);
            self.skip_space();
            if !self.take(',') {
                self.skip_space();
                ensure!(
                    self.take(']'),
                    "a comma or the end of the list is expected after \"{}\"",
                    list.last().map_or("", String::as_str)
                );
                return Ok(list);
            }
        }
    }

    /// Text in quotes.
    fn text(&mut self) -> Result<String> {
        let quote = match self.0.chars().next() {
            Some(quote @ ('"' | '\'')) => quote,
            _ => bail!("text in quotes is expected in the list"),
        };
        let mut text = String::new();
        let mut rest = self.0[1..].char_indices();
        while let Some((at, c)) = rest.next() {
            match c {
                _ if c == quote => {
                    self.0 = &self.0[1 + at + 1..];
                    return Ok(text);
                }
                '\n' => break,
                '\\' if quote == '"' => match rest.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => bail!("only \\\" and \\\\ are read as escapes in \"{text}\""),
                },
                _ => text.push(c),
            }
        }
        bail!("the quotes after \"{text}\" do not end on their line")
    }

    fn take(&mut self, wanted: char) -> bool {
        let rest = self.0.strip_prefix(wanted);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Space, and comments.
    fn skip_space(&mut self) {
        loop {
            self.0 = self.0.trim_start();
            if !self.0.starts_with('#') {
                return;
            }
            let end = self.0.find('\n').unwrap_or(self.0.len());
            self.0 = &self.0[end..];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lists_are_read_as_toml_has_them() {
        for (text, expected) in [
            ("kargs = [\"rw\", 'quiet']", &["rw", "quiet"][..]),
            ("# why\nkargs = [ # here\n  \"a=b c\",\n]\n", &["a=b c"]),
            ("kargs=[]", &[]),
            ("kargs = [\"a=\\\"b\\\\\"]", &["a=\"b\\"]),
            (
                "kargs = ['a']\nmatch-architectures = ['riscv64', \"x86_64\"]",
                &["a"],
            ),
            ("match-architectures = ['aarch64']\nkargs = ['a']", &[]),
        ] {
            assert_eq!(of_file(text, "x86_64").unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_bootc_would_not_read_is_refused() {
        for text in [
            "",
            "kargs",
            "kargs = 'a'",
            "kargs = ['a'",
            "kargs = ['a' 'b']",
            "kargs = [1]",
            "kargs = [\"a\nb\"]",
            "kargs = [\"\\u0041\"]",
            "kargs = ['a']\nkargs = ['b']",
            "other = ['a']\nkargs = ['b']",
            "[kargs]",
            "match-architectures = ['x86_64']",
        ] {
            assert!(of_file(text, "x86_64").is_err(), "{text}");
        }
    }
}
