//! Teaching a concept: ED-LoRA tuning (Mix-of-Show, arXiv 2305.18292, section 3.2), plain LoRA and P+.

pub mod captions;
pub mod config;
pub mod draws;
pub mod folder;
pub mod step;
pub mod transform;
