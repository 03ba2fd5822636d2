//! Makes a plain image of a root filesystem in an OCI layout, and prints its digest:
//! `build ROOTFS LAYOUT [BYTES]`. After so many bytes it gives up.

use std::sync::atomic::{AtomicU64, Ordering};

use apt_ostree_helper::image::{
    self, CommitOptions, Format, ImageOptions, LayerOptions, RootfsOptions,
};
use apt_ostree_helper::progress::{Cancelled, Progress};

/// Counts bytes, and wants no more than `most`.
struct Budget {
    done: AtomicU64,
    most: u64,
}

impl Progress for Budget {
    fn begin(&self, _stage: &str, _total: u64) {}

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self) {}

    fn is_cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) > self.most
    }
}

/// What is to be printed.
pub fn run(arguments: &[String]) -> anyhow::Result<String> {
    let [rootfs, layout, most @ ..] = arguments else {
        anyhow::bail!("usage: build ROOTFS LAYOUT [BYTES]");
    };
    let budget = Budget {
        done: AtomicU64::new(0),
        most: most.first().map_or(Ok(u64::MAX), |bytes| bytes.parse())?,
    };
    let destination = format!("oci:{layout}").parse()?;
    let built = image::build(
        &RootfsOptions::new(rootfs),
        &CommitOptions::default(),
        ImageOptions::new(destination, LayerOptions::new(Format::Plain)),
        &|_built| Ok(()),
        &budget,
    );
    match built {
        Ok(built) => Ok(built.digest),
        Err(error) if Cancelled::is_cause_of(&error) => Ok("given up".to_owned()),
        Err(error) => Err(error),
    }
}

#[allow(dead_code, clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("{}", run(&arguments)?);
    Ok(())
}
