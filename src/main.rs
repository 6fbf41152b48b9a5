//! The program `mos`: a command line around the library `mixofshow`.
mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
