//! `studio logs`: history from the devices, then live events (`logs-terminal-tunnel.md` 2.2, 2.11, 2.12), of one app or
//! of many.

mod dated;
pub(super) mod lines;
mod seam;
mod source;
mod watch;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Map, Value, json};
use tokio::sync::Semaphore;
use wamp::Dict;

use self::lines::is_gap;
use self::source::{Source, named, select};
use self::watch::{Device, Look, Phase, watch};
use super::client::{Client, DEADLINE};
use super::{Out, with_client};
use crate::api::{CallDevice, InstallView, uri};
use crate::cli::{Logs, Place};
use crate::exit::{Exit, Failure};

/// Pauses before a lost studio or device is tried again: the first and the longest; they double in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Lines remembered to find out where to go on after an interruption: what a device keeps.
const REMEMBERED: usize = 100;

/// Questions to devices at once.
const AT_ONCE: usize = 16;

/// How often following looks for apps that were installed or removed.
const AGAIN: Duration = Duration::from_secs(10);

/// The log of one app on one device.
#[derive(Debug, Default)]
struct Stream {
    /// Goes before every line when there are several.
    label: String,
    device: String,
    app: String,
    /// The first look succeeded: from now on a loss is an interruption.
    begun: bool,
    /// The newest lines that were shown, or would have been without `--grep`.
    last: VecDeque<String>,
    /// When the newest of them came.
    at: Option<(SystemTime, Instant)>,
    /// When the newest of those of which that is known was printed, as the device says it.
    dated: Option<String>,
}

/// Everything that is watched, by topic.
type Streams = BTreeMap<String, Stream>;

/// How following ends without a failure.
#[derive(Debug)]
enum Ended {
    /// Everything was shown.
    Done,
    /// Nobody reads any more.
    Unread,
    /// The connection.
    Lost,
    /// There are more apps, or fewer.
    Changed,
    /// What was followed is not there any more.
    Gone(Failure),
}

pub(super) async fn run(place: &Place, out: Out, options: Logs) -> Result<(), Failure> {
    let mut streams = Streams::new();
    let mut pause = RETRY.0;
    let told = Cell::new(false);
    // Ctrl-C is how following ends: no failure.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let attempt = with_client(place, async |client: &Client| {
            show(client, out, &options, &mut streams, &told).await
        });
        let ended = tokio::select! {
            ended = attempt => ended,
            _ = &mut interrupted, if options.follow => return Ok(()),
        };
        let mut reason = "lost the connection".to_owned();
        let begun = options.follow && streams.values().any(|stream| stream.begun);
        match ended {
            Ok(Ended::Done | Ended::Unread) => return Ok(()),
            Ok(Ended::Gone(failure)) => return Err(failure),
            Ok(Ended::Changed) => continue,
            Ok(Ended::Lost) => pause = RETRY.0,
            Err(failure) if begun && passes(&failure) => reason = failure.text,
            Err(failure) => return Err(failure),
        }
        if !told.replace(true) {
            tell(&format!("{reason}; trying again until Ctrl-C"));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut interrupted => return Ok(()),
        }
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Whether trying again may help, once there was something to see.
fn passes(failure: &Failure) -> bool {
    !matches!(failure.exit, Exit::Denied | Exit::Usage)
}

/// Says something of the connection, which is not part of any log.
fn tell(text: &str) {
    // Nobody left to read it.
    let _ = writeln!(std::io::stderr(), "({text})");
}

async fn show(
    client: &Client,
    out: Out,
    options: &Logs,
    streams: &mut Streams,
    interrupted: &Cell<bool>,
) -> Result<Ended, Failure> {
    let sources = match select(client, options).await {
        Err(failure) if failure.exit == Exit::NotFound && !streams.is_empty() => {
            return Ok(Ended::Gone(failure));
        }
        sources => sources?,
    };
    if streams.is_empty() {
        for app in named(options).1 {
            if !sources.iter().any(|source| source.is_of(app)) {
                tell(&format!("{app}: not installed there"));
            }
        }
    }
    streams.retain(|topic, stream| {
        let there = sources.iter().any(|source| source.topic() == *topic);
        if !there {
            tell(&format!(
                "{} {}: not installed any more",
                stream.device, stream.app
            ));
        }
        there
    });
    let several = sources.len() > 1;
    for source in &sources {
        let stream = streams.entry(source.topic()).or_default();
        stream.device.clone_from(&source.device);
        stream.app.clone_from(&source.app);
        if several {
            stream.label = format!("{} {} | ", source.device, source.app);
        }
    }
    let questions = Semaphore::new(AT_ONCE);
    let mut shown = FuturesUnordered::new();
    for (topic, stream) in streams.iter_mut() {
        if let Some(source) = sources.iter().find(|source| source.topic() == *topic) {
            let device = Device {
                client,
                source,
                questions: &questions,
            };
            shown.push(one(device, out, options, stream, several, interrupted));
        }
    }
    let mut failures = Vec::new();
    let changed = changed(client, options, &sources);
    let mut changed = std::pin::pin!(changed);
    loop {
        let ended = tokio::select! {
            ended = shown.next() => ended,
            changed = &mut changed, if options.follow => return changed,
        };
        match ended {
            Some(Ok(Ended::Done)) => {}
            Some(Ok(over)) => return Ok(over),
            // Of several, the others go on.
            Some(Err(failure)) => {
                if several {
                    tell(&failure.text);
                }
                failures.push(failure);
            }
            None => break,
        }
    }
    let number = failures.len();
    match failures.pop() {
        None => Ok(Ended::Done),
        Some(failure) if several && !options.follow => {
            // Which one came last is chance.
            let denied = failures.iter().any(|other| other.exit == Exit::Denied);
            let exit = if denied { Exit::Denied } else { failure.exit };
            let text = format!("{number} of {} logs cannot be read", sources.len());
            Err(Failure::new(exit, text))
        }
        Some(failure) => Err(failure),
    }
}

/// Shows one log: what there is, then what comes.
async fn one(
    device: Device<'_>,
    out: Out,
    options: &Logs,
    stream: &mut Stream,
    several: bool,
    interrupted: &Cell<bool>,
) -> Result<Ended, Failure> {
    let named = |failure: Failure| {
        let text = match several {
            true => format!("{}: {}", device.source.device, failure.text),
            false => failure.text.clone(),
        };
        Failure { text, ..failure }
    };
    // Subscribed first: what comes while the history is fetched is kept, not lost.
    let mut live = None;
    if options.follow {
        let topic = device.source.topic();
        let subscribed = device.client.session.subscribe(&topic, Dict::new()).await;
        live = Some(subscribed.map_err(|error| named(error.into()))?);
    }
    let phase = match device.look(options, stream).await {
        Ok(look) => {
            if interrupted.take() {
                tell("connected again");
            }
            match stream.take(out, options, look) {
                Some(phase) => phase,
                None => return Ok(Ended::Unread),
            }
        }
        // Of several, the others are shown; one that was seen is tried again.
        Err(failure) if options.follow && (several || stream.begun) && passes(&failure) => {
            tell(&named(failure).text);
            Phase::Behind
        }
        Err(failure) => return Err(named(failure)),
    };
    match live {
        Some(live) => watch(device, out, options, stream, live, phase).await,
        None => Ok(Ended::Done),
    }
}

/// Ends when what the options name is something else than before.
async fn changed(client: &Client, options: &Logs, before: &[Source]) -> Result<Ended, Failure> {
    loop {
        tokio::time::sleep(AGAIN).await;
        match select(client, options).await {
            Ok(now) if now.iter().map(Source::topic).eq(before.iter().map(Source::topic)) => {}
            Ok(_) => return Ok(Ended::Changed),
            Err(failure) if failure.exit == Exit::NotFound => return Ok(Ended::Gone(failure)),
            // The connection itself is watched elsewhere.
            Err(failure) if passes(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
}

impl Stream {
    /// Shows what a look has found. `None` when nobody reads any more.
    fn take(&mut self, out: Out, options: &Logs, look: Look) -> Option<Phase> {
        if !look.note.is_none_or(|note| self.note(out, &note)) {
            return None;
        }
        self.begun = true;
        self.found(&look.phase);
        self.at = Some((SystemTime::now(), Instant::now()));
        self.show(out, options, &look.lines).then_some(look.phase)
    }

    /// Remembers how far the device was asked.
    fn found(&mut self, phase: &Phase) {
        if let Some(moment) = phase.dated() {
            self.dated = Some(moment);
        }
    }

    /// Says something that whoever reads the lines has to know, in its place. `false` when nobody reads any more.
    fn note(&self, out: Out, note: &str) -> bool {
        let value = json!({"note": note, "device": self.device, "app": self.app});
        out.step(&value, || format!("{}({note})\n", self.label))
    }

    /// Prints lines and remembers them. `false` when nobody reads any more.
    fn show(&mut self, out: Out, options: &Logs, lines: &[String]) -> bool {
        for line in lines {
            let wanted = options
                .grep
                .as_ref()
                .is_none_or(|words| line.contains(words.as_str()) || is_gap(line));
            let value = json!({"line": line, "device": self.device, "app": self.app});
            if wanted && !out.step(&value, || format!("{}{line}\n", self.label)) {
                return false;
            }
            if self.last.len() == REMEMBERED {
                self.last.pop_front();
            }
            self.last.push_back(line.clone());
            self.at = Some((SystemTime::now(), Instant::now()));
        }
        true
    }

    /// What was shown last, and how long ago.
    fn shown(&self) -> (Vec<String>, Duration) {
        // One clock can be set, the other one stands still while a machine sleeps.
        let ago = self.at.map(|(time, instant)| {
            let elapsed = time.elapsed().unwrap_or_default();
            elapsed.max(instant.elapsed())
        });
        (self.last.iter().cloned().collect(), ago.unwrap_or_default())
    }
}

/// Where the log of an install is published.
pub(super) fn topic(install: &InstallView) -> String {
    Source::of(install).topic()
}

async fn ask(client: &Client, device: &str, procedure: &str, arguments: Value) -> Result<Value, Failure> {
    let request = CallDevice {
        device: device.to_owned(),
        procedure: procedure.to_owned(),
        args: vec![arguments],
        kwargs: Map::new(),
        timeout: None,
    };
    let payload = client.send(uri::DEVICE_CALL, &request, DEADLINE).await?;
    let first = payload.first::<Value>().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("the device's answer is unreadable: {error}"),
        )
    })?;
    Ok(first.unwrap_or_default())
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
