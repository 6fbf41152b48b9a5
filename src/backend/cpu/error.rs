//! What can go wrong on the processor.

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{mebibytes} MiB of memory for {what} are not to be had")]
    Memory { what: String, mebibytes: u64 },
    #[error("unknown vector instructions `{wanted}`: expected {}", super::Level::NAMES.join(", "))]
    UnknownLevel { wanted: String },
    #[error("this processor has no {wanted} instructions: the best of it is {best}")]
    MissingLevel { wanted: String, best: &'static str },
    #[error("threads for the processor's work cannot be started: {0}")]
    Threads(String),
    #[error(
        "{variable} is `{found}`: expected a number of threads, 0 (one for each core) to {most}"
    )]
    ThreadCount { variable: &'static str, found: String, most: usize },
    #[error("{operation} in layer `{layer}` would read what it writes: a fault of the plan")]
    Overlap { operation: &'static str, layer: String },
}
