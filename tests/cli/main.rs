//! The program from outside: what it prints, what it writes, and how it ends.
mod bombs;
mod casts;
mod concepts;
mod errors;
mod escapes;
mod evaluating;
mod foreign;
mod formats;
mod fusing;
mod generating;
mod help;
mod interrupts;
mod kernels;
mod kinds;
mod larger;
mod looking;
mod outputs;
mod placing;
mod training;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How a run of the program ended.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// It failed with this exit code and one line that says all of this.
    #[track_caller]
    fn failed(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        let lines: Vec<&str> =
            self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{}", self.stderr);
        for part in says {
            assert!(self.stderr.contains(part), "`{part}` in: {}", self.stderr);
        }
        assert!(
            !self.stderr.contains("panicked") && !self.stderr.contains(".mos-"),
            "{}",
            self.stderr
        );
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).expect(&self.stdout)
    }
}

fn mos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mos"));
    command.stdin(Stdio::null()).env_remove("MOS_MODELS");
    command
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs `mos` with the words of a line as arguments; `@` stands for the folder.
fn run(folder: &Path, line: &str) -> Ran {
    let folder = folder.to_str().expect("UTF-8");
    ran(mos().args(line.split_whitespace().map(|word| word.replace('@', folder))))
}

/// The cheapest picture: its options.
const SMALL: &str = "--size 64x64 --steps 2";

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
