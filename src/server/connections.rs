//! Connections: how many there are, and how long each has for what. Slow clients cost a connection
//! for a while, and nobody else anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::limits::Limits;

/// Bytes of a request's head, at most.
const HEAD: usize = 64 << 10;
/// Until the system gives connections again, where it has none left.
const LATER: Duration = Duration::from_millis(50);

/// Serves until the end, and gives connections so long to end themselves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut ended: watch::Receiver<bool>,
    last: Duration,
) {
    let slots = Arc::new(Semaphore::new(limits.connections.max(1)));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            _ = ended.wait_for(|ended| *ended) => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ended.wait_for(|ended| *ended) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, limits, ended) = (router.clone(), limits.clone(), ended.clone());
                connections.spawn(async move {
                    connection(stream, router, &limits, ended, last).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(LATER).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: &Limits,
    mut ended: watch::Receiver<bool>,
    last: Duration,
) {
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.taking));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What goes wrong with a connection is its client's matter.
        _ = connection.as_mut() => return,
        _ = ended.wait_for(|ended| *ended) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(last, connection).await;
}
