//! The user's table of components: which path belongs to which component. Each line has one
//! pattern, as words or as JSON; the first line that matches a path, or a directory above it, wins.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::pattern::{Pattern, Places};
use super::{Component, interval_days};
use crate::tree::{EntryId, Tree};

/// The position of a row in a [`ComponentTable`]: small, since each entry of a tree may have one.
pub(super) type RowId = u16;

/// More lines are no user's.
const MAX_LINES: usize = 10_000;
const _: () = assert!(MAX_LINES <= RowId::MAX as usize);
/// More bytes are no name.
const MAX_NAME: usize = 255;

/// A components file.
#[derive(Debug, Clone, Default)]
pub struct ComponentTable {
    name: String,
    rows: Vec<Row>,
}

#[derive(Debug, Clone)]
struct Row {
    /// Counted from 1, comments too.
    line: usize,
    text: String,
    pattern: Pattern,
    component: Component,
}

/// A line as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRow {
    path: String,
    component: String,
    interval: Option<String>,
}

impl ComponentTable {
    /// Reads a table; `name` is what the user calls the file.
    ///
    /// # Errors
    /// When a line cannot be understood: it is named.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let mut rows = Vec::new();
        for (at, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let row = row(at + 1, text).with_context(|| format!("{name}, line {}", at + 1))?;
            rows.push(row);
            ensure!(
                rows.len() <= MAX_LINES,
                "{name} has more than {MAX_LINES} patterns"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            rows,
        })
    }

    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// For each entry of `tree` the row that has it. What has none is told.
    pub(super) fn rows_of(&self, tree: &Tree) -> Vec<Option<RowId>> {
        if self.is_empty() {
            return vec![None; tree.len()];
        }
        let mut found: Vec<Option<RowId>> = Vec::with_capacity(tree.len());
        let mut is_used = vec![false; self.rows.len()];
        let all = (0..).zip(&self.rows);
        // The directories on the way, with the rows that may match something below them.
        let root = Level {
            directory: EntryId::ROOT,
            alive: all.map(|(at, row)| (at, row.pattern.start())).collect(),
        };
        let mut way = vec![root];
        for id in tree.ids() {
            if id == EntryId::ROOT {
                found.push(None);
                continue;
            }
            let parent = tree.entry(id).parent;
            while way.last().is_some_and(|level| level.directory != parent) {
                way.pop();
            }
            let above = found[parent.index()];
            let before = way.last().map_or(&[][..], |level| &level.alive);
            let name = match parent == EntryId::ROOT {
                true => tree.name(id).to_owned(),
                false => format!("/{}", tree.name(id)),
            };
            let mut has = above;
            let mut alive = Vec::new();
            for (at, places) in before {
                if has.is_some_and(|row| row <= *at) {
                    break;
                }
                let row = &self.rows[usize::from(*at)];
                let Some(places) = row.pattern.follow(places, &name) else {
                    continue;
                };
                if row.pattern.is_done(&places) {
                    is_used[usize::from(*at)] = true;
                    has = Some(*at);
                } else if tree.entry(id).is_dir() {
                    alive.push((*at, places));
                }
            }
            if tree.entry(id).is_dir() {
                way.push(Level {
                    directory: id,
                    alive,
                });
            }
            found.push(has);
        }
        for (row, _) in self.rows.iter().zip(is_used).filter(|(_, used)| !used) {
            tracing::warn!(
                "{}, line {}: nothing in the rootfs is for '{}' alone",
                self.name,
                row.line,
                row.text
            );
        }
        found
    }

    /// The component of a row.
    pub(super) fn component(&self, row: RowId) -> &Component {
        &self.rows[usize::from(row)].component
    }

    /// What a row says, for people.
    pub(super) fn describe(&self, row: RowId) -> String {
        let Row { line, text, .. } = &self.rows[usize::from(row)];
        format!("line {line} of {}: {text}", self.name)
    }
}

struct Level {
    directory: EntryId,
    alive: Vec<(RowId, Places)>,
}

fn row(line: usize, text: &str) -> Result<Row> {
    let said = match text.starts_with('{') {
        true => serde_json::from_str(text).context(
            "it is not JSON of the form {\"path\": PATTERN, \"component\": NAME, \"interval\": INTERVAL}",
        )?,
        false => words(text)?,
    };
    let JsonRow {
        path,
        component,
        interval,
    } = said;
    let name = component.trim();
    ensure!(!name.is_empty(), "the component's name is empty");
    ensure!(
        name.len() <= MAX_NAME && !name.chars().any(char::is_control),
        "the component's name has control characters, or more than {MAX_NAME} bytes"
    );
    let days = match &interval {
        None => None,
        Some(text) => Some(interval_days(text).with_context(|| {
            format!("the interval '{text}' is neither a number of days nor daily, weekly, biweekly, monthly, quarterly or yearly")
        })?),
    };
    Ok(Row {
        line,
        text: text.to_owned(),
        pattern: Pattern::parse(&path)?,
        component: Component::of_user(name, days),
    })
}

/// `PATTERN COMPONENT [INTERVAL]`.
fn words(text: &str) -> Result<JsonRow> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (path, component, interval) = match words.as_slice() {
        [path, component] => (path, component, None),
        [path, component, interval] => (path, component, Some(*interval)),
        _ => bail!(
            "it has {} words; write PATTERN COMPONENT [INTERVAL], or JSON where one of them has a space in it",
            words.len()
        ),
    };
    Ok(JsonRow {
        path: (*path).to_owned(),
        component: (*component).to_owned(),
        interval: interval.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tree::{Kind, Metadata, TreeBuilder};

    fn tree(paths: &[&str]) -> Tree {
        let mut builder = TreeBuilder::new(Metadata::directory(0o755));
        let mut known = std::collections::HashMap::from([(String::new(), EntryId::ROOT)]);
        for path in paths {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let kind = match name.contains('.') {
                true => Kind::Regular,
                false => Kind::Directory,
            };
            let metadata = Metadata {
                kind,
                ..Metadata::directory(0o755)
            };
            let id = builder.push(known[parent], name, "", metadata).unwrap();
            known.insert((*path).to_owned(), id);
        }
        builder.finish().0
    }

    fn owners(table: &str, paths: &[&str]) -> Vec<(String, String)> {
        let tree = tree(paths);
        let table = ComponentTable::parse(table, "t").unwrap();
        let rows = table.rows_of(&tree);
        let ids = tree.ids().filter_map(|id| Some((id, rows[id.index()]?)));
        let named = ids.map(|(id, row)| {
            let name = table.component(row).name.clone();
            (tree.path(id).into_string(), name)
        });
        named.collect()
    }

    #[test]
    fn the_first_line_that_matches_has_a_path_and_what_is_below() {
        let table = "# comment\n\nopt/app/data/** data monthly\n  /opt/app app\n{\"path\": \"opt/a b.c\", \"component\": \"with space, comma\"}\nopt/** other\n";
        let paths = [
            "opt",
            "opt/app",
            "opt/app/x.y",
            "opt/app/data",
            "opt/app/data/d.e",
            "opt/a b.c",
            "opt/z.z",
            "usr",
        ];
        let owners = owners(table, &paths);
        let owners: Vec<(&str, &str)> = owners
            .iter()
            .map(|(path, name)| (path.as_str(), name.as_str()))
            .collect();
        assert_eq!(
            owners,
            [
                ("opt/a b.c", "user/with space%2C comma"),
                ("opt/app", "user/app"),
                ("opt/app/data", "user/app"),
                ("opt/app/data/d.e", "user/data"),
                ("opt/app/x.y", "user/app"),
                ("opt/z.z", "user/other"),
            ]
        );
    }

    #[test]
    fn lines_that_cannot_be_understood_are_named() {
        for (line, why) in [
            ("one", "1 words"),
            ("a b c d", "4 words"),
            ("a b never", "the interval 'never'"),
            ("a[ b", "without its ']'"),
            ("{\"path\": \"a\"}", "missing field `component`"),
            (
                "{\"path\": \"a\", \"component\": \"b\", \"x\": 1}",
                "unknown field `x`",
            ),
            ("{\"path\": \"a\", \"component\": \" \"}", "name is empty"),
            ("{", "not JSON"),
        ] {
            let error = ComponentTable::parse(&format!("# c\n{line}\n"), "FILE").unwrap_err();
            let error = format!("{error:#}");
            assert!(
                error.starts_with("FILE, line 2: ") && error.contains(why),
                "{error}"
            );
        }
        let many = "a b\n".repeat(10_001);
        assert!(ComponentTable::parse(&many, "FILE").is_err());
    }
}
