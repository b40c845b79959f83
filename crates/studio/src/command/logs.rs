//! `studio logs`: history from the devices, then live events (`logs-terminal-tunnel.md` 2.2, 2.11, 2.12), of one app or
//! of many.

pub(super) mod lines;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, SelectAll};
use protocol::AppId;
use serde_json::{Map, Value, json};
use wamp::Dict;
use wamp::client::{Event, Subscription};

use self::lines::{Seam, is_gap, resumed};
use super::client::{Client, DEADLINE};
use super::{Out, with_client};
use crate::api::{CallDevice, InstallView, MaybeDevice, uri};
use crate::cli::{Logs, Place};
use crate::exit::{Exit, Failure};

/// Pauses before a lost studio or device is tried again: the first and the longest; they double in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Lines remembered to find out where to go on after an interruption: what a device keeps.
const REMEMBERED: usize = 100;

/// Lines asked for with `--since`: as many as a device gives.
const SINCE: u64 = 5000;

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
}

/// Everything that is watched, by topic.
type Streams = BTreeMap<String, Stream>;

/// How following ends without a failure.
#[derive(Debug)]
enum Ended {
    /// Everything was shown, or nobody reads any more.
    Done,
    Lost,
}

pub(super) async fn run(place: &Place, out: Out, options: Logs) -> Result<(), Failure> {
    let mut streams = Streams::new();
    let mut pause = RETRY.0;
    let mut told = false;
    // Ctrl-C is how following ends: no failure.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let attempt = with_client(place, async |client: &Client| {
            show(client, out, &options, &mut streams, &mut told).await
        });
        let ended = tokio::select! {
            ended = attempt => ended,
            _ = &mut interrupted, if options.follow => return Ok(()),
        };
        let begun = options.follow && streams.values().any(|stream| stream.begun);
        match ended {
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Lost) => pause = RETRY.0,
            Err(failure) if begun && matches!(failure.exit, Exit::Unreachable | Exit::Offline) => {}
            Err(failure) => return Err(failure),
        }
        if !std::mem::replace(&mut told, true) {
            eprintln!("(lost the connection; trying again until Ctrl-C)");
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut interrupted => return Ok(()),
        }
        pause = (pause * 2).min(RETRY.1);
    }
}

async fn show(
    client: &Client,
    out: Out,
    options: &Logs,
    streams: &mut Streams,
    interruption: &mut bool,
) -> Result<Ended, Failure> {
    let installs = select(client, options).await?;
    let several = installs.len() > 1;
    let mut events = SelectAll::new();
    let mut seams: BTreeMap<String, Seam> = BTreeMap::new();
    let mut failure = None;
    let mut any = false;
    for install in &installs {
        let topic = topic(install);
        // Subscribed first: what comes while the history is fetched is kept, not lost.
        let mut live = match options.follow {
            true => Some(client.session.subscribe(&topic, Dict::new()).await?),
            false => None,
        };
        let stream = streams.entry(topic.clone()).or_default();
        stream.device.clone_from(&install.device);
        stream.app.clone_from(&install.app);
        if several {
            stream.label = format!("{} {} | ", install.device, install.app);
        }
        match past(client, install, options, stream.begun).await {
            Ok(history) => {
                any = true;
                if std::mem::take(interruption) {
                    eprintln!("(connected again)");
                }
                let early = live.as_mut().map(buffered).unwrap_or_default();
                let fresh = resumed(stream.last.make_contiguous(), &history, early.clone());
                if !stream.show(out, options, &fresh) {
                    return Ok(Ended::Done);
                }
                stream.begun = true;
                let mut seam = Seam::new(history);
                // More of what the history has may follow.
                if seam.fresh(early).is_empty() {
                    seams.insert(topic.clone(), seam);
                }
            }
            // Of several, the others are shown.
            Err(unreached) if several => {
                eprintln!("({}: {})", install.device, unreached.text);
                failure = Some(unreached);
            }
            Err(unreached) => return Err(unreached),
        }
        if let Some(live) = live {
            events.push(follow(topic, live));
        }
    }
    if let (false, Some(failure)) = (any, failure) {
        return Err(failure);
    }
    if events.is_empty() {
        return Ok(Ended::Done);
    }
    while let Some((topic, event)) = events.next().await {
        let Some(event) = event else {
            if client.session.is_open() {
                return Err(Failure::new(
                    Exit::Denied,
                    "your account may not read this log any more",
                ));
            }
            return Ok(Ended::Lost);
        };
        let Some(stream) = streams.get_mut(&topic) else {
            continue;
        };
        if event.missed > 0 {
            eprintln!(
                "({}{} log messages were lost on the way)",
                stream.label, event.missed
            );
        }
        let mut lines = lines::lines(&event);
        if let Some(seam) = seams.get_mut(&topic) {
            lines = seam.fresh(lines);
        }
        if !stream.show(out, options, &lines) {
            return Ok(Ended::Done);
        }
    }
    Ok(Ended::Lost)
}

/// Events with their topic, and one `None` when there will be no more.
fn follow(
    topic: String,
    live: Subscription,
) -> impl futures_util::Stream<Item = (String, Option<Event>)> + Unpin {
    Box::pin(stream::unfold(Some(live), move |live| {
        let topic = topic.clone();
        async move {
            let mut live = live?;
            let event = live.events.recv().await;
            let next = event.is_some().then_some(live);
            Some(((topic, event), next))
        }
    }))
}

/// The lines of events that came already.
fn buffered(live: &mut Subscription) -> Vec<String> {
    let mut early = Vec::new();
    while let Ok(event) = live.events.try_recv() {
        early.extend(lines::lines(&event));
    }
    early
}

impl Stream {
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
        }
        true
    }
}

fn container(install: &InstallView) -> String {
    let app = AppId {
        key: install.app_key.0,
        stage: install.stage,
    };
    protocol::naming::container(app, &install.app)
}

/// Where the app's log is published.
pub(super) fn topic(install: &InstallView) -> String {
    protocol::uri::logs(&install.serial_number, &container(install))
}

/// What the options name: every app of the devices and every device of the apps, where one of both is not said.
async fn select(client: &Client, options: &Logs) -> Result<Vec<InstallView>, Failure> {
    let devices: Vec<&String> = options.device.iter().chain(&options.devices).collect();
    let apps: Vec<&String> = options.app.iter().chain(&options.apps).collect();
    let mut installs: Vec<InstallView> = Vec::new();
    if devices.is_empty() {
        installs = client
            .ask(uri::INSTALL_LIST, &MaybeDevice { device: None })
            .await?;
    }
    for device in &devices {
        let device = Some((*device).clone());
        let of_device: Vec<InstallView> = client.ask(uri::INSTALL_LIST, &MaybeDevice { device }).await?;
        installs.extend(of_device);
    }
    let named = |install: &InstallView| {
        apps.is_empty()
            || apps
                .iter()
                .any(|app| install.app.eq_ignore_ascii_case(app) || install.app_key.to_string() == **app)
    };
    installs.retain(named);
    installs.sort_by_key(topic);
    installs.dedup_by_key(|install| topic(install));
    if !installs.is_empty() {
        return Ok(installs);
    }
    Err(match (&devices[..], &apps[..]) {
        ([device], [app]) => Failure::new(
            Exit::NotFound,
            format!("app {app:?} is not installed on device {device:?}"),
        )
        .hint(format!("'studio ps {device}' shows what is")),
        _ => Failure::new(Exit::NotFound, "no such app is installed there").hint("'studio ps' shows what is"),
    })
}

/// What was printed before: since the moment that was asked for, or what the device keeps.
async fn past(
    client: &Client,
    install: &InstallView,
    options: &Logs,
    begun: bool,
) -> Result<Vec<String>, Failure> {
    let container = container(install);
    if let (Some(since), false) = (&options.since, begun) {
        let arguments = json!({
            "containerName": container, "since": since, "tail": SINCE, "timestamps": false,
        });
        let answer = ask(client, &install.device, "query_app_logs", arguments).await?;
        return match answer.get("lines") {
            Some(Value::Array(lines)) => Ok(lines.iter().map(text_of).collect()),
            Some(_) | None => Ok(Vec::new()),
        };
    }
    let arguments = json!({"containerName": container});
    Ok(
        match ask(client, &install.device, "get_app_log_history", arguments).await? {
            Value::Array(lines) => lines.iter().map(text_of).collect(),
            _ => Vec::new(),
        },
    )
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
