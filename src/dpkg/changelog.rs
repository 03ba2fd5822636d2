//! How often a source has been uploaded, as its changelog tells (deb-changelog(5)). On testing and unstable that is what
//! comes next; on a stable release changelogs are silent, and what they say of the time before it is no guide.

use jiff::fmt::rfc2822::DateTimeParser;

/// So many of the newest entries count: old habits do not.
const ENTRIES: usize = 9;
/// Intervals of less than a day are corrections of one upload.
const LEAST_DAYS: f64 = 1.0;
const SECONDS_IN_A_DAY: f64 = 86_400.0;

/// The mean number of days between the newest uploads in a changelog; none when there are fewer than three. Entries are found by
/// their last lines alone (` -- NAME <MAIL>  DATE`): real changelogs have much between them that no grammar knows.
#[must_use]
pub fn upload_interval(changelog: &[u8]) -> Option<f64> {
    // Days of the week are wrong in real ones.
    let parser = DateTimeParser::new().relaxed_weekday(true);
    let dates = changelog.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line.strip_prefix(b" -- ")?).ok()?;
        let (_, date) = line.rsplit_once('>')?;
        Some(parser.parse_timestamp(date.trim()).ok()?.as_second())
    });
    let dates: Vec<i64> = dates.take(ENTRIES).collect();
    let (newest, oldest) = (dates.iter().max()?, dates.iter().min()?);
    if dates.len() < 3 {
        return None;
    }
    let days = (newest - oldest) as f64 / SECONDS_IN_A_DAY;
    Some((days / (dates.len() - 1) as f64).max(LEAST_DAYS))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn entry(date: &str) -> String {
        format!("foo (1-1) unstable; urgency=medium\n\n  * Change.\n\n -- Änne <a@b.c>  {date}\n\n")
    }

    #[test]
    fn days_between_uploads() {
        let all = entry("Mon, 03 Mar 2025 12:00:00 +0100")
            + &entry("Sun, 01 Feb 2025 12:00:00 +0100")
            + " -- a line that is no end\n -- x <y>  no date\n"
            + &entry("Thu, 02 Jan 2025 12:00:00 +0100");
        assert!((upload_interval(all.as_bytes()).unwrap() - 30.0).abs() < 1e-9);
        let same = entry("Mon, 03 Mar 2025 12:00:00 +0000").repeat(5);
        assert!((upload_interval(same.as_bytes()).unwrap() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn only_the_newest_count() {
        let months: String = (0..9)
            .map(|n| {
                entry(&format!(
                    "01 {} 2025 00:00:00 +0000",
                    [
                        "Sep", "Aug", "Jul", "Jun", "May", "Apr", "Mar", "Feb", "Jan"
                    ][n]
                ))
            })
            .collect();
        let old = months.clone() + &entry("01 Jan 1999 00:00:00 +0000");
        assert_eq!(
            upload_interval(old.as_bytes()),
            upload_interval(months.as_bytes())
        );
    }

    #[test]
    fn few_uploads_tell_nothing() {
        assert_eq!(upload_interval(b""), None);
        let two = entry("Mon, 03 Mar 2025 12:00:00 +0000").repeat(2);
        assert_eq!(upload_interval(two.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut lines = b" -- x <y>  ".to_vec();
            lines.extend(&bytes);
            if let Some(days) = upload_interval(&lines.repeat(4)) {
                prop_assert!(days >= 1.0);
            }
        }
    }
}
