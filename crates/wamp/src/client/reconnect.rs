//! A session that comes back: a [`Plan`] says what it has to have, a task of its own joins, re-establishes everything in
//! the right order whenever the session was lost, and reports.
//!
//! The order is that of rule 25: testament, registrations, subscriptions, then the `connected` hook. Calls are not
//! repeated, because nobody knows whether they were executed: they fail, and the caller decides.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ClientConfig, Event, Handler, RegisterOptions, Session, SubscribeOptions, Testament};

mod backoff;
mod status;
mod task;

pub use backoff::Backoff;
pub use status::{Item, Loss, Missing, MissingCause, State, Status};

/// Events of one subscription that wait for their reader, beside those that the session itself queues. When both are
/// full, events are dropped and counted in [`Event::missed`].
const FEED_QUEUE: usize = 64;

type Hook = Arc<dyn Fn(Session) -> BoxFuture<'static, ()> + Send + Sync>;

/// What to do when somebody else has the procedure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenTaken {
    /// Try again and again, with growing pauses: until a stale session of our own is gone, say.
    #[default]
    Retry,
    /// Take it away (`force_reregister`). When it is taken away from us in turn, a pause comes before the next attempt,
    /// and after five times we give up: a twin with our identity would go on for ever.
    Force,
    /// Do without until the next session.
    GiveUp,
}

/// What a subscription of a [`Plan`] gives, across sessions.
#[derive(Clone, Debug)]
pub enum Feed {
    Event(Event),
    /// The subscription was lost and is back. What was published in between is missing.
    Gap,
}

/// What a session has to have.
#[derive(Clone)]
pub struct Plan {
    config: ClientConfig,
    backoff: Backoff,
    testament: Option<Testament>,
    registrations: Vec<KeptRegistration>,
    subscriptions: Vec<KeptSubscription>,
    connected: Option<Hook>,
}

#[derive(Clone)]
struct KeptRegistration {
    procedure: String,
    options: RegisterOptions,
    when_taken: WhenTaken,
    handler: Handler,
}

#[derive(Clone)]
struct KeptSubscription {
    topic: String,
    options: SubscribeOptions,
    feed: mpsc::Sender<Feed>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let procedures = self.registrations.iter().map(|kept| &kept.procedure);
        let topics = self.subscriptions.iter().map(|kept| &kept.topic);
        formatter
            .debug_struct("Plan")
            .field("config", &self.config)
            .field("backoff", &self.backoff)
            .field("testament", &self.testament)
            .field("registrations", &procedures.collect::<Vec<_>>())
            .field("subscriptions", &topics.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// A session and nothing else.
    pub fn new(config: ClientConfig) -> Plan {
        Plan {
            config,
            backoff: Backoff::default(),
            testament: None,
            registrations: Vec::new(),
            subscriptions: Vec::new(),
            connected: None,
        }
    }

    /// The pauses between attempts, also those to get back a single registration.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Plan {
        self.backoff = backoff;
        self
    }

    /// What the router publishes when the session is lost. [`ReconnectingSession::stop`] takes it back.
    #[must_use]
    pub fn testament(mut self, testament: Testament) -> Plan {
        self.testament = Some(testament);
        self
    }

    /// Offers a procedure in every session.
    #[must_use]
    pub fn register(
        mut self,
        procedure: impl Into<String>,
        options: RegisterOptions,
        when_taken: WhenTaken,
        handler: Handler,
    ) -> Plan {
        self.registrations.push(KeptRegistration {
            procedure: procedure.into(),
            options,
            when_taken,
            handler,
        });
        self
    }

    /// Subscribes in every session. The receiver lives as long as the plan's session; dropping it ends the subscription.
    pub fn subscribe(
        &mut self,
        topic: impl Into<String>,
        options: impl Into<SubscribeOptions>,
    ) -> mpsc::Receiver<Feed> {
        let (feed, receiver) = mpsc::channel(FEED_QUEUE);
        self.subscriptions.push(KeptSubscription {
            topic: topic.into(),
            options: options.into(),
            feed,
        });
        receiver
    }

    /// Called in every session when everything else is there. Its future is dropped when the session ends.
    #[must_use]
    pub fn connected<F, Fut>(mut self, hook: F) -> Plan
    where
        F: Fn(Session) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.connected = Some(Arc::new(move |session| Box::pin(hook(session))));
        self
    }

    /// Begins to connect. Needs a tokio runtime.
    pub fn start(self) -> ReconnectingSession {
        let (sender, status) = watch::channel(Status::new());
        let stop = CancellationToken::new();
        let task = task::Task {
            plan: self,
            status: sender,
            stop: stop.clone(),
        };
        ReconnectingSession {
            status,
            task: tokio::spawn(task.run()),
            stop: stop.drop_guard(),
        }
    }
}

/// A session that comes back. Dropping it leaves the router in the background; [`ReconnectingSession::stop`] waits.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use wamp::Payload;
/// use wamp::client::reconnect::{Feed, Plan, WhenTaken};
/// use wamp::client::{CallOptions, ClientConfig, MatchPolicy, RegisterOptions, procedure};
///
/// let add = procedure(|(a, b): (i64, i64), _| async move { Ok(a + b) });
/// let mut plan = Plan::new(ClientConfig::new("wss://router.example:8080", "realm1"))
///     .register("com.example.add", RegisterOptions::default(), WhenTaken::Retry, add)
///     .connected(|session| async move { println!("session {}", session.id()) });
/// let mut news = plan.subscribe("com.example.news.", MatchPolicy::Prefix);
/// let reconnecting = plan.start();
///
/// if let Some(session) = reconnecting.session().await {
///     let arguments = Payload::of(&(1, 2))?;
///     let sum: i64 = session.call("com.example.add", arguments, CallOptions::default()).await?.payload.parse()?;
///     println!("{sum}");
/// }
/// while let Some(feed) = news.recv().await {
///     match feed {
///         Feed::Event(event) => println!("{:?}", event.payload.args()?),
///         Feed::Gap => println!("something may be missing here"),
///     }
/// }
/// reconnecting.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReconnectingSession {
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl ReconnectingSession {
    /// How things are.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// How things are from now on.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The session, as soon as it is complete; `None` when there will be none. May be abandoned and called again. What
    /// is begun with the session fails when it is lost.
    pub async fn session(&self) -> Option<Session> {
        let mut status = self.status.clone();
        let complete = status
            .wait_for(|status| match &status.state {
                State::Connected(session) => session.is_open(),
                State::Stopped => true,
                State::Connecting | State::Waiting(_) => false,
            })
            .await;
        complete.ok()?.session().cloned()
    }

    /// Takes the testament back, says GOODBYE and ends. Bounded as [`Session::leave`], with two reply timeouts more for
    /// a testament.
    pub async fn stop(self) {
        self.stop.disarm().cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task of a reconnecting session failed");
        }
    }
}
