//! The queue before the device: bounded, in the order in which jobs came. One thread takes from it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::watch;

use super::client::Client;
use super::job::{Job, Work};
use super::limits::Limits;
use super::problem::Problem;

/// What does the jobs.
pub trait Works {
    fn work(&mut self, job: &Job, work: Work) -> Result<(), Problem>;

    /// A job ended in the middle of anything (a panic): what it may have left in disorder goes.
    fn recover(&mut self);
}

/// The queue, and what is known of jobs.
pub struct Queue {
    inner: Mutex<Inner>,
    /// There is something to do, or the end.
    ready: Condvar,
    /// Told whenever any job changes.
    changes: watch::Sender<u64>,
    limits: Limits,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<(Arc<Job>, Work)>,
    running: Option<Arc<Job>>,
    over: VecDeque<Arc<Job>>,
    last: u64,
    has_ended: bool,
}

impl Queue {
    pub fn new(limits: Limits) -> Queue {
        let (changes, _) = watch::channel(0);
        Queue { inner: Mutex::default(), ready: Condvar::new(), changes, limits }
    }

    /// No job runs while this is held, so that nothing in it can be half done.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job at the end.
    pub fn add(
        &self,
        owner: &Client,
        work: Work,
        asked: Value,
        is_told: bool,
    ) -> Result<Arc<Job>, Problem> {
        let mut inner = self.inner();
        if inner.has_ended {
            return Err(ending());
        }
        if inner.waiting.len() >= self.limits.waiting {
            let words =
                format!("{} jobs are waiting already: ask again later", inner.waiting.len());
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, words));
        }
        inner.last += 1;
        let (kind, owner, changes) = (work.name(), owner.clone(), self.changes.clone());
        let job = Job::new(inner.last, kind, owner, asked, is_told, changes);
        let job = Arc::new(job);
        inner.waiting.push_back((Arc::clone(&job), work));
        drop(inner);
        self.ready.notify_one();
        self.tell();
        Ok(job)
    }

    /// Ends a job: at once where it waits, at its next step where it runs.
    pub fn cancel(&self, job: &Arc<Job>) {
        job.cancel();
        let mut inner = self.inner();
        let Some(place) = inner.waiting.iter().position(|(other, _)| other.id == job.id) else {
            return;
        };
        let waited = inner.waiting.remove(place);
        self.put_away(&mut inner, job);
        drop(inner);
        drop(waited);
        job.end(Err(Problem::cancelled("it was cancelled before it began")));
        self.tell();
    }

    /// The job of that number, while it is known, of those that `client` sees.
    pub fn find(&self, client: &Client, id: u64) -> Option<(Arc<Job>, Option<usize>)> {
        self.seen(client).into_iter().find(|(job, _)| job.id == id)
    }

    /// The jobs that `client` sees.
    pub fn seen(&self, client: &Client) -> Vec<(Arc<Job>, Option<usize>)> {
        let mut all = self.all();
        all.retain(|(job, _)| client.sees(&job.owner));
        all
    }

    /// All jobs that are known: over, running, waiting; with how many run before it.
    fn all(&self) -> Vec<(Arc<Job>, Option<usize>)> {
        let inner = self.inner();
        let before = usize::from(inner.running.is_some());
        let over = inner.over.iter().map(|job| (Arc::clone(job), None));
        let running = inner.running.iter().map(|job| (Arc::clone(job), Some(0)));
        let waiting = inner.waiting.iter().enumerate();
        let waiting = waiting.map(|(place, (job, _))| (Arc::clone(job), Some(before + place)));
        over.chain(running).chain(waiting).collect()
    }

    /// The job under way, where `client` sees it.
    pub fn running(&self, client: &Client) -> Option<Arc<Job>> {
        self.inner().running.clone().filter(|job| client.sees(&job.owner))
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.inner().waiting.len()
    }

    /// To wait for changes of any job.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn tell(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes no more jobs, and ends those that there are.
    pub fn end(&self) {
        let mut inner = self.inner();
        inner.has_ended = true;
        let waiting = std::mem::take(&mut inner.waiting);
        if let Some(job) = &inner.running {
            job.cancel();
        }
        drop(inner);
        self.ready.notify_all();
        for (job, _) in waiting {
            job.end(Err(ending()));
        }
    }

    /// Does jobs until the end, on the thread that calls.
    pub fn work(&self, worker: &mut dyn Works) {
        while let Some((job, work)) = self.next() {
            job.start();
            let done = catch_unwind(AssertUnwindSafe(|| worker.work(&job, work)));
            let came = done.unwrap_or_else(|panic| {
                worker.recover();
                Err(Problem::own(format!("a fault in this program ended it: {}", said(&*panic))))
            });
            // It may have been asked to end while it failed at something else.
            let came = came.map_err(|problem| match job.is_cancelled() {
                true => Problem::cancelled("it was cancelled"),
                false => problem,
            });
            let mut inner = self.inner();
            inner.running = None;
            let is_last = inner.has_ended;
            self.put_away(&mut inner, &job);
            drop(inner);
            job.end(came.map_err(|problem| match is_last && problem.is_cancelled {
                true => ending(),
                false => problem,
            }));
            self.tell();
        }
    }

    /// The next job, once there is one; none at the end.
    fn next(&self) -> Option<(Arc<Job>, Work)> {
        let mut inner = self.inner();
        loop {
            if inner.has_ended {
                return None;
            }
            if let Some((job, work)) = inner.waiting.pop_front() {
                inner.running = Some(Arc::clone(&job));
                return Some((job, work));
            }
            inner = self.ready.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Keeps a job that is over, and forgets older ones where there are too many.
    fn put_away(&self, inner: &mut Inner, job: &Arc<Job>) {
        if !job.is_told {
            return;
        }
        inner.over.push_back(Arc::clone(job));
        let mut bytes: usize = inner.over.iter().map(|job| job.bytes()).sum();
        while inner.over.len() > 1
            && (inner.over.len() > self.limits.told || bytes > self.limits.told_bytes)
        {
            let forgotten = inner.over.pop_front();
            bytes -= forgotten.map_or(0, |job| job.bytes());
        }
    }
}

fn ending() -> Problem {
    let words = "the server is ending";
    Problem { is_cancelled: true, ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, words) }
}

/// What a panic says.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why")
}

/// A job whose client waits for it: it ends with the client.
pub struct Attended {
    queue: Arc<Queue>,
    job: Arc<Job>,
}

impl Attended {
    pub fn new(queue: Arc<Queue>, job: Arc<Job>) -> Attended {
        Attended { queue, job }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.queue.cancel(&self.job);
    }
}

#[cfg(test)]
mod tests;
