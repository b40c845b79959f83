//! A log pipeline as the agent has it, a container that numbers its lines, and a viewer that checks them.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use protocol::{AppId, Stage};
use reagent::engine::Engine;
use reagent::logs::Logs;
use reagent::store::Store;
use testkit::docker::daemon::Daemon;
use testkit::docker::{self, Scope};
use testkit::fleet::Fleet;
use testkit::wait;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wamp::Dict;
use wamp::client::{ClientConfig, Credentials, Session, Subscription};

use super::SOON;
use super::plane::Plane;

pub(crate) const SERIAL: &str = "S-1";

pub(crate) fn app(key: u64) -> AppId {
    AppId {
        key,
        stage: Stage::Prod,
    }
}

/// A container under the name of an app of one test alone. Removed with this value.
pub(crate) struct Writer {
    pub(crate) key: u64,
    pub(crate) app_name: String,
    pub(crate) container: String,
    image: String,
    _scope: Scope,
}

impl Writer {
    /// Makes it, not started.
    pub(crate) fn new(key: u64, script: &str) -> Writer {
        let scope = Scope::new();
        let app_name = scope.name("app");
        Writer {
            key,
            container: format!("prod_{key}_{app_name}"),
            image: scope.image("app", script),
            app_name,
            _scope: scope,
        }
    }

    pub(crate) fn run(&self) {
        self.run_image_of(self);
    }

    /// Its container with the image of another one.
    pub(crate) fn run_image_of(&self, other: &Writer) {
        self.run_with(&[], other);
    }

    /// The same with a log of two files of so many bytes each, the older of which goes with all it has.
    pub(crate) fn run_rotating(&self, bytes: u32) {
        let size = format!("max-size={bytes}");
        self.run_with(&["--log-opt", &size, "--log-opt", "max-file=2"], self);
    }

    /// The same in another daemon, without TTY.
    pub(crate) fn run_at(&self, daemon: &Daemon) {
        let archive = tempfile::NamedTempFile::new().unwrap();
        let archive = archive.path().to_str().unwrap();
        docker::docker(&["save", "--output", archive, &self.image]).unwrap();
        daemon.docker(&["load", "--input", archive]).unwrap();
        let names = ["--name", &self.container, &self.image];
        let run = ["run", "--detach", "--network", "none"];
        daemon.docker(&[&run[..], &names].concat()).unwrap();
    }

    fn run_with(&self, options: &[&str], image_of: &Writer) {
        let names = ["--name", &self.container, &image_of.image];
        let run = ["run", "--detach", "--tty", "--network", "none"];
        docker::docker(&[&run[..], options, &names].concat()).unwrap();
    }

    /// Prints `1`, `2`, … with a pause in between.
    pub(crate) fn numbering(key: u64) -> Writer {
        Writer::new(key, &numbering("", "0.01"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        docker::remove(&self.container);
    }
}

/// A script that prints a word and `1`, `2`, … with a pause of so many seconds in between, until it is held.
pub(crate) fn numbering(word: &str, pause: &str) -> String {
    format!(
        "i=0; while :; do
             if [ -e /tmp/hold ]; then echo $i > /tmp/held.new; mv /tmp/held.new /tmp/held;
             else i=$((i+1)); echo \"{word}$i\"; fi
             sleep {pause}
         done"
    )
}

/// Lets it print nothing any more. Returns the last number.
pub(crate) fn hold(container: &str) -> u64 {
    let script =
        "rm -f /tmp/held; : > /tmp/hold; while ! [ -e /tmp/held ]; do sleep 0.01; done; cat /tmp/held";
    let said = docker::docker(&["exec", container, "/bin/sh", "-c", script]).unwrap();
    said.trim().parse().unwrap()
}

pub(crate) fn go_on(container: &str) {
    docker::docker(&["exec", container, "/bin/sh", "-c", "rm /tmp/hold"]).unwrap();
}

/// How many lines it has printed.
pub(crate) fn printed(container: &str) -> u64 {
    u64::try_from(docker::logs(container).lines().count()).unwrap()
}

/// Waits until the router has confirmed everything that a held container has printed: nothing is on its way any more.
/// `downloads`: where the agent notes that, for its next run.
pub(crate) fn wait_until_confirmed(downloads: &Path, container: &str) {
    let text = docker::docker(&["logs", "--timestamps", "--tail", "1", container]).unwrap();
    let (moment, _) = text.split_once(' ').expect("a timestamp");
    let moment: jiff::Timestamp = moment.parse().unwrap();
    wait::until("the router's word is noted", SOON, || {
        let text = std::fs::read_to_string(downloads.join("log-cursors.json")).ok()?;
        let cursors: serde_json::Value = serde_json::from_str(text.lines().next()?).ok()?;
        let noted = cursors[container][container]["nanoseconds"].as_u64()?;
        (i128::from(noted) >= moment.as_nanosecond()).then_some(())
    });
}

/// A pipeline on a runtime of its own, which can be killed like a process.
pub(crate) struct Run {
    pub(crate) logs: Logs,
    downloads: PathBuf,
    killed: Option<oneshot::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
}

impl Run {
    /// Starts in `home`, where it finds what an earlier run left.
    pub(crate) async fn start(home: &Path, engine: Engine) -> Run {
        let (logs, mut started) = mpsc::channel(1);
        let (killed, kill) = oneshot::channel();
        let home = home.to_owned();
        let downloads = home.join("downloads");
        let place = Some(downloads.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (store, _) = Store::open(&home.join("reagent.db")).await.unwrap();
                let stop = CancellationToken::new();
                let run = Logs::start_in(
                    &tokio::runtime::Handle::current(),
                    place,
                    SERIAL.to_owned(),
                    store.clone(),
                    engine,
                    stop,
                );
                logs.send(run.clone()).await.unwrap();
                if let Ok(true) = kill.await {
                    run.close().await;
                    store.close().await;
                }
            });
            // Nothing is finished, nothing is saved.
            runtime.shutdown_background();
        });
        Run {
            logs: started.recv().await.unwrap(),
            downloads,
            killed: Some(killed),
            thread: Some(thread),
        }
    }

    /// Starts in `home` with a viewer of a container that is followed from its first line on, and begins with it. Gives
    /// back the session, too.
    pub(crate) async fn of(
        home: &Path,
        engine: Engine,
        plane: &Plane,
        writer: &Writer,
    ) -> (Run, Viewer, Session) {
        let run = Run::start(home, engine).await;
        let viewer = Viewer::of(plane, writer).await;
        let session = plane.join("system").await;
        run.begin(writer, &session).await;
        (run, viewer, session)
    }

    /// Attaches, and follows a container from its first line on.
    pub(crate) async fn begin(&self, writer: &Writer, session: &Session) {
        self.logs.clear_history(app(writer.key), &writer.app_name);
        self.logs.attach(session.clone()).await;
        writer.run();
        self.follow(writer);
    }

    pub(crate) fn follow(&self, writer: &Writer) {
        self.logs.follow(app(writer.key), &writer.app_name);
    }

    /// Holds the writer until the viewer has seen all that it printed, and the router has confirmed that.
    pub(crate) async fn settle(&self, writer: &Writer, tally: &mut Tally, viewer: &mut Viewer) {
        let last = hold(&writer.container);
        tally.watch(viewer, last).await;
        assert_eq!(tally.last, last);
        wait_until_confirmed(&self.downloads, &writer.container);
    }

    pub(crate) async fn kill(self) {
        self.end(false).await;
    }

    pub(crate) async fn close(self) {
        self.end(true).await;
    }

    async fn end(mut self, orderly: bool) {
        let _ = self.killed.take().unwrap().send(orderly);
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
    }
}

/// Joins as the operator of a fleet.
pub(crate) async fn operator(fleet: &Fleet) -> Session {
    let text = std::fs::read_to_string(fleet.directory().join("studio/operator.json")).unwrap();
    let operator: serde_json::Value = serde_json::from_str(&text).unwrap();
    let member = |name: &str| operator[name].as_str().unwrap().to_owned();
    let mut config = ClientConfig::new(member("url"), "realm1");
    config.credentials = Credentials::Cra {
        authid: member("authid"),
        secret: member("secret"),
    };
    Session::connect(&config).await.unwrap()
}

/// The name of the container in which a fleet's app runs.
pub(crate) fn container_of(fleet: &Fleet, app: &str) -> String {
    let apps = fleet.studio(&["app", "list", "--json"]).ok().json();
    let row = apps.as_array().unwrap().iter().find(|row| row["name"] == app);
    format!("prod_{}_{app}", row.unwrap()["app_key"])
}

/// Somebody who watches a log and counts.
pub(crate) struct Viewer {
    _session: Session,
    subscription: Subscription,
}

impl Viewer {
    pub(crate) async fn of(plane: &Plane, writer: &Writer) -> Viewer {
        Viewer::over(plane.join("4711").await, writer).await
    }

    /// The same over a session of one's choice.
    pub(crate) async fn over(session: Session, writer: &Writer) -> Viewer {
        Viewer::at(session, SERIAL, &writer.container).await
    }

    /// The same of a device of one's choice.
    pub(crate) async fn at(session: Session, serial: &str, container: &str) -> Viewer {
        let topic = protocol::uri::logs(serial, container);
        let subscription = session.subscribe(&topic, Dict::new()).await.unwrap();
        Viewer {
            _session: session,
            subscription,
        }
    }

    /// The lines of the next message.
    pub(crate) async fn next(&mut self) -> Option<Vec<String>> {
        let event = tokio::time::timeout(SOON, self.subscription.events.recv()).await;
        let event = event.expect("a message in time")?;
        let message = event.payload.args().unwrap()[0].to_json();
        let text = message
            .as_str()
            .unwrap_or_else(|| panic!("output, not {message}"));
        Some(text.split('\n').map(str::to_owned).collect())
    }
}

/// What has been seen of a container that numbers its lines.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The last line that was seen or is accounted for by a gap.
    pub(crate) last: u64,
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    /// The line before the first of the last message.
    before_message: u64,
    /// That message may come again, of which no line is beyond this one.
    unconfirmed: Option<u64>,
}

impl Tally {
    /// Watches until line `until` is seen or accounted for. Every line comes once and in order, or a gap says how many
    /// are missing where they are missing.
    pub(crate) async fn watch(&mut self, viewer: &mut Viewer, until: u64) {
        while self.last < until {
            let lines = viewer.next().await.expect("an open subscription");
            self.take(&lines);
        }
    }

    /// The link was cut, or the agent killed, at any moment: viewers may have a message of which the router's
    /// confirmation got lost on its way. That one, and no other, may come once more from its first line on, before any
    /// that begins with what was printed later. `printed`: the number of lines at the moment of the cut, or just after.
    pub(crate) fn cut(&mut self, printed: u64) {
        self.unconfirmed = Some(printed);
    }

    /// Takes what still comes from a viewer whose router ended.
    pub(crate) async fn drain(&mut self, viewer: &mut Viewer) {
        while let Some(lines) = viewer.next().await {
            self.take(&lines);
        }
    }

    fn take(&mut self, lines: &[String]) {
        let first = lines.first().and_then(|line| line.parse().ok());
        if first > self.unconfirmed {
            self.unconfirmed = None;
        }
        if self.unconfirmed.is_some() && first == Some(self.before_message + 1) {
            self.unconfirmed = None;
            self.delivered -= self.last - self.before_message;
            self.last = self.before_message;
        }
        self.before_message = self.last;
        for line in lines {
            match line.strip_prefix("… ").and_then(|rest| rest.split_once(' ')) {
                Some((count, rest)) => {
                    assert!(rest.starts_with("log line(s) dropped ("), "{line}");
                    let count: u64 = count.parse().unwrap();
                    self.dropped += count;
                    self.last += count;
                }
                None => {
                    let number: u64 = line.parse().unwrap_or_else(|_| panic!("a number, not {line:?}"));
                    assert_eq!(number, self.last + 1, "exactly once and in order");
                    self.last = number;
                    self.delivered += 1;
                }
            }
        }
    }
}
