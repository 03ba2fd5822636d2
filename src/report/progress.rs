//! Progress on standard error: a bar on a terminal, a line a stage elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::human_size;
use crate::progress::Progress;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, nothing elsewhere.
    Auto,
    /// A line for each stage.
    Plain,
    /// Nothing.
    None,
}

enum Shown {
    Nothing,
    Lines,
    Bar,
}

/// Shows progress on standard error.
pub struct TerminalProgress {
    shown: Shown,
    bar: Mutex<Option<ProgressBar>>,
    stage: Mutex<Option<(String, u64, Instant)>>,
}

impl TerminalProgress {
    /// Progress in `mode`; none at all when `quiet`.
    pub fn new(mode: ProgressMode, quiet: bool) -> Self {
        let shown = match mode {
            _ if quiet => Shown::Nothing,
            ProgressMode::Plain => Shown::Lines,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Shown::Bar,
            ProgressMode::Auto | ProgressMode::None => Shown::Nothing,
        };
        Self {
            shown,
            bar: Mutex::new(None),
            stage: Mutex::new(None),
        }
    }
}

impl Progress for TerminalProgress {
    fn begin(&self, stage: &str, total: u64) {
        match self.shown {
            Shown::Nothing => {}
            Shown::Lines => {
                if let Ok(mut current) = self.stage.lock() {
                    *current = Some((stage.to_owned(), total, Instant::now()));
                }
            }
            Shown::Bar => {
                let style = "{msg:16} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec}";
                let bar = ProgressBar::new(total);
                if let Ok(style) = ProgressStyle::with_template(style) {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.set_message(stage.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                if let Ok(mut current) = self.bar.lock() {
                    *current = Some(bar);
                }
            }
        }
    }

    fn advance(&self, bytes: u64) {
        if let Shown::Bar = self.shown {
            if let Ok(Some(bar)) = self.bar.lock().as_deref() {
                bar.inc(bytes);
            }
        }
    }

    fn end(&self) {
        if let Ok(Some(bar)) = self.bar.lock().map(|mut bar| bar.take()) {
            bar.finish_and_clear();
        }
        if let Ok(Some((stage, total, start))) = self.stage.lock().map(|mut stage| stage.take()) {
            let seconds = start.elapsed().as_secs_f64();
            let line = format!("{stage}: {} in {seconds:.1} s\n", human_size(total));
            // Whoever closed standard error does not want to know.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}
