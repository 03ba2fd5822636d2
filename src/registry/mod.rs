//! Where images go and come from, as users write it: transports and names; and images opened.

mod copied;
mod destination;
mod open;
mod proxy;
mod reference;

pub use destination::Destination;
pub use open::{Access, Image, read_config, read_manifest};
pub use reference::{Reference, has_transport};
