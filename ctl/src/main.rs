//! The `meshctl` binary.
