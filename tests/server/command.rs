//! The command `mos serve`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::client::Asking;

fn mos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mos"));
    command.env_remove("MOS_MODELS").env_remove("MOS_TOKEN").stdin(Stdio::null());
    command.args(["serve", "--adapter", "cpu"]);
    command
}

#[test]
fn wrong_usage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let gone = gone.to_str().unwrap();
    let clients = folder.path().join("clients");
    std::fs::write(&clients, "# Who they are\nanna 0123456789abcdef\n").unwrap();
    let clients = clients.to_str().unwrap();
    for (arguments, says) in [
        (&["--host", "0.0.0.0"][..], "--token"),
        (&["--host", "0.0.0.0", "--token", "short"], "16"),
        (&["--clients", clients], "line 2"),
        (&["--host", "example.org"], "--host"),
        (&["--models", gone], "gone"),
        (&["--concepts", gone], "gone"),
        (&["--origin", "*"], "origin"),
        (&["--most-steps", "0"], "1"),
    ] {
        let output = mos().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    let output = mos().args(["--clients", gone]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a file that cannot be read");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = mos().args(["--port", &port]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&port), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn it_tells_its_address_and_ends_in_good_order() {
    // Where the terminal's end is ignored, as under nohup, Ctrl-C is not listened for.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(mask.trim(), 16).unwrap() & 1 != 0 {
        return;
    }
    let mut child = mos()
        .args(["--port", "0"])
        .env("MOS_TOKEN", "0123456789abcdef")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(Asking::new(address, "GET", "/api/server").answer().status, 401);
    let with = |method, path| {
        Asking::new(address, method, path).header("Authorization", "Bearer 0123456789abcdef")
    };
    // With a job under way.
    let job = with("POST", "/api/jobs").json(&super::endless()).answer();
    assert_eq!(job.status, 202);
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("ended") && !said.contains("0123456789abcdef"), "{said}");
}
