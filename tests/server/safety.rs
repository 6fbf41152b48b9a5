//! What others must not be able to do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Asking, read};
use super::{Running, endless, png, serve, small};

const TOKEN: &str = "a-token-of-this-test";

#[test]
fn pages_of_others_are_refused_whatever_they_ask() {
    let server = serve(|_| {});
    let own = format!("http://{}", server.address);
    let ask = |host: &str, origin: &str| {
        let asked = server.ask("POST", "/api/jobs").header("Host", host).json(&small());
        if origin.is_empty() { asked } else { asked.header("Origin", origin) }.answer().status
    };
    let address = server.address.to_string();
    let localhost = format!("localhost:{}", server.address.port());
    assert_eq!([ask(&address, ""), ask(&address, &own), ask(&localhost, "")], [202; 3]);
    assert_eq!(ask("evil.example", ""), 403);
    assert_eq!(ask(&address, "http://evil.example"), 403);
    assert_eq!(ask(&address, "null"), 403);
    // Rebinding: the name of somebody else's page leads here, and its origin is that name.
    assert_eq!(ask("evil.example:80", "http://evil.example:80"), 403);
    for (path, field) in
        [("/api/jobs", "error"), ("/sdapi/v1/options", "detail"), ("/v1/models", "error")]
    {
        let told = server.ask("GET", path).header("Host", "evil.example").answer();
        assert!(!told.ok(403)[field].is_null(), "each face tells it in its form");
        assert_eq!(told.header("access-control-allow-origin"), None);
    }
}

#[test]
fn pages_that_are_named_may_ask() {
    let server = serve(|options| {
        options.origins = vec!["http://a.example".into()];
        options.token = Some(TOKEN.into());
    });
    let before = server
        .ask("OPTIONS", "/api/jobs")
        .header("Origin", "http://a.example")
        .header("Access-Control-Request-Method", "POST")
        .answer();
    assert_eq!(before.status, 204);
    assert_eq!(before.header("access-control-allow-origin"), Some("http://a.example"));
    assert!(before.header("access-control-allow-headers").unwrap().contains("authorization"));
    let asked = server.ask("GET", "/api/jobs").header("Origin", "http://a.example");
    assert_eq!(asked.answer().status, 401);
    let asked = server.ask("GET", "/api/jobs").header("Origin", "http://a.example");
    let answer = asked.header("Authorization", &format!("Bearer {TOKEN}")).answer();
    assert_eq!((answer.status, answer.header("vary")), (200, Some("origin")));
}

#[test]
fn nothing_is_told_without_the_token() {
    let server = serve(|options| options.token = Some(TOKEN.into()));
    for path in ["/", "/page/main.js", "/api/server", "/sdapi/v1/options", "/v1/models", "/none"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "));
        assert!(!answer.text().contains("tiny"), "{path}");
        let with =
            |given: &str| server.ask("GET", path).header("Authorization", given).answer().status;
        assert_eq!(with("Bearer a-token-of-this-tesT"), 401);
        assert_ne!(with(&format!("Bearer {TOKEN}")), 401, "{path}");
    }
}

#[test]
fn no_path_of_a_request_leads_to_a_file_outside() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret.png"), "secret").unwrap();
    let out = folder.path().join("pictures");
    let server = serve(|options| options.out = Some(out));
    for path in [
        "/api/gallery/../secret.png",
        "/api/gallery/..%2fsecret.png",
        "/api/gallery/%2e%2e/secret.png",
        "/api/gallery/%2e%2e%2fsecret.png",
        "/api/gallery//etc/passwd",
        "/api/gallery/..%5csecret.png",
        "/page/../Cargo.toml",
        "/page/%2e%2e/Cargo.toml",
        "/../../etc/passwd",
        "//etc/passwd",
        "/v1/models/../../etc/passwd",
        "/v1/models/%2fetc%2fpasswd",
        "/api/gallery/secret.png%00.png",
    ] {
        let answer = server.get(path);
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
        assert!(!answer.text().contains("root:") && !answer.text().contains("[package]"), "{path}");
    }
    let passwd = "/etc/passwd";
    for (path, value) in [
        ("/api/jobs", json!({ "model": passwd })),
        ("/api/jobs", json!({ "concepts": [passwd] })),
        ("/api/jobs", json!({ "image": passwd })),
        ("/api/jobs", json!({ "regions": [{ "prompt": "", "mask": passwd }] })),
        ("/sdapi/v1/txt2img", json!({ "prompt": format!("<lora:{passwd}:1>") })),
        ("/sdapi/v1/img2img", json!({ "init_images": [passwd] })),
        ("/sdapi/v1/png-info", json!({ "image": passwd })),
        ("/sdapi/v1/options", json!({ "sd_model_checkpoint": "../../etc/passwd" })),
        ("/v1/images/generations", json!({ "prompt": "", "model": passwd })),
    ] {
        let answer = server.post(path, &value);
        assert!([400, 404, 422].contains(&answer.status), "{path} {value}: {}", answer.text());
    }
}

#[test]
fn bodies_are_bounded() {
    let server = serve(|options| options.limits.body = 10_000);
    let long = json!({ "prompt": "x".repeat(20_000) });
    for path in ["/api/jobs", "/sdapi/v1/txt2img", "/v1/images/generations", "/v1/images/edits"] {
        let answer = server.post(path, &long);
        assert_eq!(answer.status, 413, "{path}: {}", answer.text());
        assert!(answer.text().contains("10000 bytes"), "{path}");
    }
    // Of a length that is not told beforehand.
    let mut stream = TcpStream::connect(server.address).unwrap();
    let head = format!(
        "POST /api/jobs HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
            Transfer-Encoding: chunked\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..4 {
        let _ = stream.write_all(format!("1388\r\n{}\r\n", "x".repeat(5000)).as_bytes());
    }
    assert_eq!(read(stream).status, 413);
    // A small file that claims to be large.
    let server = serve(|options| options.limits.sent_pixels = 1000);
    let told = server.post("/api/jobs", &json!({ "image": png(64, 64, |_, _| [0; 3]) })).ok(422);
    assert!(told["error"]["message"].as_str().unwrap().contains("1000"), "{told}");
}

/// The connection's end, within a time.
fn ends_within(mut stream: TcpStream, most: Duration) -> Vec<u8> {
    let start = Instant::now();
    stream.set_read_timeout(Some(most)).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(start.elapsed() < most, "it is still open");
    bytes
}

#[test]
fn slow_clients_are_not_waited_for() {
    let server = serve(|options| {
        options.limits.head = Duration::from_millis(300);
        options.limits.sending = Duration::from_millis(300);
        options.limits.taking = Duration::from_millis(300);
    });
    let most = Duration::from_secs(20);
    // Nothing; half a head; a head whose body does not come.
    let connect = || TcpStream::connect(server.address).unwrap();
    ends_within(connect(), most);
    let mut half = connect();
    half.write_all(b"GET /api/jobs HTTP/1.1\r\nHost: loc").unwrap();
    ends_within(half, most);
    let mut bodiless = connect();
    let head = format!(
        "POST /api/jobs HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\n{{",
        server.address
    );
    bodiless.write_all(head.as_bytes()).unwrap();
    let answer = String::from_utf8(ends_within(bodiless, most)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("did not come"), "{answer}");
    // One that asks for much, and takes nothing of it.
    let mut deaf = connect();
    let asked = format!("GET /api/openapi.json HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
    deaf.write_all(asked.repeat(1000).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let whole = server.get("/api/openapi.json").body.len() * 1000;
    assert!(ends_within(deaf, most).len() < whole);
    // Others are served meanwhile.
    assert_eq!(server.get("/api/jobs").status, 200);
}

#[test]
fn heads_are_bounded() {
    let server = serve(|_| {});
    let long = server.ask("GET", "/api/jobs").header("X-Long", &"x".repeat(200_000));
    let mut bytes = Vec::new();
    let _ = long.send().read_to_end(&mut bytes);
    let answer = String::from_utf8_lossy(&bytes);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let mut many = server.ask("GET", "/api/jobs");
    for i in 0..500 {
        many = many.header(&format!("X-{i}"), "x");
    }
    assert_eq!(many.answer().status, 431);
    for junk in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9\r\n\r\n",
        "\x16\x03\x01\x02",
        "GET /%zz HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(junk.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(server.get("/api/jobs").status, 200);
}

/// Whatever a body is, the server answers in words and goes on.
#[test]
fn broken_bodies_are_answered() {
    let server = serve(|_| {});
    let whole = small().to_string();
    let mut bodies: Vec<Vec<u8>> =
        (0..whole.len()).step_by(5).map(|end| whole.as_bytes()[..end].to_vec()).collect();
    let mut random = 1u64;
    for _ in 0..60 {
        let mut body = whole.clone().into_bytes();
        for _ in 0..3 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (random >> 33) as usize % body.len();
            body[at] = (random >> 24) as u8;
        }
        bodies.push(body);
    }
    bodies.push(vec![b'['; 100_000]);
    bodies.push(b"{\"a\":".repeat(50_000));
    bodies.push(vec![0xff; 100]);
    for value in [
        json!(null),
        json!([]),
        json!("x"),
        json!(1),
        json!({}),
        json!({ "width": -1 }),
        json!({ "width": 1e300 }),
        json!({ "height": u64::MAX, "width": u64::MAX }),
        json!({ "regions": {} }),
        json!({ "regions": [1] }),
        json!({ "regions": [{}] }),
        json!({ "concepts": [[]] }),
        json!({ "controls": [{}] }),
        json!({ "guidance": "NaN" }),
        json!({ "guidance": 1e39 }),
        json!({ "eta": 7 }),
        json!({ "strength": -2, "image": png(8, 8, |_, _| [0; 3]) }),
        json!({ "tile": 0 }),
        json!({ "steps": 0 }),
        json!({ "prompt": "(((((((((((((((((((((((((a:1e38):1e38)" }),
        json!({ "prompt": "[a:b:c:d:0.5|e]" }),
    ] {
        bodies.push(value.to_string().into());
    }
    for path in [
        "/api/jobs",
        "/sdapi/v1/txt2img",
        "/v1/images/generations",
        "/sdapi/v1/options",
        "/sdapi/v1/png-info",
    ] {
        for body in &bodies {
            // What is a job by chance is none that takes long.
            let busy = server.get("/api/jobs").ok(200)["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|job| job["state"] == "waiting")
                .count();
            if busy > 20 {
                server.until("the queue is short", || server.busy() < 5);
            }
            let answer = server.ask("POST", path).body(body.clone()).answer();
            let told = answer.value();
            assert_ne!(answer.status, 500, "{path} {}: {told}", String::from_utf8_lossy(body));
        }
    }
    server.until("all is done", || server.busy() == 0);
    let all = server.get("/api/jobs").ok(200);
    for job in all["jobs"].as_array().unwrap() {
        let said = job["error"]["message"].as_str().unwrap_or_default();
        assert!(!said.contains("fault in this program"), "{job}");
    }
    assert_eq!(server.made(&small())["state"], "done");
}

/// A client that waits for its picture and goes away.
fn goes_away(server: &Running, path: &str, value: &Value) {
    let stream = Asking::new(server.address, "POST", path).json(value).send();
    server.until("it runs", || server.busy() == 1);
    drop(stream);
    server.until("its job is gone", || server.busy() == 0);
}

#[test]
fn clients_that_go_away_free_their_jobs() {
    let server = serve(|_| {});
    goes_away(&server, "/sdapi/v1/txt2img", &endless());
    let asked = json!({ "prompt": "a red cat", "size": "256x256", "steps": 150 });
    goes_away(&server, "/v1/images/generations", &asked);
    // A job of its own face stays.
    let mut job = small();
    job["steps"] = 10.into();
    let added = server.post("/api/jobs", &job).ok(202);
    assert_eq!(server.over(added["id"].as_str().unwrap())["state"], "done");
}

#[test]
fn the_end_is_told_to_those_who_wait() {
    let mut server = serve(|_| {});
    let asked = Asking::new(server.address, "POST", "/sdapi/v1/txt2img").json(&endless());
    let client = std::thread::spawn(move || asked.answer());
    let events = server.ask("GET", "/api/events").send();
    server.until("it runs", || server.busy() == 1);
    let start = Instant::now();
    server.end();
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(client.join().unwrap().ok(503)["detail"].as_str().unwrap().contains("ending"));
    drop(events);
    assert!(TcpStream::connect(server.address).is_err());
}
