//! What can go wrong between the program and a device.

/// What can go wrong between the program and a graphics device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no adapter at all.
    #[error("no graphics adapter found. {hint} The processor needs no driver: `--adapter cpu`.")]
    NoAdapter {
        /// What to install on this system.
        hint: &'static str,
    },
    /// A selection that fits no adapter.
    #[error("no adapter matches `{selector}`; there are: {available}")]
    NoMatch {
        /// As it was asked for.
        selector: String,
        /// Names and numbers of all adapters.
        available: String,
    },
    /// The adapter gave no device, or none as it was wanted.
    #[error("adapter `{adapter}` refused the device: {message}")]
    Device {
        /// The adapter's name.
        adapter: String,
        /// The driver's reason, or what is wrong with the options.
        message: String,
    },
    /// A host's device lacks what is needed ([`Gpu::from_host`](super::Gpu::from_host)).
    #[error("the host's device of adapter `{adapter}` cannot be used: {problem}")]
    Host {
        /// The adapter's name.
        adapter: String,
        /// Everything that it lacks.
        problem: String,
    },
    /// The device failed, or ran out of memory: what it was computing is lost.
    #[error("adapter `{adapter}` reported an error: {message}")]
    Lost {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        message: String,
    },
    /// A kernel that is not valid, or is not given what it takes.
    #[error("kernel `{kernel}`: {message}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What is wrong, with the line where it is in the text.
        message: String,
    },
    /// The folder of kernels that the variable names cannot be used.
    #[error("{variable} names {}: {problem}", path.display())]
    Kernels {
        /// The variable's name.
        variable: &'static str,
        /// The file or folder.
        path: std::path::PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A buffer larger than the device's largest.
    #[error(
        "{what} needs {needed} of device memory in one piece, adapter `{adapter}` allows {allowed}"
    )]
    TooLarge {
        /// What it was for.
        what: String,
        /// Its size, with its unit.
        needed: String,
        /// The largest, with its unit.
        allowed: String,
        /// The adapter's name.
        adapter: String,
    },
}
