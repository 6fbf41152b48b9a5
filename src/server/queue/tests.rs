use std::ops::ControlFlow;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::pipeline::Request;
use crate::server::client::Client;
use crate::server::job::State;
use crate::server::order::Order;
use crate::server::shelf::Listed;
use crate::watch::Progress;

fn asked(queue: &Queue, prompt: &str) -> Result<Arc<Job>, Problem> {
    let model = Listed { name: "m".into(), file: "m".into(), path: None };
    let request = Request { prompt: prompt.into(), ..Request::default() };
    let order = Order::new(model, request, &Limits::default())?;
    let asked = json!({ "prompt": prompt });
    queue.add(&Client::default(), Work::Generate(Box::new(order)), asked, true)
}

/// Does as the prompt says.
struct Obedient {
    recovered: usize,
    begun: mpsc::Sender<String>,
}

impl Works for Obedient {
    fn work(&mut self, job: &Job, work: Work) -> Result<(), Problem> {
        let Work::Generate(order) = work else { return Err(Problem::own("another kind")) };
        let _ = self.begun.send(order.request.prompt.clone());
        match order.request.prompt.as_str() {
            "panic" => panic!("no cats left"),
            "fail" => Err(Problem::asked("no")),
            "long" => loop {
                std::thread::sleep(Duration::from_millis(2));
                if let ControlFlow::Break(()) = job.heed(Progress::new("sample", 1, 2)) {
                    return Err(Problem::cancelled("it was cancelled"));
                }
            },
            _ => Ok(()),
        }
    }

    fn recover(&mut self) {
        self.recovered += 1;
    }
}

struct Running {
    queue: Arc<Queue>,
    begun: mpsc::Receiver<String>,
    thread: std::thread::JoinHandle<usize>,
}

fn running(limits: Limits) -> Running {
    let queue = Arc::new(Queue::new(limits));
    let (sender, begun) = mpsc::channel();
    let of_thread = Arc::clone(&queue);
    let thread = std::thread::spawn(move || {
        let mut worker = Obedient { recovered: 0, begun: sender };
        of_thread.work(&mut worker);
        worker.recovered
    });
    Running { queue, begun, thread }
}

impl Running {
    fn ended(self) -> usize {
        self.queue.end();
        self.thread.join().unwrap()
    }
}

fn over(job: &Job) -> (State, Option<Problem>) {
    let start = Instant::now();
    while !job.status().state.is_over() {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", job.status());
        std::thread::sleep(Duration::from_millis(2));
    }
    (job.status().state, job.status().problem)
}

#[test]
fn a_panic_ends_its_job_and_no_other() {
    let running = running(Limits::default());
    let [first, second, third] =
        ["panic", "cat", "fail"].map(|p| asked(&running.queue, p).unwrap());
    let (state, problem) = over(&first);
    assert_eq!(state, State::Failed);
    assert!(problem.unwrap().words.contains("no cats left"));
    assert_eq!(over(&second), (State::Done, None));
    assert_eq!(over(&third), (State::Failed, Some(Problem::asked("no"))));
    assert_eq!(running.ended(), 1);
}

#[test]
fn the_queue_is_bounded_and_what_is_cancelled_frees_its_place() {
    let running = running(Limits { waiting: 2, ..Limits::default() });
    let long = asked(&running.queue, "long").unwrap();
    assert_eq!(running.begun.recv().unwrap(), "long");
    let waiting = asked(&running.queue, "cat").unwrap();
    let last = asked(&running.queue, "dog").unwrap();
    let problem = asked(&running.queue, "more").err().unwrap();
    assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
    let ahead = |job: &Job| running.queue.find(&Client::default(), job.id).unwrap().1;
    assert_eq!([ahead(&long), ahead(&waiting), ahead(&last)], [Some(0), Some(1), Some(2)]);
    // One that waits goes at once.
    running.queue.cancel(&waiting);
    assert_eq!(waiting.status().state, State::Cancelled);
    assert_eq!(ahead(&last), Some(1));
    let another = asked(&running.queue, "more").unwrap();
    // One that runs goes at its next step; what a client waits for goes with the client.
    drop(Attended::new(Arc::clone(&running.queue), Arc::clone(&long)));
    assert_eq!(over(&long).0, State::Cancelled);
    assert_eq!([over(&last).0, over(&another).0], [State::Done; 2]);
    // What is over stays as it is.
    running.queue.cancel(&last);
    assert_eq!(last.status().state, State::Done);
    running.ended();
}

#[test]
fn the_end_is_told_to_all() {
    let running = running(Limits::default());
    let queue = Arc::clone(&running.queue);
    let long = asked(&queue, "long").unwrap();
    running.begun.recv().unwrap();
    let waiting = asked(&queue, "cat").unwrap();
    running.ended();
    for job in [long, waiting] {
        let (state, problem) = over(&job);
        assert_eq!(state, State::Cancelled);
        assert!(problem.unwrap().words.contains("ending"));
    }
    assert!(asked(&queue, "late").err().unwrap().words.contains("ending"));
}

#[test]
fn what_is_over_is_forgotten_in_time() {
    let running = running(Limits { told: 3, ..Limits::default() });
    let jobs: Vec<_> = (0..6).map(|_| asked(&running.queue, "cat").unwrap()).collect();
    jobs.iter().for_each(|job| assert_eq!(over(job).0, State::Done));
    let known: Vec<u64> =
        running.queue.seen(&Client::default()).iter().map(|(job, _)| job.id).collect();
    assert_eq!(known, [4, 5, 6]);
    running.ended();
}
