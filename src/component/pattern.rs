//! Patterns of paths. A pattern is matched like a finite automaton: the path is read character by
//! character, with the set of all positions in the pattern that are possible so far. The cost is
//! the length of the pattern times that of the path, whatever the pattern contains.

use anyhow::{Context, Result, bail, ensure};

/// No path is longer (PATH_MAX, path_resolution(7)).
const MAX_LENGTH: usize = 4095;

/// `?` is one character of a name, `*` any of them, `**` any with slashes, `**/` any directories,
/// `[a-z]` one of those, `[!a-z]` one that is none of those, `\` takes away the meaning of what
/// follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    One(char),
    Any,
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
    Star,
    Stars,
    Directories,
}

/// The places in a pattern that the text so far leads to, a bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places(Vec<u64>);

impl Pattern {
    /// Reads a pattern; a leading slash does not count.
    ///
    /// # Errors
    /// When it is empty, too long, has a `..` in it, or a class that does not end.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(
            text.len() <= MAX_LENGTH,
            "the pattern has {} bytes; a path has at most {MAX_LENGTH}",
            text.len()
        );
        let text = text.trim_matches('/');
        ensure!(!text.is_empty(), "the pattern names no path");
        for part in text.split('/') {
            ensure!(
                !part.is_empty() && part != "." && part != "..",
                "'{text}' has the part '{part}', which no path in a rootfs has"
            );
        }
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        let mut begins_name = true;
        while let Some(c) = rest.next() {
            let token = match c {
                '?' => Token::Any,
                '*' if rest.next_if_eq(&'*').is_some() => {
                    match begins_name && rest.next_if_eq(&'/').is_some() {
                        true => Token::Directories,
                        false => Token::Stars,
                    }
                }
                '*' => Token::Star,
                '[' => class(&mut rest).with_context(|| format!("the pattern '{text}'"))?,
                '\\' => Token::One(rest.next().context("the pattern ends with '\\'")?),
                other => Token::One(other),
            };
            begins_name = matches!(token, Token::One('/') | Token::Directories);
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// Where one is before any text.
    pub fn start(&self) -> Places {
        let mut places = Places(vec![0; self.0.len() / 64 + 1]);
        places.add(0);
        self.skip(&mut places, true);
        places
    }

    /// Where `text` leads to from there; none when it leads nowhere.
    pub fn follow(&self, from: &Places, text: &str) -> Option<Places> {
        let mut places = from.clone();
        for c in text.chars() {
            let mut next = Places(vec![0; places.0.len()]);
            for at in places.all() {
                match self.0.get(at) {
                    Some(Token::One(one)) if *one == c => next.add(at + 1),
                    Some(Token::Any) if c != '/' => next.add(at + 1),
                    Some(Token::Class { is_negated, ranges }) if c != '/' => {
                        let is_in = ranges.iter().any(|(a, b)| (*a..=*b).contains(&c));
                        if is_in != *is_negated {
                            next.add(at + 1);
                        }
                    }
                    Some(Token::Star) if c != '/' => next.add(at),
                    Some(Token::Stars | Token::Directories) => next.add(at),
                    _ => {}
                }
            }
            self.skip(&mut next, c == '/');
            if next.0.iter().all(|word| *word == 0) {
                return None;
            }
            places = next;
        }
        Some(places)
    }

    /// Whether the whole pattern was followed.
    pub fn is_done(&self, places: &Places) -> bool {
        places.has(self.0.len())
    }

    /// Goes over what may stand for nothing.
    fn skip(&self, places: &mut Places, begins_name: bool) {
        for (at, token) in self.0.iter().enumerate() {
            let may_be_nothing = match token {
                Token::Star | Token::Stars => true,
                Token::Directories => begins_name,
                _ => false,
            };
            if may_be_nothing && places.has(at) {
                places.add(at + 1);
            }
        }
    }
}

/// What stands between brackets, glob(7).
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token> {
    let is_negated = rest.next_if(|c| matches!(c, '!' | '^')).is_some();
    let mut ranges = Vec::new();
    loop {
        let first = match rest.next() {
            Some(']') if !ranges.is_empty() => return Ok(Token::Class { is_negated, ranges }),
            Some('\\') => rest.next(),
            other => other,
        };
        let Some(first) = first else {
            bail!("has a '[' without its ']'");
        };
        let mut ahead = rest.clone();
        ahead.next();
        let is_range = rest.peek() == Some(&'-') && ahead.peek().is_some_and(|c| *c != ']');
        let last = match is_range {
            true => {
                rest.next();
                rest.next().unwrap_or(first)
            }
            false => first,
        };
        ensure!(first <= last, "has the empty range '{first}-{last}'");
        ranges.push((first, last));
    }
}

impl Places {
    fn add(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & 1 << (at % 64) != 0
    }

    fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let mut bits = *bits;
            std::iter::from_fn(move || {
                let at = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (at < 64).then_some(word * 64 + at)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = Pattern::parse(pattern).unwrap();
        let places = pattern.follow(&pattern.start(), path);
        places.is_some_and(|places| pattern.is_done(&places))
    }

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, yes, no) in [
            (
                "/opt/app",
                &["opt/app"][..],
                &["opt", "opt/apps", "x/opt/app"][..],
            ),
            ("opt/*", &["opt/a", "opt/.b"], &["opt/a/b", "opt"]),
            (
                "opt/a*b?",
                &["opt/abc", "opt/axxbc"],
                &["opt/ab", "opt/a/bc"],
            ),
            (
                "**/node_modules",
                &["node_modules", "a/b/node_modules"],
                &["xnode_modules"],
            ),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["a/xb", "ab"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b"]),
            ("a**z", &["az", "a/b/z"], &["a/b"]),
            (
                "lib[a-c!].so",
                &["liba.so", "lib!.so"],
                &["libd.so", "lib/.so"],
            ),
            ("lib[!a-c].so", &["libd.so"], &["liba.so", "lib/.so"]),
            ("[]-]", &["]", "-"], &["a"]),
            ("\\*\\[", &["*["], &["x["]),
            ("é?", &["éü"], &["é"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (pattern, why) in [
            ("", "names no path"),
            ("///", "names no path"),
            ("a//b", "the part ''"),
            ("a/../b", "the part '..'"),
            ("a[b", "without its ']'"),
            ("a[]", "without its ']'"),
            ("[z-a]", "empty range"),
            ("a\\", "ends with"),
        ] {
            let error = format!("{:#}", Pattern::parse(pattern).unwrap_err());
            assert!(error.contains(why), "{pattern}: {error}");
        }
        assert!(Pattern::parse(&"a".repeat(4096)).is_err());
    }

    /// Backtracking would not come to an end.
    #[test]
    fn hostile_patterns_take_no_longer_than_others() {
        let path = "a".repeat(4000);
        for pattern in [
            "a*".repeat(2000) + "b",
            "**/".repeat(1000) + "b",
            "*?".repeat(2000),
        ] {
            let begun = std::time::Instant::now();
            assert!(!matches(&pattern, &format!("{path}/")));
            assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        }
    }
}
