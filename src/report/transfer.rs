//! Images that were copied.

use super::human_size;
use crate::pipeline::Transferred;

/// How much was copied, `sent` or `fetched`, and how much was there; in `detail` each layer.
pub fn transferred_line(done: &Transferred, verb: &str, detail: bool) -> String {
    let (mut count, mut bytes, mut there) = (0, 0, 0);
    let mut text = String::new();
    for layer in &done.layers {
        let what = match layer.transferred {
            true => {
                count += 1;
                bytes += layer.size;
                verb
            }
            false => {
                there += layer.size;
                "there already"
            }
        };
        if detail {
            text += &format!("{} {:>9}  {what}\n", layer.digest, human_size(layer.size));
        }
    }
    let images = match done.images {
        1 => String::new(),
        images => format!("{images} images, "),
    };
    text + &format!(
        "{images}{} layers: {count} {verb} ({}), {} there already ({})",
        done.layers.len(),
        human_size(bytes),
        done.layers.len() - count,
        human_size(there)
    )
}
