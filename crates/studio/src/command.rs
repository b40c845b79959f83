//! What the command line does: an ordinary WAMP client of the running studio, and the printing of its answers.

mod account;
mod app;
mod call;
mod client;
mod development;
mod device;
mod install;
mod logs;
mod progress;
mod push;
mod rollout;
mod serve;

use std::io::Write;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::{AccountCommand, AppCommand, Cli, Command, DeviceCommand, Place};
use crate::exit::{Exit, Failure};
use client::Client;

/// Runs a command line to its end, prints what there is to print, and answers the exit code.
pub async fn run(cli: Cli) -> Exit {
    let json = cli.place.json;
    match dispatch(cli).await {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            complain(json, &failure);
            failure.exit
        }
    }
}

/// The failure on standard error: for programs as one JSON object, for people as a sentence and what to do.
fn complain(json: bool, failure: &Failure) {
    let mut stderr = std::io::stderr().lock();
    // Nobody left to read it: the exit code still tells.
    let _ = if json {
        let object = serde_json::json!({
            "error": failure.text, "hint": failure.hint, "exit_code": failure.exit as u8,
        });
        writeln!(stderr, "{object}")
    } else {
        match &failure.hint {
            Some(hint) => writeln!(stderr, "error: {}\n  {hint}", failure.text),
            None => writeln!(stderr, "error: {}", failure.text),
        }
    };
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let Cli { place, command } = cli;
    let out = Out { json: place.json };
    match command {
        Command::Serve(options) => serve::run(&place, *options).await,
        Command::Device(DeviceCommand::Add { name, out: file }) => device::add(&place, out, name, file).await,
        Command::Device(DeviceCommand::List) => device::list(&place, out).await,
        Command::Device(DeviceCommand::Show { device }) => device::show(&place, out, device).await,
        Command::Device(DeviceCommand::Rm { device }) => device::remove(&place, out, device).await,
        Command::App(AppCommand::Add {
            name,
            version,
            compose,
            ports,
            environment,
        }) => {
            let release = app::Release { version, compose };
            app::add(&place, out, name, release, &ports, &environment).await
        }
        Command::App(AppCommand::List) => app::list(&place, out).await,
        Command::App(AppCommand::Release {
            app,
            version,
            compose,
        }) => app::release(&place, out, app, version, compose).await,
        Command::App(AppCommand::Push { app, image, version }) => {
            push::run(&place, out, app, &image, version).await
        }
        Command::App(AppCommand::Rm { app }) => app::remove(&place, out, app).await,
        Command::Dev(command) => development::run(&place, out, command).await,
        Command::Account(AccountCommand::Add {
            name,
            admin,
            out: file,
        }) => account::add(&place, out, name, admin, &file).await,
        Command::Account(AccountCommand::List) => account::list(&place, out).await,
        Command::Account(AccountCommand::Grant {
            account,
            device,
            privilege,
        }) => account::grant(&place, out, account, device, &privilege).await,
        Command::Account(AccountCommand::Revoke {
            account,
            device,
            privilege,
        }) => account::revoke(&place, out, account, device, &privilege).await,
        Command::Install(options) => install::add(&place, out, options).await,
        Command::Start(target) => install::start(&place, out, target).await,
        Command::Stop(target) => install::stop(&place, out, target).await,
        Command::Remove(options) => install::remove(&place, out, options).await,
        Command::Ps { device } => install::list(&place, out, device).await,
        Command::History { device, app } => install::history(&place, out, device, app).await,
        Command::Logs(options) => logs::run(&place, out, options).await,
        Command::Rollout(command) => rollout::run(&place, out, command).await,
        Command::Call(options) => call::run(&place, out, options).await,
    }
}

/// Connects, does one thing, leaves.
async fn with_client<T>(
    place: &Place,
    action: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let client = Client::connect(place).await?;
    let result = action(&client).await;
    client.leave().await;
    result
}

/// How results are printed.
#[derive(Clone, Copy, Debug)]
struct Out {
    json: bool,
}

impl Out {
    /// Prints a result: `text` for people, the value for programs.
    fn result<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) {
        if self.json {
            let value = serde_json::to_value(value).unwrap_or_default();
            print(&format!("{value:#}\n"));
        } else {
            print(&text());
        }
    }

    /// Prints one step of something that goes on: a line for people, one JSON object per line for programs. `false`
    /// when nobody reads any more.
    fn step<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> bool {
        if self.json {
            print(&format!("{}\n", serde_json::to_value(value).unwrap_or_default()))
        } else {
            print(&text())
        }
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no failure, but `false`.
fn print(text: &str) -> bool {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.is_ok()
}

/// `NAME=VALUE` words as a map.
fn pairs(words: &[String]) -> Result<Map<String, Value>, Failure> {
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), Value::from(value))),
            None => Err(Failure::new(Exit::Usage, format!("{word:?} is not NAME=VALUE"))),
        })
        .collect()
}

/// A cell for something that may be unknown.
fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_split_at_the_first_equals_sign() {
        let words = ["A=1".to_owned(), "B=x=y".to_owned(), "C=".to_owned()];
        assert_eq!(
            Value::Object(pairs(&words).unwrap()),
            serde_json::json!({"A": "1", "B": "x=y", "C": ""})
        );
        assert_eq!(pairs(&["A".to_owned()]).unwrap_err().exit, Exit::Usage);
    }
}
