//! Identifies the process that owns something that was started or mounted, so that any later
//! process can tell whether the owner still runs. A process number alone is not enough: numbers are
//! reused, and every PID namespace (a container) has its own.

use std::fmt;
use std::fs;
use std::str::FromStr;
use std::sync::OnceLock;

use anyhow::{Context, Error, Result};

/// The variable in which a program that runs for us has its [`Owner`].
pub const OWNER_VARIABLE: &str = "APT_OSTREE_HELPER_OWNER";

/// A process: boot, PID namespace, number, and start in ticks since boot (proc_pid_stat(5), field
/// 22).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    boot: String,
    namespace: u64,
    pid: u32,
    start: u64,
}

/// Whether an owner still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs.
    Runs,
    /// It has ended.
    Ended,
    /// It is (or was) in a PID namespace that cannot be seen from here.
    Unseen,
}

impl Owner {
    /// This process.
    pub fn this_process() -> &'static Self {
        static THIS: OnceLock<Owner> = OnceLock::new();
        THIS.get_or_init(|| {
            let pid = std::process::id();
            Self {
                boot: boot(),
                namespace: namespace("self").unwrap_or_default(),
                pid,
                start: start_of("self").unwrap_or_default(),
            }
        })
    }

    /// Whether the process still runs.
    pub fn state(&self) -> ProcessState {
        if self.boot != boot() {
            return ProcessState::Ended;
        }
        let is_ours = namespace("self") == Some(self.namespace);
        match view() {
            View::Own if is_ours => match start_of(&self.pid.to_string()) == Some(self.start) {
                true => ProcessState::Runs,
                false => ProcessState::Ended,
            },
            View::Own | View::Outer if self.is_seen_with_inner_number() => ProcessState::Runs,
            // From the outside all processes of an inner namespace are seen.
            View::Outer if is_ours => ProcessState::Ended,
            View::Own if namespace("self") == Some(INITIAL) => ProcessState::Ended,
            View::Own | View::Outer | View::Other => ProcessState::Unseen,
        }
    }

    /// From the outside, processes of inner namespaces are seen, with their inner number last in
    /// "NSpid" (proc_pid_status(5)).
    fn is_seen_with_inner_number(&self) -> bool {
        processes().into_iter().any(|process| {
            let name = process.to_string();
            namespace(&name) == Some(self.namespace)
                && start_of(&name) == Some(self.start)
                && numbers_of(&name).last() == Some(&self.pid)
        })
    }
}

/// The initial PID namespace: only it sees all others (its inode is fixed, `PROC_PID_INIT_INO` in
/// the kernel).
const INITIAL: u64 = 0xEFFF_FFFC;

/// Of which PID namespace /proc tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// Of the one that this process is in.
    Own,
    /// Of one outside of it: a container that was given the /proc of its host.
    Outer,
    /// Of one in which this process is not seen, or there is no /proc.
    Other,
}

fn view() -> View {
    match numbers_of("self").len() {
        0 => View::Other,
        1 => View::Own,
        _ => View::Outer,
    }
}

/// A process's numbers, that of the namespace of /proc first, that of its own last.
fn numbers_of(process: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = numbers.unwrap_or_default().split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Whether the numbers that /proc has are those by which this process can send signals: else they
/// are other processes' here.
pub fn numbers_are_ours() -> bool {
    view() == View::Own
}

/// The numbers of the processes that can be seen.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// What [`OWNER_VARIABLE`] is for a program that this process starts: the owner, and the session in
/// which both are: 0 where the session's leader is outside the PID namespace.
pub fn mark() -> String {
    format!(
        "{}/{}",
        Owner::this_process(),
        session("self").as_deref().unwrap_or("0")
    )
}

/// The owner of a program that runs for one, by its environment. What such a program has left
/// running for others, in a session of its own (the process that holds a user's namespaces, the
/// name server of a network), has the same environment, and is not meant.
pub fn owner_of(process: u32) -> Option<Owner> {
    let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let (owner, session) = variables.find_map(|variable| {
        let text = std::str::from_utf8(variable).ok()?;
        text.strip_prefix(OWNER_VARIABLE)?
            .strip_prefix('=')?
            .split_once('/')
    })?;
    match self::session(&process.to_string())? == session {
        true => owner.parse().ok(),
        false => None,
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{}-{}",
            self.boot, self.namespace, self.pid, self.start
        )
    }
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let mut parts = text.split('-');
            let owner = Self {
                boot: parts.next()?.to_owned(),
                namespace: parts.next()?.parse().ok()?,
                pid: parts.next()?.parse().ok()?,
                start: parts.next()?.parse().ok()?,
            };
            parts.next().is_none().then_some(owner)
        };
        parse().with_context(|| format!("'{text}' names no process"))
    }
}

/// The beginning of the boot's id.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.chars().filter(char::is_ascii_hexdigit).take(8).collect()
}

/// The inode of a process's PID namespace (namespaces(7): the link reads `pid:[INODE]`).
fn namespace(process: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/{process}/ns/pid")).ok()?;
    let text = link.to_str()?;
    text.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// Where the fields of proc_pid_stat(5) are that are read, counted from the one after the name
/// (field 3).
const STATE: usize = 0;
const SESSION: usize = 3;
const START: usize = 19;

/// The fields of a process that follow its name, which stands in parentheses and may hold anything.
fn fields_of(process: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// The number of a process's session.
fn session(process: &str) -> Option<String> {
    fields_of(process)?.into_iter().nth(SESSION)
}

/// When a process was started; none for one that has ended, a zombie too.
fn start_of(process: &str) -> Option<u64> {
    let fields = fields_of(process)?;
    match fields.get(STATE)?.as_str() {
        "Z" | "X" => None,
        _ => fields.get(START)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_known_until_it_ends() {
        let this = Owner::this_process();
        assert_eq!(this.state(), ProcessState::Runs);
        assert_eq!(this.to_string().parse::<Owner>().unwrap(), *this);
        let later = Owner {
            start: this.start + 1,
            ..this.clone()
        };
        assert_eq!(
            later.state(),
            ProcessState::Ended,
            "the number was used again"
        );
        let before = Owner {
            boot: "00000000".into(),
            ..this.clone()
        };
        assert_eq!(
            before.state(),
            ProcessState::Ended,
            "the machine was started again"
        );
    }

    #[test]
    fn what_is_left_running_for_others_is_nobodys() {
        use std::process::{Command, Stdio};
        let owner_of_child = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env(OWNER_VARIABLE, mark())
                .stdout(Stdio::null());
            let mut child = command.spawn().unwrap();
            // Until it is the program.
            std::thread::sleep(std::time::Duration::from_millis(200));
            let owner = owner_of(child.id());
            child.kill().unwrap();
            child.wait().unwrap();
            owner
        };
        assert_eq!(
            owner_of_child("sleep", &["30"]).as_ref(),
            Some(Owner::this_process())
        );
        assert_eq!(owner_of_child("setsid", &["sleep", "30"]), None);
        assert_eq!(owner_of(std::process::id()), None);
    }

    #[test]
    fn other_text_names_no_process() {
        for text in ["", "a", "a-1-2", "a-1-2-3-4", "a-x-2-3"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }
}
