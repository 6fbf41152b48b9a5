//! Teaching a concept: ED-LoRA tuning (Mix-of-Show, arXiv 2305.18292, section 3.2), plain LoRA and P+.

pub mod step;
