//! The header of the library for C: see `tests/header.rs`.
