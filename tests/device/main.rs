//! What a device must do whatever the model: random graphs, steady memory, and errors where there
//! is none.

mod adapters;
#[path = "../common/engine.rs"]
#[allow(dead_code, reason = "shared with tests that need all of it")]
mod engine;
mod folding;
mod full_size;
#[path = "../common/hashed.rs"]
mod hashed;
mod inputs;
mod large;
mod memory;
mod random;
mod recording;
mod streaming;

/// Whether this process runs the test `name` alone. If not, starts one that does, with
/// `environment`, and fails unless the test passes there.
fn alone(name: &str, environment: &[(&str, &str)]) -> bool {
    const CHILD: &str = "MOS_TEST_ALONE";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = [child.stdout, child.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    false
}
