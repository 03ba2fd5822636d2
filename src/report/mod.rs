//! What a person or a script gets to read: tables, pages, JSON and progress.

mod finalize;
mod images;
mod page;
mod progress;
mod release_notes;
mod sbom;
mod schema;
mod seal;
mod shown;
mod summary;
mod transfer;

pub use finalize::{finalized, linted, name_list};
pub use images::{difference_text, dry_run_text, found_text, inspected_text};
pub use page::{difference_page, inspected_page};
pub use progress::{ProgressMode, TerminalProgress, remove_bars};
pub use release_notes::release_notes;
pub use sbom::{cyclonedx, spdx};
pub use schema::{schema, schemas};
pub use seal::sealed_lines;
pub use shown::{EscapedStderr, shown, shown_lines};
pub use summary::{
    committed_line, comparison, human_size, imported_line, layer_table, summary_line,
};
pub use transfer::transferred_line;
