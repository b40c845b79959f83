//! App logs (`logs-terminal-tunnel.md` 2): live stream while somebody listens, history of 100 lines.
//!
//! Never blocks its callers and never fails an app transition: publishing is fire-and-forget (weakness W7). One task
//! owns all state; this handle only puts commands into its queue. Must not know why a line is written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use protocol::naming::BadContainerName;
use protocol::{AppId, naming};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError};
use crate::store::Store;

mod batch;
mod cursor;
mod entry;
mod follower;
mod ledger;
mod listeners;
mod lost;
mod news;
mod operation;
mod pipeline;
mod project;
mod publisher;
mod query;
mod ring;
mod rotation;
mod shelf;
mod spool;

use batch::Cause;
use lost::Lost;
pub use operation::Operation;
use pipeline::{Command, Pipeline};
pub use query::{Found, Origin, Window};

/// Commands waiting. The pipeline never waits for anything, so this fills only when lines come faster than they can
/// be moved; then lines are dropped and counted, and the last places are kept for everything else.
const QUEUE: usize = 1024;
const RESERVED: usize = 128;
/// How many of them may be lines of operations that wait for their turn.
const IN_TURN: usize = QUEUE / 2;
/// Bound of attaching: later answers of the router still count.
const ATTACH: Duration = Duration::from_secs(5);
/// Bound of an answer about the history.
const HISTORY: Duration = Duration::from_secs(10);
/// Bound of the container's part of it.
const CONTAINER: Duration = Duration::from_secs(5);
/// Bound of closing.
const CLOSE: Duration = Duration::from_secs(8);
/// Bound of reading out what containers have printed.
const READ_OUT: Duration = Duration::from_secs(5);
/// Lines taken from the container when the history has none of it.
const FALLBACK: u32 = 50;

/// Handle of the log pipeline. Cloneable.
#[derive(Clone, Debug)]
pub struct Logs {
    commands: mpsc::Sender<Command>,
    turns: Arc<Semaphore>,
    lost: Lost,
    store: Store,
    engine: Engine,
    /// Cancelled by the pipeline when it has ended.
    ended: CancellationToken,
}

impl Logs {
    /// Starts the pipeline of the device with this serial number. With `stop` it follows no container any more; it
    /// ends with [`Logs::close`], which saves what is not saved yet, or with the last handle.
    pub fn start(serial: String, store: Store, engine: Engine, stop: CancellationToken) -> Logs {
        Logs::start_in(&Handle::current(), None, serial, store, engine, stop)
    }

    /// The same on that runtime, which outlives the handles, with a directory for what memory is too small or too
    /// short-lived for: lines that wait for a link that is down, and what viewers have got before a restart. It is made
    /// when it is missing.
    pub fn start_in(
        runtime: &Handle,
        directory: Option<PathBuf>,
        serial: String,
        store: Store,
        engine: Engine,
        stop: CancellationToken,
    ) -> Logs {
        let (commands, queue) = mpsc::channel(QUEUE);
        let lost = Lost::default();
        let ended = CancellationToken::new();
        let serial = Arc::from(serial);
        let pipeline = Pipeline::new(serial, store.clone(), engine.clone(), lost.clone(), directory);
        let guard = ended.clone().drop_guard();
        runtime.spawn(async move {
            pipeline.run(queue, stop).await;
            drop(guard);
        });
        Logs {
            commands,
            turns: Arc::new(Semaphore::new(IN_TURN)),
            lost,
            store,
            engine,
            ended,
        }
    }

    /// A line written by the agent itself: always published as `{"type":"build","chunk":text}`, kept in the history.
    pub fn agent_line(&self, app: AppId, app_name: &str, text: &str) {
        self.agent_line_on(Channel::App, app, app_name, text);
    }

    /// The same on a channel of one's choice.
    pub fn agent_line_on(&self, channel: Channel, app: AppId, app_name: &str, text: &str) {
        let text = text.to_owned();
        self.line(Container::on(channel, app, app_name), |container| {
            Command::AgentLine { container, text }
        });
    }

    /// Tells viewers to clear themselves (`LOGGER_CLEAR`); not kept.
    pub fn clear_viewers(&self, app: AppId, app_name: &str) {
        self.send(Command::ClearViewers(Container::new(app, app_name)));
    }

    /// Empties the history, in memory and on disk.
    pub fn clear_history(&self, app: AppId, app_name: &str) {
        self.clear_history_on(Channel::App, app, app_name);
    }

    /// The same on a channel of one's choice.
    pub fn clear_history_on(&self, channel: Channel, app: AppId, app_name: &str) {
        self.send(Command::ClearHistory(Container::on(channel, app, app_name)));
    }

    /// For the output of an operation on a channel of one's choice.
    pub fn operation(&self, channel: Channel, app: AppId, app_name: &str) -> Operation {
        Operation::new(self.clone(), Container::on(channel, app, app_name))
    }

    /// Follows the log of the app's container until it ends. A second call while one follows does nothing, unless the
    /// container that is followed ends: then it counts.
    pub fn follow(&self, app: AppId, app_name: &str) {
        let source = Source::Container;
        self.send(Command::Follow {
            container: Container::new(app, app_name),
            source,
        });
    }

    /// Follows every container of a compose project, also those that start later, until none of it is left. Each line
    /// has its service in front as `docker compose logs` writes it (`web-1  | `) and goes to the app's own topic (2.1).
    /// Further calls count as those of [`Logs::follow`] do.
    pub fn follow_project(&self, app: AppId, app_name: &str, project: &str) {
        let source = Source::Project(project.to_owned());
        self.send(Command::Follow {
            container: Container::new(app, app_name),
            source,
        });
    }

    /// Reads what the app's container has printed until now, follows it or not, and follows it no more: then it can be
    /// removed, and nothing of what it said is lost. `project`: all containers of this compose project. Bounded: out of
    /// time, that is said in the log.
    pub async fn read_out(&self, app: AppId, app_name: &str, project: Option<&str>) -> Result<(), Ending> {
        let source = project.map_or(Source::Container, |project| Source::Project(project.to_owned()));
        let (done, all_read) = oneshot::channel();
        let command = Command::ReadOut {
            container: Container::new(app, app_name),
            source,
            done,
        };
        let read = async { self.commands.send(command).await.is_ok() && all_read.await.is_ok() };
        match tokio::time::timeout(READ_OUT, read).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Ending),
            Err(_) => {
                tracing::warn!(%app, "what its containers said last was not read in time");
                self.agent_line(app, app_name, batch::UNREAD);
                Ok(())
            }
        }
    }

    /// What `get_app_log_history` answers for this container name (2.11): the newest lines, or, when none of them is the
    /// container's, agent lines followed by the end of the log of the container or of the compose project (L15).
    pub async fn history_of(&self, container: &str) -> Result<Vec<String>, BadContainerName> {
        let container = Container::parse(container)?;
        let name = container.name.clone();
        let answer = tokio::time::timeout(HISTORY, async {
            let (mut lines, has_output) = self.remembered(container).await;
            if !has_output {
                // A Docker that hangs takes away no more than its own part.
                let end = tokio::time::timeout(CONTAINER, self.end_of_log(&name)).await;
                lines.extend(end.unwrap_or_default());
            }
            lines
        });
        Ok(answer.await.unwrap_or_default())
    }

    /// The history of an app: [`Logs::history_of`] its container.
    pub async fn history(&self, app: AppId, app_name: &str) -> Vec<String> {
        let name = naming::container(app, app_name);
        self.history_of(&name).await.unwrap_or_default()
    }

    /// Lines in memory or in the database, and whether one of them is output.
    async fn remembered(&self, container: Container) -> (Vec<String>, bool) {
        let (reply, remembered) = oneshot::channel();
        let (app, is_stored) = (container.app, container.is_stored());
        let command = Command::History { container, reply };
        self.commands.send(command).await.ok();
        match remembered.await {
            Ok(Some(history)) => history,
            Ok(None) | Err(_) if is_stored => {
                let stored = self.store.log_history(app).await.unwrap_or_default();
                let has_output = !stored.is_empty();
                (stored, has_output)
            }
            Ok(None) | Err(_) => (Vec::new(), false),
        }
    }

    async fn end_of_log(&self, container: &str) -> Vec<String> {
        let window = Window {
            lines: FALLBACK,
            ..Window::default()
        };
        // An error, no such container above all, means that there is nothing to add.
        let read = async {
            let (_, containers) = query::containers(&self.engine, container).await?;
            query::newest(&self.engine, &containers, &window).await
        };
        let newest = read.await.unwrap_or_default();
        newest.lines.into_iter().map(|line| line.shown(false)).collect()
    }

    /// The newest lines of a container inside a window (2.12): from the container of this name, else from the services
    /// of its compose project, else from the history, for which the window does not count. Fails when the engine does,
    /// and for a container that is none of ours and not there.
    pub async fn query(&self, container: &str, window: &Window) -> Result<Answer, EngineError> {
        let (origin, containers) = query::containers(&self.engine, container).await?;
        if containers.is_empty() {
            let parsed = Container::parse(container)
                .map_err(|_| EngineError::NoSuchContainer(container.to_owned()))?;
            let (lines, _) = self.remembered(parsed).await;
            return Ok(Answer {
                origin: Origin::History,
                lines: lines.into_iter().map(Found::remembered).collect(),
                shortened: false,
                oldest_available: None,
            });
        }
        let newest = query::newest(&self.engine, &containers, window).await?;
        // Not worth failing for.
        let oldest_available = query::complete_since(&self.engine, &containers)
            .await
            .unwrap_or_default();
        Ok(Answer {
            origin,
            lines: newest.lines.into(),
            shortened: newest.shortened,
            oldest_available,
        })
    }

    /// After a (re)connect: asks which log topics have listeners and follows the meta events (2.4, 2.9). Returns when
    /// that is done, at the latest after some seconds; later answers count too.
    pub async fn attach(&self, session: wamp::client::Session) {
        let (attached, done) = oneshot::channel();
        let command = Command::Attach { session, attached };
        let attach = async {
            if self.commands.send(command).await.is_ok() {
                let _ = done.await;
            }
        };
        if tokio::time::timeout(ATTACH, attach).await.is_err() {
            tracing::info!("the router has not told yet who listens to logs");
        }
    }

    /// Flushes histories and ends all followers, within a bound.
    pub async fn close(&self) {
        let close = async {
            let _ = self.commands.send(Command::Close).await;
            self.ended.cancelled().await;
        };
        if tokio::time::timeout(CLOSE, close).await.is_err() {
            tracing::warn!("log histories were not all saved in time");
        }
    }

    fn line(&self, container: Container, command: impl FnOnce(Container) -> Command) {
        let name = container.name.clone();
        let full = self.commands.capacity() < RESERVED;
        if full || self.commands.try_send(command(container)).is_err() {
            self.lost.add(&name, 1, Cause::Rate);
        }
    }

    fn send(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::warn!(%error, "log command dropped");
        }
    }
}

/// What [`Logs::query`] found.
#[derive(Debug)]
pub struct Answer {
    pub origin: Origin,
    /// Oldest first.
    pub lines: Vec<Found>,
    /// The oldest lines were left out because of their size.
    pub shortened: bool,
    /// When the oldest line that there is was printed, nanoseconds since 1970. Of several containers the youngest of their
    /// oldest lines: from then on all of them is there. `None` of a history.
    pub oldest_available: Option<u64>,
}

/// The agent ends, and reads nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending;

/// Where lines about an app are said (2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `dev_6_myapp`, `prod_6_myapp`: the app itself.
    App,
    /// `pub_6_myapp`: building a release and publishing it. Its history lives in memory only, so that it never takes
    /// the place of the DEV app's (L14).
    Publication,
}

/// What is followed for an app.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The container of the app's own name.
    Container,
    /// All containers of this compose project.
    Project(String),
}

/// A channel of an app as the pipeline addresses it.
#[derive(Clone, Debug)]
struct Container {
    app: AppId,
    /// In original case.
    app_name: String,
    channel: Channel,
    /// Last component of the topic: `prod_6_myapp`.
    name: String,
}

impl Container {
    fn new(app: AppId, app_name: &str) -> Container {
        Container::on(Channel::App, app, app_name)
    }

    /// Reads `prod_6_myapp`, `dev_…` or `pub_…`.
    fn parse(name: &str) -> Result<Container, BadContainerName> {
        let (app, app_name) = naming::parse_container(name)?;
        let channel = match name.trim_start_matches('/').starts_with("pub_") {
            true => Channel::Publication,
            false => Channel::App,
        };
        Ok(Container::on(channel, app, &app_name))
    }

    fn on(channel: Channel, app: AppId, app_name: &str) -> Container {
        Container {
            app,
            app_name: app_name.to_owned(),
            channel,
            name: match channel {
                Channel::App => naming::container(app, app_name),
                Channel::Publication => naming::publish_channel(app.key, app_name),
            },
        }
    }

    /// Whether its history belongs into the database.
    fn is_stored(&self) -> bool {
        self.channel == Channel::App
    }
}

#[cfg(test)]
mod tests;
