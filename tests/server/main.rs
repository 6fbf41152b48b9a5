//! `mos serve` from outside: over real connections, with the model that ships.
#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/chosen.rs"]
mod chosen;
mod client;
mod command;
mod learning;
mod load;
mod openai;
mod own;
mod safety;
mod webui;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mixofshow::backend::cpu::Cpu;
use mixofshow::backend::{Device, PROCESSOR, wgpu};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::concept::{Concept, Lora, Network, Update, UpdateSet, Word};
use mixofshow::graph::Array;
use mixofshow::picture::Picture;
use mixofshow::server::{Error, Options, Server};
use serde_json::Value;

use client::{Answer, Asking};

fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| chosen::device(wgpu::Options::default())).clone()
}

/// A server that ends with the test.
struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

/// Starts a server of these options on a port of its own.
fn serve(change: impl FnOnce(&mut Options)) -> Running {
    let mut options = Options { address: "127.0.0.1:0".parse().unwrap(), ..Options::default() };
    change(&mut options);
    let server = Server::bind(device(), options).unwrap();
    let (address, stop) = (server.address(), Arc::new(AtomicBool::new(false)));
    let asked = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        server.run(&mut || match asked.load(Ordering::Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    });
    Running { address, stop, thread: Some(thread) }
}

impl Running {
    fn ask(&self, method: &str, path: &str) -> Asking {
        Asking::new(self.address, method, path)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).answer()
    }

    fn post(&self, path: &str, value: &Value) -> Answer {
        self.ask("POST", path).json(value).answer()
    }

    /// A job of its own face, once it is over.
    #[track_caller]
    fn made(&self, value: &Value) -> Value {
        let added = self.post("/api/jobs", value).ok(202);
        self.over(added["id"].as_str().unwrap())
    }

    #[track_caller]
    fn over(&self, id: &str) -> Value {
        let start = Instant::now();
        loop {
            let job = self.get(&format!("/api/jobs/{id}")).ok(200);
            if !["waiting", "running"].contains(&job["state"].as_str().unwrap()) {
                return job;
            }
            assert!(start.elapsed() < Duration::from_secs(300), "{job}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until something is so.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(120), "it never came to be: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Jobs that wait and that run.
    fn busy(&self) -> usize {
        let jobs = self.get("/api/jobs").ok(200);
        let jobs = jobs["jobs"].as_array().unwrap();
        jobs.iter()
            .filter(|job| ["waiting", "running"].contains(&job["state"].as_str().unwrap()))
            .count()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The cheapest picture, at the own face.
fn small() -> Value {
    serde_json::json!({ "prompt": "a red cat", "width": 64, "height": 64, "steps": 2, "seed": 5 })
}

/// A picture that takes until it is cancelled.
fn endless() -> Value {
    serde_json::json!({ "prompt": "a red cat", "width": 256, "height": 256, "steps": 150 })
}

/// `mos generate` on the device of the tests.
fn generate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mos"));
    command.env_remove("MOS_MODELS").arg("generate");
    let device = device();
    let processor = device.backend::<Cpu>().is_some();
    command.args(["--adapter", if processor { PROCESSOR } else { device.name() }]);
    command
}

/// What `mos generate` makes again of a picture's file, beside it.
fn made_again(file: &Path) -> Vec<u8> {
    let again = file.with_file_name("again.png");
    let output = generate().arg("--like").arg(file).arg("-o").arg(&again).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = std::fs::read(&again).unwrap();
    std::fs::remove_file(again).unwrap();
    bytes
}

/// What `mos generate` writes with these arguments: the first picture.
fn generated(folder: &Path, line: &str) -> Vec<u8> {
    let file = folder.join("generated.png");
    let mut command = generate();
    command.args(["-p", "a red cat"]);
    command.args(line.split_whitespace().map(|word| word.replace('@', folder.to_str().unwrap())));
    let output = command.arg("-o").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let first = folder.join("generated-1.png");
    std::fs::read(if line.contains("--batch") { first } else { file }).unwrap()
}

fn from_base64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_else(|| panic!("no text: {value}"))).unwrap()
}

fn pixels(png: &[u8]) -> Picture {
    Picture::from_bytes("a.png", png.to_vec()).unwrap()
}

/// A picture's file in base64.
fn png(width: u32, height: u32, colour: impl Fn(u32, u32) -> [u8; 3]) -> String {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let rgb = places.flat_map(|(x, y)| colour(x, y)).collect();
    let mut bytes = Vec::new();
    Picture::new(width, height, rgb).unwrap().write_to(&mut bytes, None).unwrap();
    STANDARD.encode(bytes)
}

/// A folder with a concept `kat` whose words are `<kat1>`, and a LoRA `ink`.
fn concepts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = Checkpoint::shipped().unwrap();
    let layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v";
    let shape = model.unet.shape(&format!("{layer}.weight")).unwrap();
    let values = |n: usize| (0..n).map(|i| 0.7 * ((i * 37 % 19) as f32 / 9.0 - 1.0)).collect();
    let update = Update::Lora(Lora {
        down: Array::f32([2, shape[1]], values(2 * shape[1])),
        up: Array::f32([shape[0], 2], values(2 * shape[0])),
    });
    let updates = UpdateSet::new([(layer.to_string(), update)]);
    let width =
        model.text_encoder.shape("text_model.embeddings.token_embedding.weight").unwrap()[1];
    let ink = Concept {
        name: "ink".into(),
        updates: [(Network::UNet, updates.clone())].into(),
        ..Concept::default()
    };
    let kat = Concept {
        name: "kat".into(),
        words: vec![Word::new("<kat1>", Array::f32([16, width], values(16 * width)))],
        ..ink.clone()
    };
    ink.write(&folder.path().join("ink.safetensors")).unwrap();
    kat.write(&folder.path().join("kat.safetensors")).unwrap();
    folder
}

fn paths(folder: &tempfile::TempDir) -> Vec<PathBuf> {
    vec![folder.path().to_path_buf()]
}
