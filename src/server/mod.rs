//! Pictures over HTTP: one queue before one device, asked by programs and by a page in a browser.
//!
//! [`Server::bind`] checks what it is given and opens its port; [`Server::run`] answers until it is
//! told to end. Three faces stand before the same queue: what clients of AUTOMATIC1111's web UI
//! speak (`/sdapi/v1`), what clients of OpenAI's speak (`/v1`), and one of its own (`/api`), by
//! which the page works that is served at `/`.
//!
//! A request names models and concepts by what is listed in given folders, and never reaches
//! another file. Only the loopback interface is served, unless a token guards it.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::ops::ControlFlow;
//!
//! use mixofshow::Device;
//! use mixofshow::server::{Options, Server};
//!
//! let server = Server::bind(Device::best()?, Options::default())?;
//! println!("http://{}", server.address());
//! server.run(&mut || ControlFlow::Continue(()))?;
//! # Ok(())
//! # }
//! ```
mod client;
mod concepts;
mod connections;
mod error;
mod fields;
mod fusion;
mod gallery;
mod given;
mod guard;
mod job;
mod lesson;
mod limits;
mod openai;
mod order;
mod own;
mod page;
mod problem;
mod queue;
mod replies;
mod router;
mod sdapi;
mod shared;
mod shelf;
mod worker;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::watch;

use crate::backend::{Device, Precision};

pub use error::Error;
pub use limits::Limits;

use guard::Guard;
use shared::Shared;
use worker::Worker;

/// Threads that speak HTTP; the device's work has its own.
const THREADS: usize = 2;
/// How often [`Server::run`] asks whether to go on.
const ASKED: Duration = Duration::from_millis(50);
/// How long connections have to end, once the server does.
const LAST: Duration = Duration::from_secs(2);

/// What a server serves, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens; port 0: any that is free. Others than loopback addresses ask for a token.
    pub address: SocketAddr,
    /// What clients have to show, if anything.
    pub token: Option<String>,
    /// Names and tokens of clients that are told apart: each sees its own jobs and pictures alone;
    /// who has `token` sees all.
    pub clients: Vec<(String, String)>,
    /// Host names, besides `localhost` and addresses, by which it is called.
    pub names: Vec<String>,
    /// Origins of other web pages that may ask, such as `http://localhost:3000`.
    pub origins: Vec<String>,
    /// Folders with models. What is fused goes into the first.
    pub models: Vec<PathBuf>,
    /// Folders with concepts and LoRAs. What is taught goes into the first.
    pub concepts: Vec<PathBuf>,
    /// Folders in which are folders of pictures to teach from.
    pub pictures: Vec<PathBuf>,
    /// Where pictures are kept; none: they are not.
    pub out: Option<PathBuf>,
    /// How weights are held.
    pub precision: Precision,
    /// The most of everything.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7860),
            token: None,
            clients: Vec::new(),
            names: Vec::new(),
            origins: Vec::new(),
            models: Vec::new(),
            concepts: Vec::new(),
            pictures: Vec::new(),
            out: None,
            precision: Precision::default(),
            limits: Limits::default(),
        }
    }
}

/// A server whose port is open.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    worker: Worker,
    guard: Guard,
}

impl Server {
    /// Checks the options and opens the port. Nothing is answered yet.
    ///
    /// # Errors
    /// An address that is not for everybody without a token, or that cannot be had; folders that
    /// are not there; no model at all.
    pub fn bind(device: Device, options: Options) -> Result<Server, Error> {
        let guard = Guard::new(&options)?;
        let shared = Arc::new(Shared::new(&device, &options)?);
        let worker = Worker::new(device, Arc::clone(&shared), options.precision);
        let listening = |source| Error::Address { address: options.address, source };
        let listener = TcpListener::bind(options.address).map_err(listening)?;
        listener.set_nonblocking(true).map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        Ok(Server { listener, address, shared, worker, guard })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names of the models that can be asked for; the first is taken where none is.
    pub fn models(&self) -> Vec<String> {
        let chosen = self.shared.shelf.chosen();
        let models = self.shared.shelf.models().into_iter().map(|model| model.name);
        let others = models.filter(|name| *name != chosen);
        std::iter::once(chosen.clone()).chain(others).collect()
    }

    /// Answers until `go_on`, which is asked again and again, breaks. Then nothing new is taken,
    /// what is under way ends at its next step, and clients are told.
    ///
    /// # Errors
    /// A system that gives no threads.
    pub fn run(self, go_on: &mut dyn FnMut() -> ControlFlow<()>) -> Result<(), Error> {
        let Server { listener, shared, mut worker, guard, .. } = self;
        let threads = |source| Error::Threads { source };
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()
            .map_err(threads)?;
        let queue = Arc::clone(&shared.queue);
        let working = std::thread::Builder::new()
            .name("mos jobs".into())
            .spawn(move || queue.work(&mut worker))
            .map_err(threads)?;
        let (end, ended) = watch::channel(false);
        let router = router::router(Arc::clone(&shared), Arc::new(guard));
        let limits = shared.limits.clone();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(threads)?;
            let serving = tokio::spawn(connections::serve(listener, router, limits, ended, LAST));
            while go_on().is_continue() {
                tokio::time::sleep(ASKED).await;
            }
            shared.queue.end();
            end.send_replace(true);
            let _ = serving.await;
            Ok(())
        })?;
        // The device's work ends at its next step.
        let _ = working.join();
        runtime.shutdown_timeout(LAST);
        Ok(())
    }
}
