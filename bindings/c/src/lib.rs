//! Mix-of-Show for C: what stands behind `include/mixofshow.h`.
//!
//! Here structs become what the library asks for, results handles, errors a status and a text.
//! Nothing is computed here, and no panic leaves: each call is caught at the border.

#![allow(
    clippy::missing_safety_doc,
    reason = "documentation becomes the header's, whose beginning says what holds for all calls"
)]

mod border;
mod concept;
mod control;
mod error;
mod fuse;
mod given;
mod latents;
mod model;
mod pictures;
mod region;
mod request;
mod train;
mod watch;

use std::ffi::c_char;

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn mos_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
