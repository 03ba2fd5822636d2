//! Where images go, as users write it: transports and names.

mod destination;

pub use destination::Destination;
