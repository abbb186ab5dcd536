//! ⇄ The program: arguments in, exit code out. What went wrong is one line on stderr.

use std::process::ExitCode;

use clap::Parser as _;
use tocsin_cli::arguments::Arguments;
use tocsin_cli::command;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match command::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.line());
            ExitCode::from(failure.exit_code())
        }
    }
}
