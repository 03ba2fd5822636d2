//! Short names of licences in copyright files as SPDX's identifiers, where they mean the same.

use std::collections::{BTreeMap, BTreeSet};

use super::plain;

/// Names that differ. The others are SPDX's but for upper case, and for how GNU licences are
/// versioned (the specification of the copyright format, "License short name").
const OTHERS: [(&str, &str); 7] = [
    ("expat", "MIT"),
    ("apache-2", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("artistic-2", "Artistic-2.0"),
    ("zpl-2.1", "ZPL-2.1"),
    ("perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("cc0", "CC0-1.0"),
];
/// GNU licences, as SPDX writes them.
const GNU: [&str; 4] = ["GPL", "LGPL", "AGPL", "GFDL"];

/// SPDX's identifier, or its expression, of one short name.
pub fn identifier(name: &str) -> Option<String> {
    let other = OTHERS
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known));
    if let Some((_, identifier)) = other {
        return Some((*identifier).to_owned());
    }
    if let Some(identifier) = gnu(name) {
        return Some(identifier);
    }
    let mut known = ::spdx::identifiers::LICENSES.iter();
    let known = known.find(|licence| licence.name.eq_ignore_ascii_case(name))?;
    Some(known.name.to_owned())
}

/// `GPL-2`, `LGPL-2.1+`: with no word, that version only.
fn gnu(name: &str) -> Option<String> {
    let (family, version) = name.split_once('-')?;
    let family = GNU
        .iter()
        .find(|known| family.eq_ignore_ascii_case(known))?;
    let (version, or_later) = match version.strip_suffix('+') {
        Some(version) => (version, true),
        None => (version, false),
    };
    let dotted = match version.contains('.') {
        true => version.to_owned(),
        false => format!("{version}.0"),
    };
    let id = ::spdx::gnu_license_id(&format!("{family}-{dotted}"), or_later)?;
    Some(id.name.to_owned())
}

/// Expressions of SPDX being made, with the names that SPDX does not know.
#[derive(Debug, Default)]
pub struct Expressions {
    /// By what an expression calls it, the words of the copyright file.
    pub references: BTreeMap<String, String>,
}

impl Expressions {
    /// One expression for licences that all hold, each term once.
    pub fn all_of(&mut self, licences: &[String]) -> String {
        let mut terms: Vec<String> = Vec::new();
        for words in licences {
            let expression = self.of(words);
            let of_expression = match expression.contains(" OR ") {
                true => vec![expression],
                false => expression.split(" AND ").map(str::to_owned).collect(),
            };
            for term in of_expression {
                if !terms.contains(&term) {
                    terms.push(term);
                }
            }
        }
        match terms.as_slice() {
            [] => "NOASSERTION".to_owned(),
            [one] => one.clone(),
            several => {
                let one = |term: &String| match term.contains(" OR ") {
                    true => format!("({term})"),
                    false => term.clone(),
                };
                several.iter().map(one).collect::<Vec<_>>().join(" AND ")
            }
        }
    }

    /// `GPL-2+ or Artistic`. A comma binds less than `and` and `or`, which SPDX cannot say, and an
    /// exception is not always one that it knows: both stay as they are, under one name.
    fn of(&mut self, words: &str) -> String {
        let list: Vec<&str> = words.split(' ').collect();
        let is_word = |at: usize| at % 2 == 1;
        let names = list.iter().enumerate().filter(|(at, _)| !is_word(*at));
        let are_joined = list.len() % 2 == 1
            && list.iter().enumerate().all(|(at, word)| match is_word(at) {
                true => ["and", "or"].contains(word),
                false => !word.contains(','),
            });
        let joins: BTreeSet<&str> = list.iter().skip(1).step_by(2).copied().collect();
        if !are_joined || joins.len() > 1 {
            return self.reference(words);
        }
        let join = match joins.contains("or") {
            true => " OR ",
            false => " AND ",
        };
        let one = |name: &str, all: &mut Self| match identifier(name) {
            Some(id) if id.contains(' ') && list.len() > 1 => format!("({id})"),
            Some(id) => id,
            None => all.reference(name),
        };
        let names: Vec<String> = names.map(|(_, name)| one(name, self)).collect();
        names.join(join)
    }

    fn reference(&mut self, words: &str) -> String {
        let stem = format!("LicenseRef-{}", plain(&words.replace('+', "-or-later")));
        let mut name = stem.clone();
        let mut number = 1;
        // Two texts that differ in signs only.
        while self
            .references
            .get(&name)
            .is_some_and(|known| known != words)
        {
            number += 1;
            name = format!("{stem}-{number}");
        }
        self.references.insert(name.clone(), words.to_owned());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_as_identifiers() {
        for (name, id) in [
            ("GPL-2", Some("GPL-2.0-only")),
            ("GPL-2+", Some("GPL-2.0-or-later")),
            ("LGPL-2.1+", Some("LGPL-2.1-or-later")),
            ("gfdl-1.3", Some("GFDL-1.3-only")),
            ("Expat", Some("MIT")),
            ("BSD-3-clause", Some("BSD-3-Clause")),
            ("Apache-2.0", Some("Apache-2.0")),
            ("public-domain", None),
            ("GPL", None),
            ("GPL-9+", None),
            ("", None),
        ] {
            assert_eq!(identifier(name).as_deref(), id, "{name}");
        }
    }

    #[test]
    fn expressions_are_valid() {
        let mut expressions = Expressions::default();
        let mut of = |list: &[&str]| {
            let list: Vec<String> = list.iter().map(|&words| words.to_owned()).collect();
            expressions.all_of(&list)
        };
        assert_eq!(of(&[]), "NOASSERTION");
        assert_eq!(of(&["Expat"]), "MIT");
        assert_eq!(
            of(&["Expat", "GPL-2+ or Artistic"]),
            "MIT AND (GPL-2.0-or-later OR Artistic-1.0-Perl)"
        );
        assert_eq!(of(&["Expat", "Expat and ISC", "ISC"]), "MIT AND ISC");
        assert_eq!(
            of(&["Expat and public-domain"]),
            "MIT AND LicenseRef-public-domain"
        );
        assert_eq!(
            of(&["GPL-2+ with x exception"]),
            "LicenseRef-GPL-2-or-later-with-x-exception"
        );
        assert_eq!(of(&["a, and b"]), "LicenseRef-a--and-b");
        assert_eq!(of(&["a and b or c"]), "LicenseRef-a-and-b-or-c");
        assert_eq!(of(&["x_y"]), "LicenseRef-x-y");
        assert_eq!(of(&["x/y"]), "LicenseRef-x-y-2");
        for words in [
            "Expat",
            "GPL-2+ or Artistic",
            "perl or Expat",
            "a and b or c",
        ] {
            let expression = of(&[words, "public-domain"]);
            assert!(
                ::spdx::Expression::parse(&expression).is_ok(),
                "{expression}"
            );
        }
    }
}
