//! How often components change, read from a file: one line per component, with its name and an
//! interval. What a user measured, or `plan --learn` observed, takes precedence over the table for
//! Debian.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Ownership, chance_of_days, interval_days};

/// More lines are no user's.
const MAX_LINES: usize = 100_000;

/// Days by component.
#[derive(Debug, Clone, Default)]
pub struct Intervals(BTreeMap<String, f64>);

/// A line as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    component: String,
    interval: Said,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Days(f64),
    Text(String),
}

impl Intervals {
    /// Reads lines of words (`COMPONENT INTERVAL`) or of JSON; `name` is what the user calls the
    /// file. Of a component that is there twice the last line counts, so that files can be joined.
    ///
    /// # Errors
    /// When a line cannot be understood: it is named.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let mut days = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let told = self::line(line).with_context(|| format!("{name}, line {}", at + 1));
            let (component, interval) = told?;
            days.insert(component, interval);
            ensure!(
                days.len() <= MAX_LINES,
                "{name} has more than {MAX_LINES} components"
            );
        }
        Ok(Self(days))
    }
}

fn line(text: &str) -> Result<(String, f64)> {
    let (component, said) = match text.starts_with('{') {
        true => {
            let line: Line = serde_json::from_str(text).context(
                "it is not JSON of the form {\"component\": NAME, \"interval\": INTERVAL}",
            )?;
            let said = match line.interval {
                Said::Days(days) => days.to_string(),
                Said::Text(text) => text,
            };
            (line.component, said)
        }
        false => match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            [component, interval] => ((*component).to_owned(), (*interval).to_owned()),
            words => bail!(
                "it has {} words; write COMPONENT INTERVAL, or JSON where a name has a space in it",
                words.len()
            ),
        },
    };
    ensure!(!component.is_empty(), "the component's name is empty");
    let days = interval_days(&said).with_context(|| {
        format!("the interval '{said}' is neither a number of days nor daily, weekly, biweekly, monthly, quarterly or yearly")
    })?;
    Ok((component, days))
}

impl Ownership {
    /// Takes over what `intervals` tell. A source's interval is that of its parts, too, each of
    /// which changes in as many of its updates as before, unless the part has an interval of its
    /// own.
    pub fn follow(&mut self, intervals: &Intervals) {
        let known = self.components.iter().map(|c| (c.name.as_str(), c.chance));
        // What a source's chance was: its own, or where all of it is in parts the highest of
        // theirs.
        let mut whole: BTreeMap<String, f64> = BTreeMap::new();
        for (name, chance) in known.clone() {
            if let Some((source, _)) = name.split_once(':') {
                let most = whole.entry(source.to_owned()).or_default();
                *most = most.max(chance);
            }
        }
        whole.extend(known.map(|(name, chance)| (name.to_owned(), chance)));
        for component in &mut self.components {
            let source = component.name.split(':').next().unwrap_or_default();
            if let Some(days) = intervals.0.get(&component.name) {
                component.chance = chance_of_days(*days);
                component.interval = Some(*days);
            } else if let Some(days) = intervals.0.get(source) {
                let share = match whole.get(source) {
                    Some(whole) if *whole > 0.0 => component.chance / whole,
                    _ => 1.0,
                };
                component.chance = chance_of_days(*days) * share.min(1.0);
                component.interval = Some(*days);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_are_words_or_json_and_the_last_counts() {
        let text = "# c\n\nopenssl 21.5\n{\"component\": \"user/a b\", \"interval\": \"weekly\"}\n{\"component\": \"git\", \"interval\": 3}\ngit monthly\n";
        let told = Intervals::parse(text, "FILE").unwrap();
        let expected = [("git", 30.0), ("openssl", 21.5), ("user/a b", 7.0)];
        let told: Vec<(&str, f64)> = told.0.iter().map(|(n, d)| (n.as_str(), *d)).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn lines_that_cannot_be_understood_are_named() {
        for (line, why) in [
            ("one", "1 words"),
            ("a b c", "3 words"),
            ("a never", "the interval 'never'"),
            ("a -1", "the interval '-1'"),
            ("a NaN", "the interval 'NaN'"),
            ("{\"component\": \"a\"}", "missing field `interval`"),
            ("{\"component\": \"\", \"interval\": 1}", "name is empty"),
        ] {
            let error = Intervals::parse(&format!("\n{line}\n"), "FILE").unwrap_err();
            let error = format!("{error:#}");
            assert!(
                error.starts_with("FILE, line 2: ") && error.contains(why),
                "{error}"
            );
        }
    }
}
