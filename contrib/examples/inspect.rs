//! Prints the layers of an image from any transport, the largest first: `inspect IMAGE`.

use std::cmp::Reverse;

use apt_ostree_helper::image::{self, Access, Failure, FailureKind};

/// What is to be printed.
pub fn run(arguments: &[String]) -> anyhow::Result<String> {
    let [image] = arguments else {
        anyhow::bail!("usage: inspect oci:LAYOUT");
    };
    let inspected = match image::inspect(&image.parse()?, &Access::default()) {
        Ok(inspected) => inspected,
        Err(error) => match Failure::of(&error).map(|failure| failure.kind) {
            Some(FailureKind::Missing) => return Ok("there is no such image".to_owned()),
            _ => return Err(error),
        },
    };
    let mut layers = inspected.summary.layers;
    layers.sort_by_key(|layer| Reverse(layer.file_bytes));
    let lines = layers.iter().map(|layer| {
        let components = layer.components.join(" ");
        format!("{:>12} {} {components}", layer.file_bytes, layer.digest)
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

#[allow(dead_code, clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("{}", run(&arguments)?);
    Ok(())
}
