//! The order of versions, as deb-version(7) defines it: epoch, upstream version, revision; runs of
//! digits count as numbers, `~` sorts before the end, letters before all other signs.

use std::cmp::Ordering;

/// Compares two versions. Text that is no version is compared by the same rules.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    let by_epoch = compare_numbers(a.0.as_bytes(), b.0.as_bytes());
    let by_upstream = || compare_part(a.1.as_bytes(), b.1.as_bytes());
    let by_revision = || compare_part(a.2.as_bytes(), b.2.as_bytes());
    by_epoch.then_with(by_upstream).then_with(by_revision)
}

/// Epoch, upstream version and revision.
fn parts(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    (epoch, upstream, revision)
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (take(&mut a, false), take(&mut b, false));
        let length = text_a.len().max(text_b.len());
        for at in 0..length {
            let order = weight(text_a.get(at)).cmp(&weight(text_b.get(at)));
            if order.is_ne() {
                return order;
            }
        }
        let order = compare_numbers(take(&mut a, true), take(&mut b, true));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the run at the start that is, or is not, of digits.
fn take<'a>(text: &mut &'a [u8], digits: bool) -> &'a [u8] {
    let end = text.iter().position(|c| c.is_ascii_digit() != digits);
    let (run, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    run
}

/// Numbers of any length.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| {
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        digits[zeros..].to_vec()
    };
    let (a, b) = (significant(a), significant(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(&b))
}

fn weight(sign: Option<&u8>) -> i32 {
    match sign {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs are those of dpkg's own tests and of Debian's archive; each is in order.
    #[test]
    fn versions_are_in_dpkgs_order() {
        let ordered = [
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0-1"),
            ("1.0-1", "1.0-1+b1"),
            ("1.0-1+b1", "1.0-1.1"),
            ("2.36-9+deb12u9", "2.36-9+deb12u10"),
            ("9", "1:0"),
            ("1.0a", "1.0+"),
            ("1.0-1~bpo12+1", "1.0-1"),
            ("0.9", "0.10"),
            ("1.2.3", "1.2.3a"),
            ("1.0~~", "1.0~"),
            ("99999999999999999999998", "99999999999999999999999"),
        ];
        for (less, more) in ordered {
            assert_eq!(
                compare_versions(less, more),
                Ordering::Less,
                "{less} {more}"
            );
            assert_eq!(compare_versions(more, less), Ordering::Greater);
        }
        for (a, b) in [("1.0", "1.00"), ("0:1", "1"), ("1", "1-0"), ("", "0")] {
            assert_eq!(compare_versions(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
