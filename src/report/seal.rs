//! Images that were sealed.

use super::human_size;
use crate::pipeline::Sealed;

/// What a machine boots then, and what was made for that.
pub fn sealed_lines(sealed: &Sealed) -> String {
    let mut text = format!(
        "composefs {}\nkernel {}: {}\n",
        sealed.composefs, sealed.kernel, sealed.command_line
    );
    if let Some(uki) = &sealed.uki {
        let signed = if uki.signed { ", signed" } else { "" };
        let size = human_size(uki.size);
        text += &format!("{}, {size}{signed}; {} layers", uki.path, sealed.layers);
    }
    text
}
