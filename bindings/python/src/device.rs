//! The device that computes.

use mixofshow::backend::wgpu::{self, ActivationUse, MatrixUse};
use mixofshow::backend::{self, Selection, cpu};
use mixofshow::{Device, Precision};
use pyo3::prelude::*;

use crate::errors::{OrRaise, argument};

/// A variable of the environment, as the program `mos` heeds it.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// Opens the device of this name; none: the one that `MOS_ADAPTER` names, else the best.
pub fn open(name: Option<&str>) -> PyResult<Device> {
    let name = name.map(str::to_string).or_else(|| variable("MOS_ADAPTER")).unwrap_or_default();
    let matrices: Option<MatrixUse> = variable("MOS_MATRICES")
        .map(|word| word.parse())
        .transpose()
        .map_err(|error| argument(format!("MOS_MATRICES: {error}")))?;
    let activations: Option<ActivationUse> = variable("MOS_ACTIVATIONS")
        .map(|word| word.parse())
        .transpose()
        .map_err(|error| argument(format!("MOS_ACTIVATIONS: {error}")))?;
    let options = backend::Options {
        wgpu: wgpu::Options {
            matrices: matrices.unwrap_or_default(),
            activations: activations.unwrap_or_default(),
            ..wgpu::Options::default()
        },
        cpu: cpu::Options { level: variable("MOS_CPU_LEVEL"), threads: None },
    };
    backend::open(&Selection::of(&name), &options).or_raise()
}

/// How weights are held, by its name; none: as they are stored.
pub fn precision(name: Option<&str>) -> PyResult<Precision> {
    match name {
        None => Ok(Precision::default()),
        Some(name) => name.parse().map_err(|error| argument(format!("precision: {error}"))),
    }
}

/// The names of all devices, in the order of their numbers; the processor is the last.
#[pyfunction]
pub fn devices(py: Python<'_>) -> Vec<String> {
    let adapters = py.detach(wgpu::list);
    let names = adapters.into_iter().map(|adapter| adapter.name);
    names.chain([backend::PROCESSOR.to_string()]).collect()
}
