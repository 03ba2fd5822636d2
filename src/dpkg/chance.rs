//! How likely a source package is to change between one pull of an image and the next, about a
//! month later.
//!
//! On a stable release hardly anything changes twice, and changelogs do not say what will come.
//! What predicts updates is which software it is. Debian's archive tells how often each source was
//! updated in the life of Debian 11 (63 months, security and long-term support counted), in
//! `updates.txt`, which `contrib/update-counts` makes of it. It holds from one release to the next.
//! In Debian 12 an update has been needed so far by 1.6 % of the sources that needed none in Debian
//! 11, by 48 % of those that needed one, by 67 % of those with two, 81 % with three and 97 % or
//! more with more; and for each update in Debian 11 there were 0.6 in 40 months of Debian 12. So a
//! source's chance is in proportion to its updates then. A version in a name (`python3.11`,
//! `libxml2`) tells one release from another, so that numbers in names do not count.
//!
//! Only Debian 11 is counted: later releases are what plans are judged by
//! (`contrib/bench/updates`), and what systems run today.
//!
//! Of some sources an update is a new upstream version, which its own version does not count; and
//! what is not in Debian is in no list of Debian's. A short list ([`PRIORS`]) names those.
//!
//! What else tells is how often the source has needed an update in this release, as its version
//! says. It is used with restraint: a plan that is made without knowing the one before follows
//! these chances, and a source whose chance follows its version moves whenever it is updated. So a
//! version counts once, where it says that a source which no list names is updated again and again.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The chance of a source that is in no list. On stable it is a tenth of that; on testing and sid
/// it is ten times that. What counts is how it compares with others.
const BASE: f64 = 0.002;
/// The chance for each update that the source had in Debian 11.
const OF_UPDATE: f64 = 0.013;
/// The chance that so many updates make at most.
const OF_UPDATES_CAP: f64 = 0.4;
/// The chance that no source exceeds: even a browser has months without an update.
const CAP: f64 = 0.6;
/// So many updates in one release make a source one that needs them often.
const OFTEN: u32 = 4;
/// The least chance of such a source.
const OFTEN_CHANCE: f64 = 0.1;

/// Sources that are updated to new upstream versions, or that are not Debian's: the share of months
/// with an update. The kernel's and the browsers' are measured, from the changelogs of Debian 11 to
/// 13; others are estimates. A name that ends in `*` stands for all sources that begin so.
const PRIORS: [(f64, &str); 4] = [
    (
        CAP,
        "linux linux-signed* linux-meta* linux-hwe* linux-restricted-modules*",
    ),
    (CAP, BROWSERS),
    (
        0.4,
        "openssl webkit2gtk wpewebkit mozjs* nodejs openjdk-* php7.* php8.* \
         postgresql-* mariadb* mysql-* bind9 nvidia-graphics-drivers* docker-ce* containerd.io",
    ),
    (0.25, "tzdata intel-microcode clamav"),
];

/// Sources of which an update has nothing in common with what was there before: each is another
/// upstream release, of which even the data is built anew.
const BROWSERS: &str = "chromium* firefox* thunderbird google-chrome*";

/// By name, numbers in it as `#`, how many updates a source had in Debian 11.
static UPDATES: LazyLock<HashMap<&str, u32>> = LazyLock::new(|| {
    let lines = include_str!("updates.txt").lines();
    let counted = lines.filter_map(|line| {
        let (count, names) = line.split_once(' ')?;
        Some((count.parse().ok()?, names))
    });
    counted
        .flat_map(|(count, names): (u32, &str)| names.split(' ').map(move |name| (name, count)))
        .collect()
});

/// The chance, 0.002 to 0.6, that the source package `source`, now of the version `version`, is
/// another version at the next pull.
///
/// It depends on nothing else, and changes at most once in the life of a release. Neither argument
/// needs to be well-formed.
#[must_use]
pub fn change_chance(source: &str, version: &str) -> f64 {
    let updates = UPDATES.get(family(source).as_str()).copied().unwrap_or(0);
    let of_updates = (f64::from(updates) * OF_UPDATE).min(OF_UPDATES_CAP);
    let of_version = match stable_updates(version) >= OFTEN {
        true if prior(source).is_none() && updates == 0 => OFTEN_CHANCE,
        _ => BASE,
    };
    of_updates
        .max(of_version)
        .max(prior(source).unwrap_or(BASE))
}

/// A source's name with `#` for each number, dots between digits counted to it.
fn family(source: &str) -> String {
    let mut family = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        family.push_str(before);
        family.push('#');
        rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
        while let Some(more) = rest.strip_prefix('.') {
            if !more.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            rest = more.trim_start_matches(|c: char| c.is_ascii_digit());
        }
    }
    family + rest
}

/// What updates `source`: the source itself, or for a signed build of another one
/// (`linux-signed-amd64`, which follows each `linux`) that other.
#[must_use]
pub fn update_of(source: &str) -> &str {
    match source.split_once("-signed") {
        Some((signed, "")) => signed,
        Some((signed, rest)) if rest.starts_with('-') => signed,
        _ => source,
    }
}

/// Whether an update of `source` is another upstream release that spares none of its files.
#[must_use]
pub fn is_replaced_whole(source: &str) -> bool {
    is_one_of(source, BROWSERS)
}

/// What is known of a source by its name.
fn prior(source: &str) -> Option<f64> {
    let row = PRIORS
        .iter()
        .find(|(_, sources)| is_one_of(source, sources));
    row.map(|(chance, _)| *chance)
}

/// Whether `sources`, names and beginnings of names, have `source`.
fn is_one_of(source: &str, sources: &str) -> bool {
    let is_source = |pattern: &str| match pattern.strip_suffix('*') {
        Some(family) => source.starts_with(family),
        None => source == pattern,
    };
    sources.split(' ').any(is_source)
}

/// How many updates the source has had in its stable release, as the version tells; 0 when it says
/// nothing.
fn stable_updates(version: &str) -> u32 {
    debian_updates(version).max(ubuntu_updates(version))
}

/// M of `+debNuM` or `~debNuM`, which the M-th update in Debian N has (Developer's Reference
/// 5.11.2).
fn debian_updates(version: &str) -> u32 {
    let update = |part: &str| {
        let (release, count) = part.strip_prefix("deb")?.split_once('u')?;
        is_number(release).then(|| leading_number(count))
    };
    version
        .split(['+', '~'])
        .skip(1)
        .filter_map(update)
        .max()
        .unwrap_or(0)
}

/// The count in Ubuntu's suffixes for updates of a release: `ubuntuN.M`, and where several releases
/// have the same version, `ubuntuN.YY.MM.M` or `ubuntuN~YY.MM.M`. `ubuntuN` alone is from before
/// the release.
fn ubuntu_updates(version: &str) -> u32 {
    let Some((_, suffix)) = version.rsplit_once("ubuntu") else {
        return 0;
    };
    let mut parts = suffix
        .split(['.', '~'])
        .take_while(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        .skip(1);
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    match (first, second) {
        (Some(year), Some("04" | "10")) if year.len() == 2 && is_number(year) => {
            third.map_or(1, leading_number)
        }
        (Some(count), _) => leading_number(count),
        (None, _) => 0,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number that `text` begins with: 0 without a digit, the largest there is when it is larger.
fn leading_number(text: &str) -> u32 {
    let digits = text.bytes().take_while(u8::is_ascii_digit);
    digits.fold(0, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u32::from(digit.saturating_sub(b'0')))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn updates_that_versions_tell_of() {
        let table = [
            ("", 0),
            ("1.2-3", 0),
            ("3.23+nmu1", 0),
            ("6.1.192-2", 0),
            ("12.4+deb12u15", 15),
            ("3.0.22-1~deb12u2", 2),
            ("1:2.39.5-0+deb12u3", 3),
            ("3.0043+nmu1+deb12u1", 1),
            ("1.0-1+deb12u1+b2", 1),
            ("1.0-1+deb11u4~deb10u1", 4),
            ("1.0-1+deb12u99999999999", u32::MAX),
            ("1.0+debu3", 0),
            ("1.0+debian12u3", 0),
            ("deb12u3", 0),
            ("2.39-0ubuntu8", 0),
            ("2.39-0ubuntu8.6", 6),
            ("3.0.2-0ubuntu1.18+esm1", 18),
            ("1.2-3ubuntu0.1", 1),
            ("255.4-1ubuntu0.24.04.5", 5),
            ("1.0-1ubuntu0.22.04", 1),
            ("1.7.12-0ubuntu2~24.04.3", 3),
            ("5:24.0.7-1~ubuntu.22.04~jammy", 0),
            ("1.0ubuntu", 0),
        ];
        for (version, updates) in table {
            assert_eq!(stable_updates(version), updates, "{version}");
        }
    }

    #[test]
    fn chances_by_name_and_version() {
        let table = [
            ("hostname", "3.23+nmu1", 0.002),
            ("yajl", "2.1.0-3+deb12u4", 0.026),
            ("never-heard-of", "1-3+deb12u4", 0.1),
            ("never-heard-of", "1-3+deb12u3", 0.002),
            ("base-files", "12.4+deb12u15", 0.143),
            ("git", "1:2.39.5-0+deb12u9", 0.065),
            ("linux", "6.1.192-2", 0.6),
            ("linux-signed-amd64", "6.1.192+2", 0.6),
            ("linux-signed-arm64", "6.1.192+2", 0.6),
            ("linux-atm", "1:2.5.1-5", 0.002),
            ("openssl", "3.0.22-1~deb12u2", 0.4),
            ("python3.11", "3.11.2-6", 0.091),
            ("python3.13", "3.13.5-2", 0.091),
            ("python3-defaults", "3.13.5-1", 0.002),
            ("", "", 0.002),
        ];
        for (source, version, chance) in table {
            let found = change_chance(source, version);
            assert!(
                (found - chance).abs() < 0.0005,
                "{source} {version}: {found}"
            );
        }
    }

    #[test]
    fn numbers_in_names_do_not_count() {
        for (source, expected) in [
            ("python3.11", "python#"),
            ("libxml2", "libxml#"),
            ("gtk+3.0", "gtk+#"),
            ("log4j1.2-x.", "log#j#-x."),
            ("a1.b", "a#.b"),
            ("1", "#"),
            ("git", "git"),
            ("", ""),
        ] {
            assert_eq!(family(source), expected, "{source}");
        }
    }

    #[test]
    fn updates_change_the_chance_once_and_never_lower_it() {
        for source in ["hostname", "git", "glibc", "openssl", "linux"] {
            let chance = |count: u32| change_chance(source, &format!("1-1+deb13u{count}"));
            let mut chances: Vec<f64> = (0..100).map(chance).collect();
            assert!(chances.is_sorted());
            chances.dedup();
            assert!(chances.len() <= 2, "{source}: {chances:?}");
        }
    }

    #[test]
    fn a_signed_build_follows_what_it_signs() {
        for (source, update) in [
            ("linux-signed-amd64", "linux"),
            ("linux", "linux"),
            ("shim-signed", "shim"),
            ("signedtool", "signedtool"),
            ("x-signedness", "x-signedness"),
        ] {
            assert_eq!(update_of(source), update);
        }
    }

    #[test]
    fn a_source_has_one_prior() {
        let all: Vec<&str> = PRIORS
            .iter()
            .flat_map(|(_, sources)| sources.split(' '))
            .collect();
        for (index, pattern) in all.iter().enumerate() {
            let name = pattern.trim_end_matches('*');
            for (other_index, other) in all.iter().enumerate() {
                let covers = other
                    .strip_suffix('*')
                    .map_or(name == *other, |family| name.starts_with(family));
                assert!(!other.is_empty());
                assert!(
                    index == other_index || !covers,
                    "{pattern} is covered by {other}, too"
                );
            }
        }
        assert!(
            PRIORS
                .iter()
                .all(|(chance, _)| (BASE..=CAP).contains(chance))
        );
    }

    proptest! {
        #[test]
        fn any_text_has_a_chance(source in "\\PC{0,12}", version in "(\\PC|[+~.]deb12u|[0-9]|ubuntu|[.+~]){0,12}") {
            prop_assert!((BASE..=CAP).contains(&change_chance(&source, &version)));
        }
    }
}
