//! Mix-of-Show for Python: what `mixofshow/__init__.py` gives its face to.
//!
//! Here arguments become what the library asks for, results become what Python knows, and errors
//! exceptions. Nothing is computed here.

mod arrays;
mod concept;
mod device;
mod errors;
mod fuse;
mod model;
mod request;
mod scores;
mod survey;
mod train;
mod watch;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    errors::add(module)?;
    module.add_class::<concept::Concept>()?;
    module.add_class::<model::Model>()?;
    module.add_function(wrap_pyfunction!(device::devices, module)?)?;
    module.add_function(wrap_pyfunction!(model::load, module)?)?;
    module.add_function(wrap_pyfunction!(model::save, module)?)?;
    module.add_function(wrap_pyfunction!(train::train, module)?)?;
    module.add_function(wrap_pyfunction!(fuse::fuse, module)?)?;
    module.add_function(wrap_pyfunction!(scores::scores, module)?)?;
    module.add_function(wrap_pyfunction!(scores::trial, module)?)?;
    module.add_function(wrap_pyfunction!(survey::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(survey::merge, module)?)?;
    module.add("TRAINING_SETTINGS", train::KEYS.to_vec())?;
    Ok(())
}
