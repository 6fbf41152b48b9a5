//! A very small Stable Diffusion XL: its files, pictures and concepts, against diffusers
//! (`tools/reference/sdxl.py`).

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/chosen.rs"]
mod chosen;
mod concepts;
mod files;
#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/hashed.rs"]
mod hashed;
mod inpainting;
mod learning;
mod model;
mod pictures;
mod program;
mod regions;
