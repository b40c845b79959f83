//! `studio logs`: history from the devices, then live events (`logs-terminal-tunnel.md` 2.2, 2.11, 2.12), of one app or
//! of many.

mod dated;
pub(super) mod lines;
mod seam;
mod watch;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use protocol::AppId;
use serde_json::{Map, Value, json};
use wamp::Dict;

use self::lines::is_gap;
use self::watch::{Look, Phase, look, watch};
use super::client::{Client, DEADLINE};
use super::{Out, with_client};
use crate::api::{CallDevice, InstallView, MaybeDevice, uri};
use crate::cli::{Logs, Place};
use crate::exit::{Exit, Failure};

/// Pauses before a lost studio or device is tried again: the first and the longest; they double in between.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Lines remembered to find out where to go on after an interruption: what a device keeps.
const REMEMBERED: usize = 100;

/// Devices that are asked at once.
const AT_ONCE: usize = 16;

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
    at: Option<SystemTime>,
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
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::Lost) => pause = RETRY.0,
            Err(failure) if begun && passes(&failure) => reason = failure.text,
            Err(failure) => return Err(failure),
        }
        if !told.replace(true) {
            eprintln!("({reason}; trying again until Ctrl-C)");
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

async fn show(
    client: &Client,
    out: Out,
    options: &Logs,
    streams: &mut Streams,
    interrupted: &Cell<bool>,
) -> Result<Ended, Failure> {
    let installs = select(client, options).await?;
    let several = installs.len() > 1;
    let mut lives = BTreeMap::new();
    for install in &installs {
        let topic = topic(install);
        // Subscribed first: what comes while the history is fetched is kept, not lost.
        if options.follow {
            let live = client.session.subscribe(&topic, Dict::new()).await?;
            lives.insert(topic.clone(), live);
        }
        let stream = streams.entry(topic).or_default();
        stream.device.clone_from(&install.device);
        stream.app.clone_from(&install.app);
        if several {
            stream.label = format!("{} {} | ", install.device, install.app);
        }
    }
    let shown = &*streams;
    let looks: Vec<_> = installs
        .iter()
        .filter_map(|install| Some(look(client, install, options, shown.get(&topic(install))?)))
        .collect();
    let looks: Vec<_> = stream::iter(looks).buffered(AT_ONCE).collect().await;
    let mut failed: Vec<Failure> = Vec::new();
    let mut phases = BTreeMap::new();
    for (install, look) in installs.iter().zip(looks) {
        let topic = topic(install);
        let Some(stream) = streams.get_mut(&topic) else {
            continue;
        };
        match look {
            Ok(look) => {
                if interrupted.take() {
                    eprintln!("(connected again)");
                }
                let Some(phase) = stream.take(out, options, look) else {
                    return Ok(Ended::Done);
                };
                phases.insert(topic, phase);
            }
            Err(_) if stream.begun && !client.session.is_open() => return Ok(Ended::Lost),
            // Of several, the others are shown; one that was seen is tried again.
            Err(failure) if several || (stream.begun && passes(&failure)) => {
                eprintln!("({}: {})", install.device, failure.text);
                interrupted.set(false);
                if passes(&failure) {
                    phases.insert(topic, Phase::Behind);
                }
                failed.push(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    let begun = streams.values().any(|stream| stream.begun);
    if let Some(failure) = failed.pop() {
        if !begun || phases.is_empty() {
            return Err(failure);
        }
        if !options.follow {
            let text = format!("{} of {} logs cannot be read", failed.len() + 1, installs.len());
            return Err(Failure::new(failure.exit, text));
        }
    }
    let mut watches = FuturesUnordered::new();
    for (topic, stream) in streams.iter_mut() {
        if let (Some(live), Some(phase)) = (lives.remove(topic), phases.remove(topic))
            && let Some(install) = installs.iter().find(|install| self::topic(install) == *topic)
        {
            watches.push(watch(client, out, options, install, stream, live, phase));
        }
    }
    let mut ended = Ok(Ended::Done);
    while let Some(one) = watches.next().await {
        match one {
            Ok(over) => return Ok(over),
            // Of several, the others go on.
            Err(failure) => {
                if several {
                    eprintln!("({})", failure.text);
                }
                ended = Err(failure);
            }
        }
    }
    ended
}

impl Stream {
    /// Shows what a look has found. `None` when nobody reads any more.
    fn take(&mut self, out: Out, options: &Logs, look: Look) -> Option<Phase> {
        if let Some(note) = look.note {
            eprintln!("({}{note})", self.label);
        }
        self.begun = true;
        self.at = Some(SystemTime::now());
        self.show(out, options, &look.lines).then_some(look.phase)
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
            self.at = Some(SystemTime::now());
        }
        true
    }

    /// What was shown last, and how long ago.
    fn shown(&self) -> (Vec<String>, Duration) {
        let ago = self.at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        (self.last.iter().cloned().collect(), ago)
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
