//! One thing to be done, how far it is, and what came of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Progress;

use super::client::Client;
use super::fusion::Fusion;
use super::lesson::Lesson;
use super::order::Order;
use super::problem::Problem;

/// What is to be done.
pub enum Work {
    Generate(Box<Order>),
    Teach(Box<Lesson>),
    Fuse(Box<Fusion>),
}

impl Work {
    pub fn name(&self) -> &'static str {
        match self {
            Work::Generate(_) => "generate",
            Work::Teach(_) => "train",
            Work::Fuse(_) => "fuse",
        }
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Waiting,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Running => "running",
            State::Done => "done",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Nothing more comes.
    pub fn is_over(self) -> bool {
        !matches!(self, State::Waiting | State::Running)
    }
}

/// A picture that was made.
#[derive(Debug)]
pub struct Made {
    /// The file, with its settings.
    pub png: Vec<u8>,
    pub seed: u64,
    pub width: usize,
    pub height: usize,
    /// Its settings as web UIs write them.
    pub told: String,
    /// In the folder of pictures.
    pub file: Option<String>,
}

/// How far a job is.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: State,
    /// As the library calls it.
    pub stage: &'static str,
    /// Parts of the stage that are done.
    pub done: usize,
    pub of: usize,
    pub pictures: Vec<Arc<Made>>,
    /// What is being made, as far as it can be seen, and how many looks there were.
    pub preview: Option<(usize, Arc<Vec<u8>>)>,
    pub warnings: Vec<String>,
    pub problem: Option<Problem>,
    /// What the job came to, besides pictures.
    pub result: Option<Value>,
    pub started: Option<SystemTime>,
    pub ended: Option<SystemTime>,
}

/// One thing to be done.
pub struct Job {
    pub id: u64,
    pub kind: &'static str,
    /// Who asked for it.
    pub owner: Client,
    /// What was asked for, in short.
    pub asked: Value,
    /// It is told of after it is over; others are forgotten then.
    pub is_told: bool,
    pub created: SystemTime,
    is_cancelled: AtomicBool,
    status: watch::Sender<Status>,
    /// Told whenever any job changes.
    changes: watch::Sender<u64>,
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e3).round() / 1e3
}

impl Job {
    pub fn new(
        id: u64,
        kind: &'static str,
        owner: Client,
        asked: Value,
        is_told: bool,
        changes: watch::Sender<u64>,
    ) -> Job {
        let status = Status {
            state: State::Waiting,
            stage: "",
            done: 0,
            of: 0,
            pictures: Vec::new(),
            preview: None,
            warnings: Vec::new(),
            problem: None,
            result: None,
            started: None,
            ended: None,
        };
        let (status, _) = watch::channel(status);
        let is_cancelled = AtomicBool::new(false);
        let created = SystemTime::now();
        Job { id, kind, owner, asked, is_told, created, is_cancelled, status, changes }
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// To wait for changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Asks what is under way to end.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// Changes how far it is; what is over stays so.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        let changed = self.status.send_if_modified(|status| {
            let is_open = !status.state.is_over();
            if is_open {
                change(status);
            }
            is_open
        });
        if changed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// What a watch of the library answers.
    pub fn heed(&self, at: Progress<'_>) -> ControlFlow<()> {
        self.change(|status| {
            (status.stage, status.done, status.of) = (at.stage, at.done, at.of);
        });
        match self.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    /// A sentence for whoever asked.
    pub fn warn(&self, warning: &str) {
        self.change(|status| {
            if !status.warnings.iter().any(|known| known == warning) {
                status.warnings.push(warning.to_string());
            }
        });
    }

    /// A picture is there.
    pub fn add(&self, made: Made) {
        self.change(|status| status.pictures.push(Arc::new(made)));
    }

    /// What is being made, as far as it can be seen.
    pub fn show(&self, png: Vec<u8>) {
        self.change(|status| {
            let looks = status.preview.as_ref().map_or(0, |(looks, _)| *looks);
            status.preview = Some((looks + 1, Arc::new(png)));
        });
    }

    pub fn start(&self) {
        self.change(|status| {
            (status.state, status.started) = (State::Running, Some(SystemTime::now()));
        });
    }

    /// It is over.
    pub fn end(&self, came: Result<(), Problem>) {
        self.change(|status| {
            (status.ended, status.preview) = (Some(SystemTime::now()), None);
            status.state = match &came {
                Ok(()) => State::Done,
                Err(problem) if problem.is_cancelled => State::Cancelled,
                Err(_) => State::Failed,
            };
            status.problem = came.err();
        });
    }

    /// Bytes of its pictures.
    pub fn bytes(&self) -> usize {
        self.status.borrow().pictures.iter().map(|made| made.png.len()).sum()
    }

    /// As clients see it; `ahead` jobs run before it.
    pub fn told(&self, ahead: Option<usize>) -> Value {
        let status = self.status();
        let picture = |(index, made): (usize, &Arc<Made>)| {
            json!({
                "url": format!("/api/jobs/{}/pictures/{index}", self.id),
                "seed": made.seed,
                "width": made.width,
                "height": made.height,
                "file": made.file,
            })
        };
        let error = status
            .problem
            .as_ref()
            .map(|problem| json!({ "message": problem.words, "field": problem.field }));
        json!({
            "id": self.id.to_string(),
            "kind": self.kind,
            "state": status.state.name(),
            "ahead": ahead,
            "stage": status.stage,
            "done": status.done,
            "of": status.of,
            "created": seconds(self.created),
            "started": status.started.map(seconds),
            "ended": status.ended.map(seconds),
            "asked": self.asked,
            "preview": status.preview.as_ref().map(|(looks, _)| {
                format!("/api/jobs/{}/preview?{looks}", self.id)
            }),
            "pictures": status.pictures.iter().enumerate().map(picture).collect::<Vec<_>>(),
            "warnings": status.warnings,
            "error": error,
            "result": status.result,
        })
    }
}
