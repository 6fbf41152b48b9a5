//! What can go wrong on the processor.

/// What can go wrong with the processor as a back end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system gives no memory of that size.
    #[error("{mebibytes} MiB of memory for {what} are not to be had")]
    Memory {
        /// What it was for.
        what: String,
        /// How much was asked for, in MiB.
        mebibytes: u64,
    },
    /// A level of vector instructions that has no such name.
    #[error("unknown vector instructions `{wanted}`: expected {}", super::Level::NAMES.join(", "))]
    UnknownLevel {
        /// The name as it was given.
        wanted: String,
    },
    /// A level that this processor does not have.
    #[error("this processor has no {wanted} instructions: the best of it is {best}")]
    MissingLevel {
        /// The level that was asked for.
        wanted: String,
        /// The best level that it has.
        best: &'static str,
    },
    /// The worker threads cannot be started.
    #[error("threads for the processor's work cannot be started: {0}")]
    Threads(String),
    /// The environment variable for the number of threads says something else.
    #[error(
        "{variable} is `{found}`: expected a number of threads, 0 (one for each core) to {most}"
    )]
    ThreadCount {
        /// The variable's name.
        variable: &'static str,
        /// What it says.
        found: String,
        /// The most threads that can be had.
        most: usize,
    },
    /// A plan in which a step would write over what it reads.
    #[error("{operation} in layer `{layer}` would read what it writes: a fault of the plan")]
    Overlap {
        /// The operation's name.
        operation: &'static str,
        /// The layer's full name.
        layer: String,
    },
}
