//! Where images go and come from, as users write it: transports and names; images opened, and
//! sent to registries; artifacts attached to them.

mod access;
mod attach;
mod copied;
mod destination;
mod failure;
mod name;
mod open;
mod proxy;
mod push;
mod reference;
mod signing;
mod skopeo;
mod stored;
mod watch;

pub use access::{Access, Credentials};
pub use attach::{Artifact, attach};
pub use destination::Destination;
pub use failure::{Failure, FailureKind};
pub use name::RegistryName;
pub use open::{Description, Image, describe, read_config, read_manifest};
pub use push::{check_writable, copy, push};
pub use reference::{Reference, has_transport};
pub use signing::Signing;
pub use stored::{Document, Stored, StoredImage};
