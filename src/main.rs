//! The daemon: parse, lock, log, directories, identity, run, drain, exit code. Everything else is in the library.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use reagent::agent::{self, Exit};
use reagent::cli::{self, Invocation, VERSION};
use reagent::flock::DeviceFile;
use reagent::journal::{self, Chain, START_UP};
use reagent::service::{self, notify::Notifier};
use reagent::settings::Settings;
use reagent::system::platform;
use reagent::update::{self, Boot, Footing, Setup};
use reagent::{exit, instance};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// Enough for an agent that mostly waits, and one is still free for signals while the other is busy.
const WORKERS: usize = 2;
/// For app logs, beside those.
const LOG_WORKERS: usize = 1;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().collect::<Vec<OsString>>()) {
        Invocation::Answer(answer) => {
            // Whoever closed these does not want the text.
            let _ = std::io::stdout().write_all(answer.stdout.as_bytes());
            let _ = std::io::stderr().write_all(answer.stderr.as_bytes());
            ExitCode::from(answer.code)
        }
        Invocation::Service(order) => match service::obey(&order) {
            Ok(report) => {
                journal::say(&report);
                ExitCode::SUCCESS
            }
            Err(failure) => {
                let _ = writeln!(std::io::stderr(), "error: {}", Chain(&failure));
                ExitCode::from(exit::FAILURE)
            }
        },
        Invocation::Run { settings, warning } => {
            if let Some(warning) = warning {
                journal::complain(&warning);
            }
            ExitCode::from(service::host(move || {
                start(*settings).unwrap_or_else(|error| {
                    tracing::error!(error = format!("{error:#}"), "failed to start agent");
                    journal::complain(&format!("{error:#}"));
                    exit::FAILURE
                })
            }))
        }
    }
}

fn start(settings: Settings) -> anyhow::Result<u8> {
    let setup = Setup::from_environment()?;
    let custody = match update::first(&settings, &setup) {
        Boot::GoOn(custody) => custody,
        Boot::End(code) => return Ok(code),
    };
    let footing = Footing::take(&settings, custody, setup);
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let for_logs = Builder::new_multi_thread()
        .worker_threads(LOG_WORKERS)
        .thread_name("logs")
        .enable_all()
        .build()
        .context("cannot start the runtime for logs")?;
    let stop = exit::on_signals(&runtime).context("cannot watch for signals")?;
    let code = serve(&runtime, for_logs.handle(), settings, footing.clone(), stop);
    footing.excuse_signal();
    // A thread that hangs in the kernel must not keep the process.
    runtime.shutdown_background();
    for_logs.shutdown_background();
    exit::start_over_if_asked();
    code
}

fn serve(
    runtime: &Runtime,
    for_logs: &Handle,
    settings: Settings,
    footing: Footing,
    stop: CancellationToken,
) -> anyhow::Result<u8> {
    let lock = instance::acquire_soon(|| stop.is_cancelled());
    if matches!(lock, Err(instance::LockError::Taken)) {
        footing.excuse("another agent runs on this machine");
    }
    let _lock = lock?;
    journal::start(&settings);
    tracing::info!(
        version = VERSION,
        commit = option_env!("REAGENT_COMMIT").unwrap_or("unknown"),
        target = platform::target(),
        config = %settings.config.display(),
        "reagent starts"
    );
    tracing::info!(
        target: START_UP,
        "Starting... Reagent initialization sequence (OOS: {}, ARCH: {})",
        platform::os(),
        platform::build_arch()
    );
    settings.create_directories()?;
    let device = DeviceFile::load(&settings.config)?;
    let environment = device.current().effective_environment().to_owned();
    if !settings.environment.is_empty() && settings.environment != environment {
        tracing::info!(
            flag = settings.environment,
            environment,
            "-env has no effect, the .flock file decides"
        );
    }
    let notifier = Notifier::from_environment();
    notifier.ready();
    // Owned by the runtime; stops speaking when the runtime hangs, which is what it is for.
    runtime.spawn(async move { notifier.keep_alive().await });
    Ok(
        match runtime.block_on(agent::run(settings, device, footing, stop, for_logs.clone())) {
            Exit::Clean => {
                tracing::info!(code = exit::code(), "reagent ends: it was asked to");
                exit::code()
            }
            Exit::Failure(reason) => {
                tracing::error!(
                    error = reason,
                    code = exit::FAILURE,
                    "reagent ends: it cannot go on"
                );
                journal::complain(&reason);
                exit::FAILURE
            }
        },
    )
}
