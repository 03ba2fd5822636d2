//! Entries that no image can hold, collected so that the user sees all of them at once.

use anyhow::{Error, Result};

use super::odd::Oddities;

/// How many faults of a rootfs are listed before the rest is only counted.
const LISTED: usize = 10;

/// All of them, as one error of several lines. What others have named breaks none of these.
#[derive(Debug)]
pub struct Unrepresentable {
    text: String,
    has_special_files: bool,
}

impl Unrepresentable {
    /// Whether some of it would be none if special files were left out.
    pub fn has_special_files(&self) -> bool {
        self.has_special_files
    }
}

impl std::fmt::Display for Unrepresentable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Unrepresentable {}

/// What was found.
#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<String>,
    count: usize,
    has_special_files: bool,
}

impl Faults {
    /// Adds what is wrong with the entry at `path` (no leading slash).
    pub fn add(&mut self, path: &str, why: &str) {
        self.count += 1;
        if self.listed.len() < LISTED {
            self.listed.push(on_one_line(&format!("/{path}: {why}")));
        }
    }

    /// Adds a special file.
    pub fn special(&mut self, path: &str, what: &str) {
        self.has_special_files = true;
        self.add(path, &format!("it is {what}"));
    }

    /// Adds a link whose target is not text.
    pub fn target(&mut self, path: &str) {
        self.add(path, "the link's target is not UTF-8; remove the link");
    }

    /// Adds those of another directory.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        let room = LISTED.saturating_sub(self.listed.len());
        self.listed.extend(other.listed.into_iter().take(room));
        self.has_special_files |= other.has_special_files;
    }

    /// Fails when there are any; `rootfs` is what the user calls the whole.
    ///
    /// # Errors
    /// The list of them.
    pub fn check(mut self, rootfs: &dyn std::fmt::Display, odd: &Oddities) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        self.listed.sort_unstable();
        let list = self.listed.join("\n  ");
        let rest = match self.count - self.listed.len() {
            0 => String::new(),
            n => format!("\n  and {n} more"),
        };
        let stores: String = odd
            .stores()
            .map(|store| format!("\n{}", on_one_line(&store)))
            .collect();
        let rootfs = on_one_line(&rootfs.to_string());
        Err(Error::new(Unrepresentable {
            text: format!(
                "rootfs {rootfs} has entries that no image can hold:\n  {list}{rest}{stores}"
            ),
            has_special_files: self.has_special_files,
        }))
    }
}

fn on_one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}
