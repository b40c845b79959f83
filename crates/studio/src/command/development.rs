//! `studio dev`: what a developer's directory becomes on a device, with everything that is said meanwhile.

mod upload;

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::AppState;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wamp::Dict;
use wamp::client::{EVENT_QUEUE, Event, Subscription};

use super::app::document;
use super::client::{Client, nothing, unless_away};
use super::logs;
use super::{Out, with_client};
use crate::api::{
    AddRelease, AppView, Developed, DevelopmentEvent, LookAtDevelopment, RequestDevelopment, uri,
};
use crate::cli::{DevCommand, Development, Place};
use crate::exit::{Exit, Failure};

/// Events may get lost, above all beside a flood of output; looking this often repairs it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What ends a line: programs show how far they are by writing over it.
const ENDS: [char; 2] = ['\n', '\r'];
/// Bytes after which a line that has no end is shown all the same.
const LONGEST: usize = 64 << 10;

pub(super) async fn run(place: &Place, out: Out, command: DevCommand) -> Result<(), Failure> {
    with_client(place, async |client: &Client| match &command {
        DevCommand::Build { on, directory, run } => {
            let dev = Dev::new(client, out, on).await?;
            dev.upload(directory, "dev").await?;
            dev.reach(AppState::Built, None).await?;
            match run {
                true => dev.reach(AppState::Running, None).await,
                false => Ok(()),
            }
        }
        DevCommand::Run { on } => {
            Dev::new(client, out, on)
                .await?
                .reach(AppState::Running, None)
                .await
        }
        DevCommand::Stop { on } => {
            Dev::new(client, out, on)
                .await?
                .reach(AppState::Present, None)
                .await
        }
        DevCommand::Remove { on } => {
            Dev::new(client, out, on)
                .await?
                .reach(AppState::Uninstalled, None)
                .await
        }
        DevCommand::Publish {
            on,
            directory,
            version,
        } => {
            let dev = Dev::new(client, out, on).await?;
            dev.upload(directory, "pub").await?;
            dev.reach(AppState::Published, Some(version.clone())).await?;
            dev.release(version.clone()).await
        }
    })
    .await
}

/// One app in development on one device.
struct Dev<'a> {
    client: &'a Client,
    out: Out,
    on: &'a Development,
    app: AppView,
    docker_compose: Option<Map<String, Value>>,
    deadline: Instant,
}

impl<'a> Dev<'a> {
    async fn new(client: &'a Client, out: Out, on: &'a Development) -> Result<Dev<'a>, Failure> {
        let apps: Vec<AppView> = client.ask(uri::APP_LIST, &nothing()).await?;
        let named =
            |app: &AppView| app.name.eq_ignore_ascii_case(&on.app) || app.app_key.to_string() == on.app;
        let app = apps.into_iter().find(named).ok_or_else(|| {
            Failure::new(Exit::NotFound, format!("no app {:?}", on.app))
                .hint(format!("add it with 'studio app add {}'", on.app))
        })?;
        let docker_compose = on.compose.as_deref().map(document).transpose()?;
        let deadline = Instant::now() + Duration::from_secs(on.timeout);
        Ok(Dev {
            client,
            out,
            on,
            app,
            docker_compose,
            deadline,
        })
    }

    /// Sends the directory. `channel` is that of the log in which the device speaks of it: `dev` or `pub`.
    async fn upload(&self, directory: &Path, channel: &str) -> Result<(), Failure> {
        let directory: PathBuf = directory.to_owned();
        let packed = tokio::task::spawn_blocking(move || upload::pack(&directory))
            .await
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))??;
        let container = format!("{channel}_{}_{}", self.app.app_key, self.app.name).to_lowercase();
        let target = upload::Target {
            device: &self.on.device,
            file_name: format!("{}.tgz", self.app.name),
            container,
        };
        let mut shown = 0;
        upload::send(self.client, &target, packed, |percent| {
            if percent >= shown + 10 || percent == 100 {
                shown = percent;
                self.out.step(&json!({"uploaded": percent}), || {
                    format!("  uploaded {percent} %\n")
                });
            }
        })
        .await
    }

    async fn ask(
        &self,
        target: AppState,
        version: Option<String>,
        cancel: bool,
    ) -> Result<Developed, Failure> {
        let request = RequestDevelopment {
            device: self.on.device.clone(),
            app: self.on.app.clone(),
            target,
            version,
            docker_compose: self.docker_compose.clone(),
            cancel,
        };
        self.client.ask(uri::DEVELOPMENT_REQUEST, &request).await
    }

    /// Asks for a state and shows what the device says until it is there.
    async fn reach(&self, target: AppState, version: Option<String>) -> Result<(), Failure> {
        // Subscribed before asking, so that no state is missed in between.
        let session = &self.client.session;
        let mut events = session.subscribe(uri::DEVELOPMENT_EVENTS, Dict::new()).await?;
        let developed = self.ask(target, version, false).await?;
        let mut said = Vec::new();
        for channel in [&developed.container, &developed.publication] {
            let topic = protocol::uri::logs(&developed.serial_number, channel);
            // Watching is a convenience: an account that may not read the log waits without.
            said.extend(session.subscribe(&topic, Dict::new()).await.ok());
        }
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut talk = Talk::default();
        let mut known = developed.reports;
        let mut look_again = Instant::now() + LOOK_AGAIN;
        loop {
            // Whichever is ready: an app that never stops printing must not hide its state.
            let look = tokio::select! {
                Some(event) = next_of(&mut said) => {
                    self.show(talk.heard(&event));
                    false
                }
                event = events.events.recv() => match event {
                    Some(event) => event.is_notice() || concerns(&event, &developed),
                    None => {
                        return Err(Failure::new(Exit::Unreachable, "lost the connection to the studio")
                            .hint("the device goes on with what it was asked for"));
                    }
                },
                () = tokio::time::sleep_until(look_again) => true,
                _ = &mut interrupted => return self.give_up(target).await,
                () = tokio::time::sleep_until(self.deadline) => {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("{} on {} is not {target} yet", developed.app, developed.device),
                    )
                    .hint("the device goes on with what it was asked for"));
                }
            };
            if !look {
                continue;
            }
            look_again = Instant::now() + LOOK_AGAIN;
            let reports = unless_away(self.reported(known).await)?;
            for report in reports.into_iter().flatten() {
                known = report.number;
                // What led to a state is shown before it.
                for subscription in &mut said {
                    let waiting = std::iter::from_fn(|| subscription.events.try_recv().ok());
                    waiting
                        .take(EVENT_QUEUE)
                        .for_each(|event| self.show(talk.heard(&event)));
                }
                self.show(talk.rest().into_iter().map(as_line).collect());
                self.out.step(&json!({ "state": report.state }), || {
                    format!("  {}\n", report.state)
                });
                if report.state == target {
                    return Ok(());
                }
                if report.state == AppState::Failed {
                    return Err(Failure::new(
                        Exit::Failed,
                        format!("{} on {} FAILED", developed.app, developed.device),
                    ));
                }
            }
        }
    }

    fn show(&self, steps: Vec<(Value, String)>) {
        for (value, text) in steps {
            self.out.step(&value, || text);
        }
    }

    /// What the device has reported after that.
    async fn reported(&self, after: u64) -> Result<Vec<DevelopmentEvent>, Failure> {
        let request = LookAtDevelopment {
            device: self.on.device.clone(),
            app: self.on.app.clone(),
            after,
        };
        self.client.ask(uri::DEVELOPMENT_LOOK, &request).await
    }

    /// Ctrl-C ends a build or a publication on the device, too; anything else goes on.
    async fn give_up(&self, target: AppState) -> Result<(), Failure> {
        let failure = Failure::new(Exit::Interrupted, "interrupted");
        if !target.is_once() {
            return Err(failure.hint("the device goes on with what it was asked for"));
        }
        self.ask(AppState::Present, None, true).await?;
        Err(failure.hint("the device ends it, too"))
    }

    /// The published version becomes one that can be installed.
    async fn release(&self, version: String) -> Result<(), Failure> {
        let request = AddRelease {
            app: self.on.app.clone(),
            version,
            docker_compose: self.docker_compose.clone(),
            exists_ok: true,
        };
        let app: AppView = self.client.ask(uri::RELEASE_ADD, &request).await?;
        self.out.result(&app, || {
            format!("app {} has version {} now\n", app.name, request.version)
        });
        Ok(())
    }
}

/// Whether the event tells of what was asked for.
fn concerns(event: &Event, developed: &Developed) -> bool {
    matches!(
        event.payload.first::<DevelopmentEvent>(),
        Ok(Some(event)) if (event.device_key, event.app_key) == (developed.device_key, developed.app_key)
    )
}

/// The next event of any subscription; `None` when there is none any more.
async fn next_of(subscriptions: &mut [Subscription]) -> Option<Event> {
    match subscriptions {
        [] => None,
        [one] => one.events.recv().await,
        [one, other, ..] => tokio::select! {
            Some(event) = one.events.recv() => Some(event),
            Some(event) = other.events.recv() => Some(event),
            else => None,
        },
    }
}

/// What is said of an app in development, put together to whole lines: the daemon sends a build's output as it comes,
/// broken off anywhere.
#[derive(Default)]
struct Talk {
    /// A line without its end.
    begun: String,
}

impl Talk {
    /// What a log message is shown as, in order: the value for programs, the text for people.
    fn heard(&mut self, event: &Event) -> Vec<(Value, String)> {
        let lost = logs::lines::missed(event);
        let broken = lost.is_some().then(|| self.rest()).flatten();
        let mut steps: Vec<_> = broken.map(as_line).into_iter().collect();
        steps.extend(lost.map(|note| (json!({ "note": note }), format!("({note})\n"))));
        for line in logs::lines::lines(event) {
            steps.extend(self.readable(&line).into_iter().map(as_line));
        }
        steps
    }

    /// The line without its end.
    fn rest(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.begun)).filter(|line| !line.trim().is_empty())
    }

    /// A line as a developer wants to read it: Docker's records say it in a member.
    fn readable(&mut self, line: &str) -> Vec<String> {
        let Ok(Value::Object(record)) = serde_json::from_str::<Value>(line) else {
            return self.rest().into_iter().chain([line.to_owned()]).collect();
        };
        let member = |name: &str| record.get(name).and_then(Value::as_str);
        if let Some(text) = member("stream") {
            self.begun.push_str(text);
            let end = match self.begun.rfind(ENDS) {
                Some(end) => end + 1,
                None if self.begun.len() > LONGEST => self.begun.len(),
                None => 0,
            };
            let whole: String = self.begun.drain(..end).collect();
            let lines = whole.split(ENDS).filter(|line| !line.trim().is_empty());
            return lines.map(str::to_owned).collect();
        }
        let own = match (
            member("error"),
            member("status"),
            record.contains_key("progressDetail"),
        ) {
            (Some(error), ..) => Some(error.to_owned()),
            // How far a layer is changes many times a second.
            (None, Some(_), true) => None,
            (None, Some(status), false) => Some(match member("id") {
                Some(id) => format!("{id}: {status}"),
                None => status.to_owned(),
            }),
            (None, None, _) => None,
        };
        match own {
            Some(own) => self.rest().into_iter().chain([own]).collect(),
            None => Vec::new(),
        }
    }
}

fn as_line(line: String) -> (Value, String) {
    let text = format!("{line}\n");
    (json!({ "line": line }), text)
}

#[cfg(test)]
mod tests {
    use wamp::Payload;

    use super::*;

    #[test]
    fn what_was_lost_on_the_way_is_said_before_what_came_after_it() {
        let event = |publication, payload, missed| Event {
            publication,
            details: Dict::new(),
            payload,
            missed,
        };
        let step = Payload::from_args(vec!["{\"stream\":\"Step 1/2\\n\"}".into()]);
        let lost = (
            json!({"note": "3 log messages were lost on the way"}),
            "(3 log messages were lost on the way)\n".to_owned(),
        );
        let line = (json!({"line": "Step 1/2"}), "Step 1/2\n".to_owned());
        let mut talk = Talk::default();
        assert_eq!(
            talk.heard(&event(1, step.clone(), 0)),
            std::slice::from_ref(&line)
        );
        assert_eq!(talk.heard(&event(1, step, 3)), [lost.clone(), line]);
        talk.begun = "broken o".to_owned();
        let broken = (json!({"line": "broken o"}), "broken o\n".to_owned());
        assert_eq!(talk.heard(&event(0, Payload::Empty, 3)), [broken, lost]);
    }

    #[test]
    fn records_of_a_build_read_like_its_output() {
        let mut talk = Talk::default();
        for (line, expected) in [
            (r#"{"stream":"Step 1/2 : FROM x\n"}"#, &["Step 1/2 : FROM x"][..]),
            (r#"{"stream":"\n"}"#, &[]),
            (r#"{"stream":"a\nb\nbegun, "}"#, &["a", "b"]),
            (r#"{"aux":{"ID":"sha256:1"}}"#, &[]),
            (
                r#"{"stream":"ended\r\n10 %\r20 %\rand"}"#,
                &["begun, ended", "10 %", "20 %"],
            ),
            (r#"{"aux":{"ID":"sha256:1"}}"#, &[]),
            (r#"{"errorDetail":{"message":"no"},"error":"no"}"#, &["and", "no"]),
            (
                r#"{"status":"Pushing","progressDetail":{"current":1},"id":"a"}"#,
                &[],
            ),
            (r#"{"status":"Pushed","id":"a"}"#, &["a: Pushed"]),
            ("Starting image build...", &["Starting image build..."]),
        ] {
            assert_eq!(talk.readable(line), expected, "{line}");
        }
        let endless = json!({"stream": "x".repeat(LONGEST)}).to_string();
        assert_eq!(talk.readable(&endless), [""; 0]);
        assert_eq!(talk.readable(r#"{"stream":"x"}"#), ["x".repeat(LONGEST + 1)]);
        talk.readable(r#"{"stream":"no end"}"#);
        assert_eq!(talk.rest().as_deref(), Some("no end"));
        assert_eq!(talk.rest(), None);
    }
}
