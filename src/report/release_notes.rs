//! An update as release notes in Markdown. Names and changelogs are others' words: none of them
//! becomes markup.

use std::fmt::Write;

use super::page::{cost_reason, difference_sentence};
use super::shown::is_text;
use super::summary::human_size;
use crate::pipeline::{ChangedSource, Difference, InspectedPackage};

/// Release notes of the update.
pub fn release_notes(difference: &Difference) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "{}\n", escaped(&difference_sentence(difference)));
    for note in &difference.notes {
        let _ = writeln!(text, "Note: {}\n", escaped(note));
    }
    if difference.is_none() {
        return text;
    }
    let _ = writeln!(
        text,
        "| | |\n|---|---|\n| a client fetches | {}, in {} layers |\n| of that new to it, at least | {} |\n| kept | {}, in {} layers |\n| from | `{}` |\n| to | `{}` |",
        human_size(difference.bytes_fetched),
        difference.fetched.len(),
        human_size(difference.floor_bytes),
        human_size(difference.bytes_kept),
        difference.layers_kept,
        difference.old,
        difference.new
    );
    let sources = &difference.sources;
    let is_security = |source: &&ChangedSource| source.security;
    section(
        &mut text,
        "Security updates",
        sources.iter().filter(is_security).map(changed),
    );
    let others = || sources.iter().filter(|source| !source.security);
    section(
        &mut text,
        "Other updates",
        others().filter(|s| !s.is_downgrade()).map(changed),
    );
    section(
        &mut text,
        "Downgrades",
        others().filter(|s| s.is_downgrade()).map(changed),
    );
    section(
        &mut text,
        "Packages added",
        difference.added.iter().map(package),
    );
    section(
        &mut text,
        "Packages removed",
        difference.removed.iter().map(package),
    );
    let costs = difference.costs.iter();
    section(
        &mut text,
        "What costs most",
        costs.map(|cost| {
            format!(
                "{} {}: {}",
                human_size(cost.bytes),
                bold(&cost.name),
                escaped(&cost_reason(cost))
            )
        }),
    );
    let told = sources.iter().filter(|source| !source.entries.is_empty());
    let mut is_first = true;
    for source in told {
        if std::mem::take(&mut is_first) {
            text.push_str("\n## Changelogs\n");
        }
        for entry in &source.entries {
            let _ = writeln!(
                text,
                "\n### {} {} ({}, urgency {})\n",
                escaped(&source.name),
                escaped(&entry.version),
                escaped(&entry.distributions),
                escaped(&entry.urgency)
            );
            for line in &entry.changes {
                let bare = line.trim_start();
                let line = match bare.strip_prefix("* ") {
                    Some(item) => format!("- {}", escaped(item)),
                    None => format!("  {}", escaped(bare)),
                };
                let _ = writeln!(text, "{line}");
            }
        }
    }
    text
}

fn section(text: &mut String, name: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "\n## {name}\n");
    for line in lines {
        let _ = writeln!(text, "- {line}");
    }
}

fn changed(source: &ChangedSource) -> String {
    let mut line = format!(
        "{} {} → {}",
        bold(&source.name),
        escaped(&source.from),
        escaped(&source.to)
    );
    if let Some(urgency) = source.urgency.as_ref().filter(|_| source.security) {
        let _ = write!(line, ", urgency {}", escaped(urgency));
    }
    if !source.cves.is_empty() {
        let _ = write!(line, ": {}", source.cves.join(", "));
    }
    if source.packages.len() > 1 || source.packages.first().is_some_and(|p| *p != source.name) {
        let _ = write!(line, " ({})", escaped(&source.packages.join(", ")));
    }
    line
}

fn package(package: &InspectedPackage) -> String {
    format!("{} {}", bold(&package.name), escaped(&package.version))
}

fn bold(text: &str) -> String {
    format!("**{}**", escaped(text))
}

/// Text in which no sign is one of Markdown's, or of HTML's.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '&' | '!' | '@' => {
                safe.push('\\');
                safe.push(sign);
            }
            '~' if safe.ends_with('~') => safe.push_str("\\~"),
            sign if !is_text(sign) => safe.extend(sign.escape_unicode()),
            sign => safe.push(sign),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_is_markup() {
        assert_eq!(
            escaped("a <b> [x](y) `c` ~~d~~"),
            "a \\<b\\> \\[x\\](y) \\`c\\` ~\\~d~\\~"
        );
        assert_eq!(escaped("1.0~rc1-1"), "1.0~rc1-1");
        assert_eq!(escaped("\u{1b}[31m\u{202e}"), "\\u{1b}\\[31m\\u{202e}");
    }
}
