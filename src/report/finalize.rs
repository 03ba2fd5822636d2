//! What `finalize` and `lint` say.

use anyhow::Result;
use serde_json::json;

use crate::finalize::{Action, Level, LintReport, Report, Status};

/// So many changes of one kind in one step are shown one by one, when not all are asked for.
const SHOWN: usize = 8;

/// Names with what they mean, as text or as JSON.
///
/// # Errors
/// When they cannot be written as JSON.
pub fn name_list<'a>(
    names: impl Iterator<Item = (&'a str, &'a str)>,
    as_json: bool,
) -> Result<String> {
    if as_json {
        let list: Vec<_> = names
            .map(|(name, summary)| json!({"name": name, "summary": summary}))
            .collect();
        return Ok(format!("{}\n", serde_json::to_string_pretty(&list)?));
    }
    Ok(names
        .map(|(name, summary)| format!("{name:16} {summary}\n"))
        .collect())
}

/// What was done, a line a step; with `all` also each change.
pub fn finalized(report: &Report, all: bool) -> String {
    let mut text = String::new();
    for step in &report.steps {
        let said = match (step.status, step.changes.len()) {
            (Status::Skipped, _) => "left out".to_owned(),
            (Status::Unchanged, _) => "nothing to do".to_owned(),
            (Status::Changed, 1) => "1 change".to_owned(),
            (Status::Changed, changes) => format!("{changes} changes"),
        };
        text.push_str(&format!("{:16} {said}\n", step.name));
        for (at, change) in step.changes.iter().enumerate().filter(|_| all) {
            if at == SHOWN && step.changes.len() > SHOWN + 1 {
                let more = step.changes.len() - SHOWN;
                text.push_str(&format!("  and {more} more, which --json has\n"));
                break;
            }
            let path = &change.path;
            let what = match &change.action {
                Action::Directory { .. } => format!("make directory {path}"),
                Action::Link { to } => format!("link {path} -> {to}"),
                Action::Write { .. } => format!("write {path}"),
                Action::Move { to } => format!("move {path} to {to}"),
                Action::Remove => format!("remove {path}"),
                Action::Make { command } => format!("make {path} with {}", command[0]),
            };
            text.push_str(&format!("  {what}: {}\n", change.why));
        }
        for note in &step.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
    }
    let verb = if report.dry_run {
        "would be made"
    } else {
        "made"
    };
    text.push_str(&match report.changes() {
        0 => format!("{} is finalized already\n", report.root),
        1 => format!("1 change {verb} in {}\n", report.root),
        changes => format!("{changes} changes {verb} in {}\n", report.root),
    });
    text
}

/// What was found; with `all` every path.
pub fn linted(report: &LintReport, all: bool) -> String {
    let mut text = String::new();
    for found in &report.findings {
        let level = match found.level {
            Level::Fatal => "fatal",
            Level::Warning => "warning",
        };
        text.push_str(&format!("{level}: {}: {}\n", found.name, found.why));
        let shown = match all || found.paths.len() <= SHOWN + 1 {
            true => found.paths.len(),
            false => SHOWN,
        };
        for path in found.paths.iter().take(shown) {
            text.push_str(&format!("  {path}\n"));
        }
        if shown < found.paths.len() {
            let more = found.paths.len() - shown;
            text.push_str(&format!("  and {more} more, which -v shows\n"));
        }
        text.push_str(&format!("  what to do: {}\n", found.advice));
    }
    text.push_str(&match (report.fatal, report.warnings) {
        (0, 0) => format!("nothing found in {}\n", report.root),
        (fatal, warnings) => format!(
            "{fatal} fatal, {warnings} {} in {}\n",
            if warnings == 1 { "warning" } else { "warnings" },
            report.root
        ),
    });
    text
}
