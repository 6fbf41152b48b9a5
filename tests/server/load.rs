//! Many clients at once: slow, broken, vanishing, and among them some who want pictures.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::client::Asking;
use super::{endless, from_base64, pixels, serve};

const CLIENTS: usize = 200;

/// A picture that takes until somebody ends it.
fn long(address: SocketAddr) -> Asking {
    Asking::new(address, "POST", "/sdapi/v1/txt2img").json(&endless())
}

/// What the process holds of memory, in KiB; none where the system does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn nothing_is_lost_among_many_clients() {
    let server = serve(|options| {
        options.limits.waiting = 400;
        options.limits.connections = 64;
        options.limits.head = Duration::from_secs(2);
        options.limits.sending = Duration::from_secs(2);
    });
    let address = server.address;
    let asked = json!({ "prompt": "a red cat", "width": 64, "height": 64, "steps": 1, "seed": 5 });
    let expected = server.post("/sdapi/v1/txt2img", &asked).ok(200);
    let expected = pixels(&from_base64(&expected["images"][0]));
    let made = AtomicUsize::new(0);
    let round = || {
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (asked, expected, made) = (&asked, &expected, &made);
                scope.spawn(move || match client % 8 {
                    // Wants a picture, and gets it.
                    0 => {
                        let answer =
                            Asking::new(address, "POST", "/sdapi/v1/txt2img").json(asked).answer();
                        let answer = answer.ok(200);
                        assert_eq!(pixels(&from_base64(&answer["images"][0])), *expected);
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                    // Goes away at once, or after a while.
                    1 => drop(long(address).send()),
                    2 => {
                        let stream = long(address).send();
                        std::thread::sleep(Duration::from_millis(300));
                        drop(stream);
                    }
                    // Says nothing, or half of it.
                    3 => {
                        let stream = TcpStream::connect(address).unwrap();
                        std::thread::sleep(Duration::from_millis(500));
                        drop(stream);
                    }
                    4 => {
                        let mut stream = TcpStream::connect(address).unwrap();
                        let half = "POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Le";
                        let _ = stream.write_all(half.as_bytes());
                        std::thread::sleep(Duration::from_millis(500));
                    }
                    5 => {
                        let mut stream = TcpStream::connect(address).unwrap();
                        let head = "POST /api/jobs HTTP/1.1\r\nHost: localhost\r\n\
                            Content-Length: 5000\r\n\r\n{";
                        let _ = stream.write_all(head.as_bytes());
                        std::thread::sleep(Duration::from_millis(500));
                    }
                    // Talks nonsense.
                    6 => {
                        let mut stream = TcpStream::connect(address).unwrap();
                        let _ = stream.write_all(&[client as u8; 3000]);
                    }
                    // Looks on.
                    _ => assert_eq!(Asking::new(address, "GET", "/api/jobs").answer().status, 200),
                });
            }
        });
        server.until("all is over", || server.busy() == 0);
    };
    round();
    let first = resident();
    round();
    round();
    assert_eq!(made.load(Ordering::Relaxed), 3 * CLIENTS / 8);
    if let (Some(first), Some(last)) = (first, resident()) {
        assert!(last < first + (64 << 10), "from {first} to {last} KiB");
    }
}
