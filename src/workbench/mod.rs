//! For people who write shaders: kernels in WGSL, anybody's, checked, measured and tuned.
//!
//! A kernel is a [`Source`]: WGSL or a template of it, with a header that says how many workgroups
//! it takes. A [`Spec`] says what it is to compute: one of the [`kinds`], or what a file describes.

mod bench;
mod cases;
mod check;
mod compare;
mod complaint;
mod device;
mod edge;
mod error;
mod expected;
mod expression;
mod families;
mod fault;
mod hints;
mod interface;
mod interpreter;
mod kinds;
mod like;
mod on_device;
mod reference;
mod report;
mod rewritten;
mod rounding;
mod shipped;
mod show;
mod source;
mod spec;
mod statistics;
mod strides;
mod trial;
mod trust;
mod tune;

pub use bench::{BenchOptions, BenchReport, Clock, Contender, Measured, Roofline, bench, roofline};
pub use check::{CheckOptions, check};
pub use error::{Error, Result};
pub use families::{Shapes, families, family_shapes, tune_family};
pub use fault::{Fault, FaultKind};
pub use report::{CheckReport, Checked};
pub use shipped::{Variant, check_shipped, stands_for_own, variants};
pub use show::{Language, shown, statistics};
pub use source::{Setting, Settings, Source, Wgsl};
pub use spec::{Spec, kinds};
pub use statistics::{Difference, ENOUGH, quantile};
pub use tune::{TuneOptions, TuneReport, Tuned, tune};
