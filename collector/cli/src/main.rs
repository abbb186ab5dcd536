//! ⇄ The program: arguments in, exit code out. What went wrong is one line on stderr.

use std::process::ExitCode;

use clap::Parser as _;
use tocsin_cli::arguments::Arguments;
use tocsin_cli::command;

fn main() -> ExitCode {
    // Credentials are in memory: no core dump. Where the kernel does not have it, the command runs all the same.
    nix::sys::prctl::set_dumpable(false).ok();
    let arguments = Arguments::parse();
    match command::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.line());
            ExitCode::from(failure.exit_code())
        }
    }
}
