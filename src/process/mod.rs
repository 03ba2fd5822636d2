//! Programs that run for us. What they say is kept for the error, they end in time, and they do
//! not outlive us where that can be helped: a signal that ends this process ends them first.

mod owner;

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use owner::OWNER_VARIABLE;
pub use owner::{Life, Owner, owner_of, processes};

use crate::undo::Undo;

/// How often is looked whether a program has ended.
const POLL: Duration = Duration::from_millis(5);
/// How long a program has to end by itself when it is told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long is waited for the rest of what a program printed: what it left running may hold the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So much of what a program prints is kept, in bytes.
const KEPT: u64 = 64 << 20;

/// A program to run, with its arguments.
#[derive(Debug)]
pub struct Call {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    limit: Option<Duration>,
    patience: Duration,
    is_shown: bool,
}

impl Call {
    /// A call of `program`, found on the PATH.
    pub fn new<S: Into<String>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: vec![(OWNER_VARIABLE.into(), owner::mark())],
            limit: None,
            patience: Duration::ZERO,
            is_shown: false,
        }
    }

    /// Ends the program after that time.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// When a signal ends us, lets the program come to its own end for so long.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
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
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let quoted =
            words.map(
                |word| match word.is_empty() || word.contains(char::is_whitespace) {
                    true => format!("'{word}'"),
                    false => word.clone(),
                },
            );
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Runs the program to its end and returns what it printed on standard output.
    ///
    /// # Errors
    /// When it is not there, fails, or takes too long: what it printed on standard error is in the error.
    pub fn run(self) -> Result<String> {
        self.run_telling(&Outcome::default())
    }

    /// As [`Call::run`]; how the program ended can be asked from `outcome`, by other threads too.
    ///
    /// # Errors
    /// As [`Call::run`].
    pub fn run_telling(self, outcome: &Outcome) -> Result<String> {
        let patience = self.patience;
        let ((), undo) = Undo::around(
            || self.start(outcome),
            |()| {
                let outcome = outcome.clone();
                move || outcome.end(patience)
            },
        )?;
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
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        // A group of its own: a terminal's interrupt reaches us alone, who then end it in order.
        command.process_group(0).stdin(Stdio::null());
        if self.is_shown {
            command.stdout(io::stderr()).stderr(Stdio::inherit());
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::new(NotThere(self.program.clone())),
            _ => Error::new(e).context(format!("starting {}", self.program)),
        })?;
        tracing::debug!("running {}", self.name());
        let output = child.stdout.take().map(read_all);
        let messages = child.stderr.take().map(read_all);
        *outcome.lock() = Some(Started {
            child,
            output,
            messages,
        });
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
                    bail!(
                        "'{}' did not end within {} s{said}",
                        self.name(),
                        limit.as_secs()
                    );
                }
                _ => std::thread::sleep(POLL),
            }
        };
        if !status.success() {
            let messages = outcome.messages();
            match messages.trim() {
                "" => bail!("'{}' failed ({status})", self.name()),
                said => bail!("'{}' failed ({status}): {said}", self.name()),
            }
        }
        let output = outcome.output();
        String::from_utf8(output)
            .with_context(|| format!("'{}' printed what is not UTF-8", self.name()))
    }
}

/// A program that is not installed. The Debian packages of those that we run have their names.
#[derive(Debug)]
pub struct NotThere(String);

impl std::fmt::Display for NotThere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{0} is not there: install the package {0} (apt-get install {0})",
            self.0
        )
    }
}

impl std::error::Error for NotThere {}

/// How a program that runs for us ended, or that it has not yet.
#[derive(Debug, Clone, Default)]
pub struct Outcome(Arc<Mutex<Option<Started>>>);

#[derive(Debug)]
struct Started {
    child: Child,
    output: Option<Receiver<Vec<u8>>>,
    messages: Option<Receiver<Vec<u8>>>,
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
        matches!(self.status(), Ok(Some(status)) if status.code().is_some_and(|code| code != 0))
    }

    /// Whether the program was ended before it was done: nobody knows how far it came.
    pub fn is_unknown(&self) -> bool {
        matches!(self.status(), Ok(Some(status)) if status.code().is_none())
    }

    fn output(&self) -> Vec<u8> {
        let receiver = self
            .lock()
            .as_mut()
            .and_then(|started| started.output.take());
        // It has ended; what it left running may hold the pipe open.
        receiver.map_or_else(Vec::new, |r| r.recv_timeout(LAST_WORDS).unwrap_or_default())
    }

    fn messages(&self) -> String {
        let receiver = self
            .lock()
            .as_mut()
            .and_then(|started| started.messages.take());
        let bytes =
            receiver.map_or_else(Vec::new, |r| r.recv_timeout(LAST_WORDS).unwrap_or_default());
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for the program's end for `patience`, then ends it, with all that it started in its group.
    fn end(&self, patience: Duration) {
        if self.ends_within(patience) {
            return;
        }
        let Some(group) = self.lock().as_ref().and_then(|started| pid(&started.child)) else {
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

/// Reads a pipe to its end in a thread of its own.
fn read_all(pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut pipe = pipe;
        // What was read before an error counts.
        let _ = (&mut pipe).take(KEPT).read_to_end(&mut kept);
        // Nobody may be there to read it any more.
        let _ = sender.send(kept);
        let _ = io::copy(&mut pipe, &mut io::sink());
    });
    receiver
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

#[cfg(test)]
mod tests;
