//! What a person or a script sees.

mod progress;
mod summary;

pub use progress::{ProgressMode, TerminalProgress};
pub use summary::{
    committed_line, comparison, human_size, imported_line, layer_table, summary_line,
};
