//! The command line of apt-ostree-helper.

use std::process::ExitCode;

fn main() -> ExitCode {
    apt_ostree_helper::cli::run()
}
