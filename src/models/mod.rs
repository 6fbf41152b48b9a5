//! Empty for now.
pub mod config;
