//! The program `mos`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
