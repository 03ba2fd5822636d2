//! Progress on standard error: bars on a terminal, a line now and then elsewhere.
//!
//! On a terminal there is one line for the stage and one for each layer that runs. Whatever else
//! is written to standard error goes through [`around_bars`], which takes the bars away first.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{human_size, shown};
use crate::progress::Progress;

/// How often a log gets a line of a stage that takes long.
const EVERY: Duration = Duration::from_secs(10);
/// How often bars are drawn when nothing moves them.
const TICK: Duration = Duration::from_millis(200);

const STAGE: &str = "{msg:16} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
const STAGE_WITHOUT_TOTAL: &str = "{msg:16} {bytes} {bytes_per_sec}, {elapsed}";
const WAIT: &str = "{msg:16} {elapsed}";
const PART: &str = "  {wide_msg} {bytes}/{total_bytes}";
const PART_WITHOUT_TOTAL: &str = "  {wide_msg} {bytes}";

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal; elsewhere a line every 10 seconds
    Auto,
    /// A line for each stage, and every 10 seconds
    Plain,
    /// Nothing
    None,
}

/// Shows progress on standard error.
pub struct TerminalProgress(Face);

enum Face {
    Nothing,
    Lines(Lines),
    Bars(Bars),
}

impl TerminalProgress {
    /// Progress in `mode`; none at all when `quiet`.
    pub fn new(mode: ProgressMode, quiet: bool) -> Self {
        // A terminal that cannot move its cursor is written to as a log is.
        let is_dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let lines = |each_stage| Face::Lines(Lines::new(EVERY, each_stage, io::stderr));
        Self(match mode {
            _ if quiet => Face::Nothing,
            ProgressMode::None => Face::Nothing,
            ProgressMode::Plain => lines(true),
            ProgressMode::Auto if io::stderr().is_terminal() && !is_dumb() => {
                Face::Bars(Bars::new())
            }
            ProgressMode::Auto => lines(false),
        })
    }
}

impl Progress for TerminalProgress {
    fn begin(&self, stage: &str, total: u64) {
        match &self.0 {
            Face::Nothing => {}
            Face::Lines(lines) => lines.begin(stage, total),
            Face::Bars(bars) => bars.begin(stage, total),
        }
    }

    fn advance(&self, bytes: u64) {
        match &self.0 {
            Face::Nothing => {}
            Face::Lines(lines) => {
                lines.done.fetch_add(bytes, Ordering::Relaxed);
            }
            Face::Bars(bars) => bars.advance(bytes),
        }
    }

    fn end(&self) {
        match &self.0 {
            Face::Nothing => {}
            Face::Lines(lines) => lines.end(true),
            Face::Bars(bars) => bars.end(),
        }
    }

    fn begin_part(&self, name: &str, total: u64) {
        if let Face::Bars(bars) = &self.0 {
            bars.begin_part(name, total);
        }
    }

    fn end_part(&self) {
        if let Face::Bars(bars) = &self.0 {
            bars.end_part();
        }
    }
}

/// A stage that failed leaves no bars, and says nothing more.
impl Drop for TerminalProgress {
    fn drop(&mut self) {
        match &self.0 {
            Face::Nothing => {}
            Face::Lines(lines) => lines.end(false),
            Face::Bars(bars) => bars.end(),
        }
    }
}

// --- bars ----------------------------------------------------------------------------------------

/// The bars on the terminal of this process, while there are any.
static ON_TERMINAL: Mutex<Option<MultiProgress>> = Mutex::new(None);

/// Writes to standard error with the bars out of the way.
pub fn around_bars<T>(write: impl FnOnce() -> T) -> T {
    let bars = locked(&ON_TERMINAL).clone();
    match bars {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// Takes the bars away for good: the process is about to end.
pub fn remove_bars() {
    if let Some(bars) = locked(&ON_TERMINAL).take() {
        // Nobody to tell when the terminal is gone.
        let _ = bars.clear();
        bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
}

struct Bars {
    all: MultiProgress,
    stage: Mutex<Option<ProgressBar>>,
    parts: Mutex<Vec<(ThreadId, ProgressBar)>>,
}

impl Bars {
    fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            stage: Mutex::new(None),
            parts: Mutex::new(Vec::new()),
        }
    }

    fn begin(&self, stage: &str, total: u64) {
        self.end();
        *locked(&ON_TERMINAL) = Some(self.all.clone());
        let template = match total {
            0 => WAIT,
            _ => STAGE,
        };
        let bar = self.all.add(bar(template, total, stage));
        bar.enable_steady_tick(TICK);
        *locked(&self.stage) = Some(bar);
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = locked(&self.stage).as_ref() {
            if bar.length() == Some(0) {
                bar.unset_length();
                bar.set_style(style(STAGE_WITHOUT_TOTAL));
            }
            bar.inc(bytes);
        }
        let this = thread::current().id();
        let parts = locked(&self.parts);
        if let Some((_, bar)) = parts.iter().find(|(thread, _)| *thread == this) {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        for (_, bar) in locked(&self.parts).drain(..) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        if let Some(bar) = locked(&self.stage).take() {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        *locked(&ON_TERMINAL) = None;
    }

    fn begin_part(&self, name: &str, total: u64) {
        self.end_part();
        let template = match total {
            0 => PART_WITHOUT_TOTAL,
            _ => PART,
        };
        let bar = self.all.add(bar(template, total, name));
        locked(&self.parts).push((thread::current().id(), bar));
    }

    fn end_part(&self) {
        let this = thread::current().id();
        let mut parts = locked(&self.parts);
        if let Some(at) = parts.iter().position(|(thread, _)| *thread == this) {
            let (_, bar) = parts.swap_remove(at);
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }
}

fn bar(template: &str, total: u64, name: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), indicatif::ProgressDrawTarget::hidden());
    bar.with_style(style(template))
        .with_message(shown(name).into_owned())
}

/// The templates are ours: that each can be read is tested.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

// --- lines ---------------------------------------------------------------------------------------

/// Lines for a log.
struct Lines {
    every: Duration,
    /// Whether a stage gets a line at its end that had none before.
    each_stage: bool,
    done: Arc<AtomicU64>,
    stage: Mutex<Option<LinesOfStage>>,
    out: Out,
}

type Out = Arc<dyn Fn(&str) + Send + Sync>;

struct LinesOfStage {
    name: String,
    total: u64,
    start: Instant,
    /// Dropped, it ends the thread that writes now and then; that gives how many lines there were.
    over: Sender<()>,
    teller: Option<JoinHandle<usize>>,
}

impl Lines {
    fn new<W: Write>(
        every: Duration,
        each_stage: bool,
        out: impl Fn() -> W + Send + Sync + 'static,
    ) -> Self {
        Self {
            every,
            each_stage,
            done: Arc::default(),
            stage: Mutex::new(None),
            out: Arc::new(move |line| {
                // Whoever closed standard error does not want to know.
                let _ = out().write_all(line.as_bytes());
            }),
        }
    }

    fn begin(&self, stage: &str, total: u64) {
        self.end(false);
        self.done.store(0, Ordering::Relaxed);
        let name = shown(stage).into_owned();
        let (over, ends) = mpsc::channel();
        let start = Instant::now();
        let (told, done, out) = (name.clone(), self.done.clone(), self.out.clone());
        let every = self.every;
        let tell = move || {
            let mut lines = 0;
            while let Err(RecvTimeoutError::Timeout) = ends.recv_timeout(every) {
                let done = done.load(Ordering::Relaxed);
                out(&line_between(&told, done, total, start.elapsed()));
                lines += 1;
            }
            lines
        };
        // Without a thread there is less to read, and nothing worse.
        let teller = thread::Builder::new().name("progress".into()).spawn(tell);
        *locked(&self.stage) = Some(LinesOfStage {
            name,
            total,
            start,
            over,
            teller: teller.ok(),
        });
    }

    fn end(&self, is_done: bool) {
        let Some(stage) = locked(&self.stage).take() else {
            return;
        };
        drop(stage.over);
        let lines = stage.teller.and_then(|teller| teller.join().ok());
        if is_done && (self.each_stage || lines.unwrap_or_default() > 0) {
            let done = self.done.load(Ordering::Relaxed).max(stage.total);
            let seconds = stage.start.elapsed().as_secs_f64();
            let name = stage.name;
            (self.out)(&format!("{name}: {} in {seconds:.1} s\n", human_size(done)));
        }
    }
}

/// A line of a stage that is not over: bytes, rate, time left.
fn line_between(stage: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let rate = done as f64 / seconds;
    let so_far = human_size(done);
    if done == 0 {
        return format!("{stage}: {seconds:.0} s\n");
    }
    let rate_shown = human_size(rate as u64);
    if total == 0 || done > total {
        return format!("{stage}: {so_far}, {rate_shown}/s\n");
    }
    let left = (total - done) as f64 / rate;
    format!(
        "{stage}: {so_far} of {}, {rate_shown}/s, {left:.0} s left\n",
        human_size(total)
    )
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_of(each_stage: bool, sleep: Duration) -> String {
        let log = Log::default();
        let written = log.clone();
        let lines = Lines::new(Duration::from_millis(100), each_stage, move || {
            written.clone()
        });
        lines.begin("writing\x1b layers", 4000);
        lines.done.fetch_add(1000, Ordering::Relaxed);
        thread::sleep(sleep);
        lines.end(true);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_log_gets_a_line_now_and_then() {
        assert_eq!(log_of(false, Duration::ZERO), "");
        let short = log_of(true, Duration::ZERO);
        assert_eq!(short.lines().count(), 1, "{short}");
        let long = log_of(false, Duration::from_millis(350));
        let lines: Vec<&str> = long.lines().collect();
        assert!((3..=4).contains(&lines.len()), "{long}");
        for line in &lines[..lines.len() - 1] {
            assert!(
                line.starts_with("writing\\u{1b} layers: 1.00 kB of 4.00 kB, "),
                "{line}"
            );
            assert!(line.ends_with(" s left"), "{line}");
        }
    }

    #[test]
    fn a_line_tells_what_is_known() {
        let ten = Duration::from_secs(10);
        assert_eq!(line_between("waiting", 0, 0, ten), "waiting: 10 s\n");
        let known = line_between("hashing", 5_000_000, 20_000_000, ten);
        assert_eq!(known, "hashing: 5.00 MB of 20.0 MB, 500 kB/s, 30 s left\n");
        let unknown = line_between("reading", 5_000_000, 0, ten);
        assert_eq!(unknown, "reading: 5.00 MB, 500 kB/s\n");
    }

    #[test]
    fn the_templates_can_be_read() {
        for template in [STAGE, STAGE_WITHOUT_TOTAL, WAIT, PART, PART_WITHOUT_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
