//! Tuning steps against torch, and what they cost.

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/chosen.rs"]
mod chosen;
mod cost;
mod steps;

#[path = "../common/hashed.rs"]
mod hashed;
#[path = "../common/published.rs"]
#[allow(dead_code, reason = "these tests take the configurations alone")]
mod published;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "these cases have no probes")]
mod reference;
#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/weightless.rs"]
mod weightless;
