//! Reads the source and leads: the only writer of the mesh's configuration.

pub mod elect;
pub mod lease;
pub mod lease_file;
