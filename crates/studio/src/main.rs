//! `studio`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use studio::cli::Cli;
use studio::command;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    ExitCode::from(runtime.block_on(command::run(cli)) as u8)
}
