//! What keeps a server from starting.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What keeps a server from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that others reach, and no token.
    #[error(
        "{address}: other machines could reach this address, so a token is needed: give --token, \
            or listen on 127.0.0.1"
    )]
    Open {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A token that is guessed too soon.
    #[error("the token has {found} characters: expected {least} or more, none of them a space")]
    Token {
        /// Characters of it.
        found: usize,
        /// The least that are taken.
        least: usize,
    },
    /// A client's name that is none.
    #[error(
        "the client `{name}`: expected a name of its own, of 1 to 40 letters, digits, - and _, and \
            not `inputs`"
    )]
    Client {
        /// As it was given.
        name: String,
    },
    /// Clients that could not be told apart.
    #[error("two clients have the same token: each needs its own, and another than --token")]
    Shared,
    /// The address is taken, or not this machine's.
    #[error("{address}: cannot listen there: {source}")]
    Address {
        /// Where it was to listen.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder that is not there.
    #[error("{}: the folder of {what} cannot be read: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What was expected in it.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Nothing to make pictures with.
    #[error("there is no model: the folders have none, and this build has none of its own")]
    NoModel,
    /// An origin that is none.
    #[error("the origin `{found}`: expected one such as http://localhost:3000")]
    Origin {
        /// As it was given.
        found: String,
    },
    /// The system gives no threads.
    #[error("the server cannot run: {source}")]
    Threads {
        /// The system's reason.
        source: std::io::Error,
    },
}
