//! What a person or a script sees.

mod progress;
mod summary;

pub use progress::{ProgressMode, TerminalProgress};
pub use summary::{human_size, layer_table, summary_line};
