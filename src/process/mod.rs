//! Runs other programs. Their messages are kept for errors, their time is limited, and they are
//! ended when this process is ended by a signal, so that they do not outlive it.

mod in_root;
mod owner;
mod pipe;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use camino::Utf8PathBuf;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

pub use in_root::run_in_root;
use owner::OWNER_VARIABLE;
pub use owner::{Owner, ProcessState, numbers_are_ours, owner_of, processes};
use pipe::Pipe;

use crate::undo::Undo;

/// How often is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(5);
/// How long a program has to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long is waited for the rest of what a program printed: what it left running may hold the
/// pipe. What came is used then.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So much of what a program prints is kept, in bytes.
const KEPT: usize = 64 << 20;

/// A program to run, with its arguments.
#[derive(Debug)]
pub struct Call {
    program: String,
    arguments: Vec<Argument>,
    environment: Vec<(String, String)>,
    directory: Option<Utf8PathBuf>,
    output: Option<Utf8PathBuf>,
    input: Option<File>,
    limit: Option<Duration>,
    grace_period: Duration,
    is_shown: bool,
}

/// A word of a call.
#[derive(Debug)]
struct Argument {
    word: String,
    /// What a message shows instead.
    shown: Option<String>,
    /// It names something: it must not be taken for an option.
    is_operand: bool,
}

impl Argument {
    fn new(word: String) -> Self {
        Self {
            word,
            shown: None,
            is_operand: false,
        }
    }

    fn shown(&self) -> &str {
        self.shown.as_deref().unwrap_or(&self.word)
    }
}

impl Call {
    /// A call of `program`, found on the PATH.
    pub fn new<S: Into<String>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            program: program.to_owned(),
            arguments: (arguments.into_iter())
                .map(|word| Argument::new(word.into()))
                .collect(),
            environment: vec![(OWNER_VARIABLE.into(), owner::mark())],
            directory: None,
            output: None,
            input: None,
            limit: None,
            grace_period: Duration::ZERO,
            is_shown: false,
        }
    }

    /// Adds a word.
    pub fn word(mut self, word: impl Into<String>) -> Self {
        self.arguments.push(Argument::new(word.into()));
        self
    }

    /// Adds a word that names something, such as an image. One that the program would take for an
    /// option is refused when it is to run.
    pub fn operand(mut self, word: impl Into<String>) -> Self {
        let argument = Argument::new(word.into());
        self.arguments.push(Argument {
            is_operand: true,
            ..argument
        });
        self
    }

    /// Adds a word that messages show as `shown`: it may hold a secret.
    pub fn hidden(mut self, word: impl Into<String>, shown: impl Into<String>) -> Self {
        let argument = Argument::new(word.into());
        self.arguments.push(Argument {
            shown: Some(shown.into()),
            ..argument
        });
        self
    }

    /// Runs the program in that directory.
    pub fn directory(mut self, path: impl Into<Utf8PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Has the program print into that file, which is made anew and stays: what it has said and
    /// done is known there when this process is not any more.
    pub fn output_to(mut self, path: impl Into<Utf8PathBuf>) -> Self {
        self.output = Some(path.into());
        self
    }

    /// Gives the program an open file as standard input.
    pub fn input(mut self, file: File) -> Self {
        self.input = Some(file);
        self
    }

    /// Ends the program after that time.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// When a signal ends us, lets the program come to its own end for so long.
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// Adds variables to the environment.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Shows on standard error what the program prints, as it comes, instead of keeping it.
    pub fn shown(mut self) -> Self {
        self.is_shown = true;
        self
    }

    /// How the call reads in a message.
    pub fn name(&self) -> String {
        let words = self.arguments.iter().map(Argument::shown);
        let words = std::iter::once(self.program.as_str()).chain(words);
        let quoted =
            words.map(
                |word| match word.is_empty() || word.contains(char::is_whitespace) {
                    true => format!("'{word}'"),
                    false => word.to_owned(),
                },
            );
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Runs the program to its end and returns what it printed on standard output.
    ///
    /// # Errors
    /// When it is not there, fails, or takes too long: what it printed on standard error is in the
    /// error.
    pub fn run(self) -> Result<String> {
        self.run_telling(&Outcome::default())
    }

    /// As [`Call::run`]; how the program ended can be asked from `outcome`, by other threads too.
    ///
    /// # Errors
    /// As [`Call::run`].
    pub fn run_telling(self, outcome: &Outcome) -> Result<String> {
        let grace_period = self.grace_period;
        let ((), undo) = Undo::around(
            || self.start(outcome),
            |()| {
                let outcome = outcome.clone();
                move || outcome.end(grace_period)
            },
        )?;
        let undo = undo.called(format!("'{}', which still runs", self.name()));
        let ended = self.wait(outcome);
        // The guard that is dropped on an error ends the program.
        undo.disarm_with(|| ended)
    }

    /// As [`Call::run`], for actions that undo: no guard is registered, and it always ends in time.
    ///
    /// # Errors
    /// As [`Call::run`].
    pub fn run_unguarded(self) -> Result<String> {
        let outcome = Outcome::default();
        self.start(&outcome)?;
        let ended = self.wait(&outcome);
        outcome.end(Duration::ZERO);
        ended
    }

    /// Starts the program; the outcome then has it.
    fn start(&self, outcome: &Outcome) -> Result<()> {
        use std::os::unix::process::CommandExt;
        let option = |word: &&Argument| word.is_operand && word.word.starts_with('-');
        if let Some(option) = self.arguments.iter().find(option) {
            bail!(
                "'{}' is not a name: it begins with '-', so that {} would take it for an option",
                option.word,
                self.program
            );
        }
        let mut command = Command::new(&self.program);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
            .args(self.arguments.iter().map(|argument| &argument.word))
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        // A group of its own: a terminal's interrupt reaches us alone, who then end it in order.
        let input = match &self.input {
            Some(file) => Stdio::from(file.try_clone().context("handing on a file")?),
            None => Stdio::null(),
        };
        command.process_group(0).stdin(input);
        if self.is_shown {
            command.stdout(io::stderr()).stderr(Stdio::inherit());
        } else {
            let output = match &self.output {
                Some(path) => {
                    Stdio::from(private_file(path).with_context(|| format!("creating {path}"))?)
                }
                None => Stdio::piped(),
            };
            command.stdout(output).stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::new(NotInstalled(self.program.clone())),
            _ => Error::new(e).context(format!("starting {}", self.program)),
        })?;
        tracing::debug!("running {}", self.name());
        let (output, messages) = (child.stdout.take(), child.stderr.take());
        *outcome.lock() = Some(Started {
            child,
            output: None,
            messages: None,
            is_told_to_end: false,
        });
        let read = || -> io::Result<(Option<Pipe>, Option<Pipe>)> {
            let output = output.map(|pipe| Pipe::read(pipe, KEPT)).transpose()?;
            let messages = messages.map(|pipe| Pipe::read(pipe, KEPT)).transpose()?;
            Ok((output, messages))
        };
        let pipes = read();
        if pipes.is_err() {
            outcome.end(Duration::ZERO);
        }
        let (output, messages) =
            pipes.with_context(|| format!("reading what {} prints", self.program))?;
        if let Some(started) = outcome.lock().as_mut() {
            started.output = output;
            started.messages = messages;
        }
        Ok(())
    }

    /// Waits for the end of what was started.
    fn wait(&self, outcome: &Outcome) -> Result<String> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = outcome.status()? {
                break status;
            }
            match self.limit {
                Some(limit) if start.elapsed() > limit => {
                    outcome.end(Duration::ZERO);
                    let messages = outcome.messages();
                    let said = match messages.trim() {
                        "" => String::new(),
                        said => format!("; it said: {said}"),
                    };
                    return Err(Error::new(Failed(format!(
                        "'{}' did not end within {} s{said}",
                        self.name(),
                        limit.as_secs()
                    ))));
                }
                _ => std::thread::sleep(POLL),
            }
        };
        if !status.success() {
            let messages = outcome.messages();
            match messages.trim() {
                "" => bail!("'{}' failed ({status})", self.name()),
                said => {
                    let text = format!("'{}' failed ({status}): {said}", self.name());
                    return Err(Error::new(Failed(text)));
                }
            }
        }
        let output = match &self.output {
            Some(path) => {
                let file = File::open(path).with_context(|| format!("opening {path}"))?;
                let mut kept = Vec::new();
                let read = file.take(KEPT as u64).read_to_end(&mut kept);
                read.with_context(|| format!("reading {path}"))?;
                kept
            }
            None => outcome.output(),
        };
        String::from_utf8(output)
            .with_context(|| format!("'{}' printed what is not UTF-8", self.name()))
    }
}

/// A new file that only this user can read, in place of what has its name.
fn private_file(path: &Utf8PathBuf) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// How a program failed, in its own words, which may be several lines.
#[derive(Debug)]
pub struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// A program that is not installed. The Debian packages of those that we run have their names.
#[derive(Debug)]
pub struct NotInstalled(String);

impl std::fmt::Display for NotInstalled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{0} is not there: install the package {0} (apt-get install {0})",
            self.0
        )
    }
}

impl std::error::Error for NotInstalled {}

/// How a program that runs for us ended, or that it has not yet.
#[derive(Debug, Clone, Default)]
pub struct Outcome(Arc<Mutex<Option<Started>>>);

#[derive(Debug)]
struct Started {
    child: Child,
    output: Option<Pipe>,
    messages: Option<Pipe>,
    /// It did not come to its own end, whatever its status says.
    is_told_to_end: bool,
}

impl Outcome {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Started>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it ended, if it did.
    fn status(&self) -> Result<Option<ExitStatus>> {
        match self.lock().as_mut() {
            Some(started) => Ok(started.child.try_wait()?),
            None => Ok(None),
        }
    }

    /// Whether the program was started and ended well.
    pub fn is_success(&self) -> bool {
        matches!(self.status(), Ok(Some(status)) if status.success())
    }

    /// Whether the program was started.
    pub fn is_started(&self) -> bool {
        self.lock().is_some()
    }

    /// Whether the program came to its own end and failed.
    pub fn has_refused(&self) -> bool {
        !self.is_told_to_end()
            && matches!(self.status(), Ok(Some(status)) if status.code().is_some_and(|code| code != 0))
    }

    fn is_told_to_end(&self) -> bool {
        self.lock()
            .as_ref()
            .is_some_and(|started| started.is_told_to_end)
    }

    fn output(&self) -> Vec<u8> {
        let pipe = self.lock().as_mut().and_then(|s| s.output.take());
        // It has ended; what it left running may hold the pipe open.
        pipe.map_or_else(Vec::new, |pipe| pipe.what_came_within(LAST_WORDS))
    }

    fn messages(&self) -> String {
        let pipe = self.lock().as_mut().and_then(|s| s.messages.take());
        let bytes = pipe.map_or_else(Vec::new, |pipe| pipe.what_came_within(LAST_WORDS));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits `grace_period` for the program's end, then ends it, with all that it started in its
    /// group.
    fn end(&self, grace_period: Duration) {
        if self.ends_within(grace_period) {
            return;
        }
        let group = self.lock().as_mut().and_then(|started| {
            started.is_told_to_end = true;
            pid(&started.child)
        });
        let Some(group) = group else {
            return;
        };
        for (signal, time) in [(Signal::TERM, GRACE), (Signal::KILL, GRACE)] {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
            if self.ends_within(time) && test_kill_process_group(group).is_err() {
                return;
            }
        }
    }

    /// Waits at most that long.
    fn ends_within(&self, time: Duration) -> bool {
        let start = Instant::now();
        loop {
            match self.status() {
                Ok(None) if !self.is_started() => return true,
                Ok(None) if start.elapsed() < time => std::thread::sleep(POLL),
                Ok(None) => return false,
                Ok(Some(_)) | Err(_) => return true,
            }
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

#[cfg(test)]
mod tests;
