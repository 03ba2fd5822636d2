//! Users and groups that only `/etc` knows: a machine that has an `/etc` of its own lacks what an
//! update brings. Lines for sysusers.d(5) make them there.

use std::collections::BTreeSet;

use anyhow::Result;

use super::change::Plan;
use super::root::{Kind, Root};
use super::system::System;

const DIR: &str = "usr/lib/sysusers.d";
const FILE: &str = "apt-ostree-helper.conf";

/// Writes lines for users and groups that have none.
pub fn plan<'a>(system: &System<'a>) -> Result<Plan<'a>> {
    let root = system.root;
    let mut plan = Plan::new(root);
    if root.kind(DIR)? != Kind::Directory {
        return Ok(plan);
    }
    let path = format!("{DIR}/{FILE}");
    let lines = missing(root, FILE)?;
    match lines.is_empty() {
        true => plan.remove(&path, "no user needs it")?,
        false => {
            let text: String = lines.iter().map(|(_, line)| line.as_str()).collect();
            let text = format!(
                "# Users and groups of this image that no package declares: by 'apt-ostree-helper finalize'.\n{text}"
            );
            let why = "a machine with an /etc of its own gets them with an update";
            plan.write(&path, text, why)?;
        }
    }
    Ok(plan)
}

/// The names of users and groups that no file but `but` declares, each with the line that would.
///
/// # Errors
/// When a file cannot be read.
pub fn missing(root: &Root, but: &str) -> Result<Vec<(String, String)>> {
    let declared = declared(root, but)?;
    let mut found = Vec::new();
    let mut users = BTreeSet::new();
    for line in root.text("etc/passwd")?.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, comment, home, shell] = fields[..] else {
            continue;
        };
        users.insert(name.to_owned());
        if declared.contains(&("u", name.to_owned())) || !is_name(name) || uid == "0" {
            continue;
        }
        let comment = match comment.replace('"', "'") {
            empty if empty.is_empty() => "-".to_owned(),
            comment => format!("\"{comment}\""),
        };
        let line = format!("u {name} {uid}:{gid} {comment} {home} {shell}\n");
        found.push((name.to_owned(), line));
    }
    let mut groups = Vec::new();
    for line in root.text("etc/group")?.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, _] = fields[..] else {
            continue;
        };
        let is_declared = declared.contains(&("g", name.to_owned()));
        if !is_declared && is_name(name) && gid != "0" {
            groups.push((name.to_owned(), format!("g {name} {gid}\n")));
        }
    }
    // A user's line names its group by number, which must be there first.
    groups.extend(found);
    Ok(groups)
}

/// What is declared: `u` or `g`, and the name. A user has a group of the same name.
fn declared(root: &Root, but: &str) -> Result<BTreeSet<(&'static str, String)>> {
    let mut found = BTreeSet::new();
    for dir in ["etc/sysusers.d", DIR] {
        for file in root.list(dir)? {
            if !file.ends_with(".conf") || file == but {
                continue;
            }
            for line in root.text(&format!("{dir}/{file}"))?.lines() {
                let mut fields = line.split_whitespace();
                let (Some(kind), Some(name)) = (fields.next(), fields.next()) else {
                    continue;
                };
                let name = name.trim_matches('"').to_owned();
                match kind.trim_end_matches('!') {
                    "u" => {
                        // With 'UID:GROUP' the group is another one.
                        let id = fields.next().unwrap_or_default();
                        if !id.contains(':') {
                            found.insert(("g", name.clone()));
                        }
                        found.insert(("u", name));
                    }
                    "g" => {
                        found.insert(("g", name));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

fn is_name(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.is_empty() && name.chars().all(fine)
}
