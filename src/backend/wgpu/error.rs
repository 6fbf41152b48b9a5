//! What can go wrong between the program and a device.

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("no graphics adapter found. {hint} The processor needs no driver: `--adapter cpu`.")]
    NoAdapter { hint: &'static str },
    #[error("no adapter matches `{selector}`; there are: {available}")]
    NoMatch { selector: String, available: String },
    #[error("adapter `{adapter}` refused the device: {message}")]
    Device { adapter: String, message: String },
    #[error("the host's device of adapter `{adapter}` cannot be used: {problem}")]
    Host { adapter: String, problem: String },
    #[error("adapter `{adapter}` reported an error: {message}")]
    Lost { adapter: String, message: String },
    #[error("kernel `{kernel}`: {message}")]
    Kernel { kernel: String, message: String },
    #[error("{variable} names {}: {problem}", path.display())]
    Kernels { variable: &'static str, path: std::path::PathBuf, problem: String },
    #[error(
        "{what} needs {needed} of device memory in one piece, adapter `{adapter}` allows {allowed}"
    )]
    TooLarge { what: String, needed: String, allowed: String, adapter: String },
}
