//! A session that comes back: joins, re-establishes what it is to have in the right order, and says what it lost.
//!
//! Testament, registrations, subscriptions, then the word that it is connected (`wamp-interop.md` rule 25). Everything
//! else that a session had is gone with it, pending calls first of all; whoever uses the component hears of each of
//! those moments through its observer.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    CallOptions, ClientConfig, CloseReason, ConnectError, Event, Handler, RegisterOptions, Registration,
    RequestError, Session, SubscribeOptions, Subscription,
};
use crate::payload::Payload;
use crate::uri;
use crate::value::{Dict, Value};

/// How long to wait between attempts. Every delay is shortened by up to a half at random, one after a refusal lengthened,
/// so that many clients of one router do not come back at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; doubled after each further one.
    pub first: Duration,
    /// Where doubling ends.
    pub most: Duration,
    /// After a refusal that time alone seldom mends: wrong credentials, no such realm (`wamp-interop.md` rule 20).
    pub refused: Duration,
}

impl Default for Backoff {
    /// 1 s, doubled up to a minute; 5 minutes after a refusal.
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_secs(1),
            most: Duration::from_secs(60),
            refused: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The delay after `failures` in a row; `random` from 0 to 1.
    fn delay(self, failures: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.most).mul_f64(1.0 - random / 2.0)
    }

    /// The same after a refusal.
    fn delay_refused(self, failures: u32, random: f64) -> Duration {
        let refused = self.refused.saturating_add(self.refused.mul_f64(random / 2.0));
        refused.max(self.delay(failures, random))
    }

    fn after(self, failures: u32) -> Duration {
        self.delay(failures, fastrand::f64())
    }
}

/// What to do when somebody else has the procedure already (`procedure_already_exists`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Taken {
    /// Try again later, as long as the session lasts.
    #[default]
    Retry,
    /// Take it from them. Against a twin that does the same this ends after [`EVICTIONS`] losses.
    Force,
    /// Do without until the next session.
    GiveUp,
}

/// How often a procedure that was taken from us is registered again in one session.
pub const EVICTIONS: u32 = 5;

/// A session that has lasted this long was a good one: the next delay starts from the beginning.
const STABLE: Duration = Duration::from_secs(30);

/// What a component tells its observer.
#[derive(Clone, Debug)]
pub enum Report {
    /// No session came about.
    Unreachable {
        error: Arc<ConnectError>,
        retry_in: Duration,
    },
    /// Everything is in place but what is listed, by its URI.
    Connected {
        session: Session,
        refused: Vec<(String, RequestError)>,
    },
    /// A procedure that was refused or lost at first is registered now.
    Registered { procedure: String },
    /// A procedure was not registered, or somebody took it from us. `None`: not tried again in this session.
    Unregistered {
        procedure: String,
        retry_in: Option<Duration>,
    },
    /// The router has taken a subscription from us; it comes back with the next session.
    Unsubscribed { topic: String },
    /// The session is gone, and with it every pending call; events published until the next [`Report::Connected`] are
    /// missed.
    Lost { reason: CloseReason, retry_in: Duration },
    /// [`Component::run`] is about to return.
    Stopped,
}

type EventHandler = Arc<dyn Fn(Event) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

#[derive(Clone)]
struct Procedure {
    uri: String,
    options: RegisterOptions,
    taken: Taken,
    handler: Handler,
}

#[derive(Clone)]
struct Topic {
    uri: String,
    options: SubscribeOptions,
    handler: EventHandler,
}

/// Something that is to be at a router all the time.
#[derive(Clone)]
pub struct Component {
    config: ClientConfig,
    backoff: Backoff,
    testament: Option<(String, Payload)>,
    procedures: Vec<Procedure>,
    topics: Vec<Topic>,
}

impl std::fmt::Debug for Component {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Component")
            .field("url", &self.config.url)
            .field("realm", &self.config.realm)
            .finish_non_exhaustive()
    }
}

impl Component {
    /// A component that has nothing yet.
    pub fn new(config: ClientConfig) -> Component {
        Component {
            config,
            backoff: Backoff::default(),
            testament: None,
            procedures: Vec::new(),
            topics: Vec::new(),
        }
    }

    /// Other delays than the default ones.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Component {
        self.backoff = backoff;
        self
    }

    /// What the router publishes when the session is lost; taken back when the component stops.
    #[must_use]
    pub fn testament(mut self, topic: impl Into<String>, payload: Payload) -> Component {
        self.testament = Some((topic.into(), payload));
        self
    }

    /// A procedure to offer.
    #[must_use]
    pub fn register(
        mut self,
        uri: impl Into<String>,
        options: RegisterOptions,
        taken: Taken,
        handler: Handler,
    ) -> Component {
        self.procedures.push(Procedure {
            uri: uri.into(),
            options,
            taken,
            handler,
        });
        self
    }

    /// A topic to listen to. Events of one topic are handled one after the other, also after a panic of the handler; when
    /// it is [`EVENT_QUEUE`](super::EVENT_QUEUE) behind, [`Event::missed`] says how many were dropped, if need be in an
    /// event that says nothing else ([`Event::is_notice`]).
    #[must_use]
    pub fn subscribe<F, Fut>(
        mut self,
        uri: impl Into<String>,
        options: impl Into<SubscribeOptions>,
        handler: F,
    ) -> Component
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.topics.push(Topic {
            uri: uri.into(),
            options: options.into(),
            handler: Arc::new(move |event| Box::pin(handler(event))),
        });
        self
    }

    /// Joins and comes back until `stop`, then leaves in good order. `observer` is called in between, so it must not
    /// block. Dropping the future drops the session.
    pub async fn run(self, stop: CancellationToken, mut observer: impl FnMut(Report) + Send) {
        let mut failures = 0;
        loop {
            let joined = tokio::select! {
                joined = Session::connect(&self.config) => joined,
                () = stop.cancelled() => break,
            };
            let retry_in = match joined {
                Err(error) => {
                    failures += 1;
                    let retry_in = if is_refusal(&error) {
                        self.backoff.delay_refused(failures, fastrand::f64())
                    } else {
                        self.backoff.after(failures)
                    };
                    observer(Report::Unreachable {
                        error: Arc::new(error),
                        retry_in,
                    });
                    retry_in
                }
                Ok(session) => {
                    let begun = Instant::now();
                    let ended = tokio::select! {
                        reason = self.serve(&session, &mut observer) => Some(reason),
                        () = stop.cancelled() => None,
                    };
                    let Some(reason) = ended else {
                        self.leave(&session).await;
                        break;
                    };
                    failures = if begun.elapsed() >= STABLE {
                        1
                    } else {
                        failures + 1
                    };
                    let retry_in = self.backoff.after(failures);
                    observer(Report::Lost { reason, retry_in });
                    retry_in
                }
            };
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                () = stop.cancelled() => break,
            }
        }
        observer(Report::Stopped);
    }

    /// Routers publish a testament after GOODBYE, too (`wamp-interop.md` 3.5), so it is flushed first.
    async fn leave(&self, session: &Session) {
        if self.testament.is_some() {
            let scope = Dict::from([("scope".to_owned(), Value::from("destroyed"))]);
            let bound = CallOptions::timeout(session.reply_timeout());
            let flushed = session
                .call(
                    "wamp.session.flush_testaments",
                    Payload::from_kwargs(scope),
                    bound,
                )
                .await;
            if let Err(error) = flushed {
                tracing::debug!(%error, "the testament stays");
            }
        }
        session.leave().await;
    }

    /// Puts everything in place and keeps it there; answers why the session ended.
    async fn serve(&self, session: &Session, observer: &mut impl FnMut(Report)) -> CloseReason {
        let mut refused = Vec::new();
        if let Some((topic, payload)) = &self.testament
            && let Err(error) = bequeath(session, topic, payload).await
        {
            refused.push((topic.clone(), error));
        }
        let mut posts = Vec::new();
        let registering = self
            .procedures
            .iter()
            .map(|procedure| register(session, procedure));
        for (procedure, outcome) in self.procedures.iter().zip(join_all(registering).await) {
            let mut post = Post {
                procedure,
                backoff: self.backoff,
                failures: 0,
                evictions: 0,
                holds: None,
                due: None,
            };
            if let Some(error) = post.settle(outcome) {
                refused.push((procedure.uri.clone(), error));
            }
            posts.push(post);
        }
        // Ends with this future: events that nobody takes any more are of no use.
        let mut listeners = JoinSet::new();
        let subscribing = self
            .topics
            .iter()
            .map(|topic| session.subscribe(&topic.uri, topic.options.clone()));
        for (topic, outcome) in self.topics.iter().zip(join_all(subscribing).await) {
            match outcome {
                Ok(subscription) => {
                    let (uri, handler) = (topic.uri.clone(), Arc::clone(&topic.handler));
                    listeners.spawn(async move {
                        listen(subscription, handler).await;
                        uri
                    });
                }
                Err(error) => refused.push((topic.uri.clone(), error)),
            }
        }
        if session.is_open() {
            observer(Report::Connected {
                session: session.clone(),
                refused,
            });
        }
        let mut posts: FuturesUnordered<_> = posts.into_iter().map(|post| post.change(session)).collect();
        loop {
            tokio::select! {
                biased;
                reason = session.closed() => return reason,
                Some((post, change)) = posts.next() => {
                    if let Some(report) = change {
                        observer(report);
                    }
                    posts.push(post.change(session));
                }
                Some(Ok(topic)) = listeners.join_next() => observer(Report::Unsubscribed { topic }),
            }
        }
    }
}

/// Refused for a reason that a second attempt seldom changes.
fn is_refusal(error: &ConnectError) -> bool {
    let ConnectError::Aborted { reason, .. } = error else {
        return false;
    };
    error.is_credential_failure()
        || [uri::error::NO_SUCH_REALM, uri::error::NO_SUCH_PROCEDURE].contains(&reason.as_str())
}

async fn bequeath(session: &Session, topic: &str, payload: &Payload) -> Result<(), RequestError> {
    let decoded = |error: crate::codec::CodecError| RequestError::Encode(error.to_string());
    let args = vec![
        Value::from(topic),
        Value::List(payload.args().map_err(decoded)?),
        Value::Dict(payload.kwargs().map_err(decoded)?),
    ];
    let payload = Payload::from_parts(args, Dict::new());
    let bound = CallOptions::timeout(session.reply_timeout());
    session
        .call("wamp.session.add_testament", payload, bound)
        .await
        .map(drop)
}

async fn register(session: &Session, procedure: &Procedure) -> Result<Registration, RequestError> {
    let mut options = procedure.options.clone();
    options.force_reregister |= procedure.taken == Taken::Force;
    session
        .register(&procedure.uri, options, Arc::clone(&procedure.handler))
        .await
}

async fn listen(mut subscription: Subscription, handler: EventHandler) {
    while let Some(event) = subscription.events.recv().await {
        // The handler itself may panic, not only its future. The events that follow are not to be lost over it.
        let handled = AssertUnwindSafe(async { handler(event).await }).catch_unwind();
        if handled.await.is_err() {
            tracing::error!(subscription = subscription.id, "the handler of an event panicked");
        }
    }
}

/// One procedure during one session.
struct Post<'c> {
    procedure: &'c Procedure,
    backoff: Backoff,
    /// Attempts in a row that gave nothing.
    failures: u32,
    /// How often somebody has taken it from us.
    evictions: u32,
    holds: Option<Registration>,
    /// When to try again.
    due: Option<Instant>,
}

impl Post<'_> {
    /// Takes the outcome of an attempt in; the error, if there was one.
    fn settle(&mut self, outcome: Result<Registration, RequestError>) -> Option<RequestError> {
        let error = match outcome {
            Ok(registration) => {
                self.failures = 0;
                self.due = None;
                self.holds = Some(registration);
                return None;
            }
            Err(error) => error,
        };
        self.failures += 1;
        self.due = self.is_worth_a_retry(&error).then(|| {
            // Never sooner than before, whatever was the reason.
            Instant::now() + self.backoff.after(self.failures + self.evictions)
        });
        Some(error)
    }

    fn is_worth_a_retry(&self, error: &RequestError) -> bool {
        match error {
            RequestError::Timeout(_) => true,
            RequestError::Peer(error) if error.uri == uri::error::PROCEDURE_ALREADY_EXISTS => {
                self.procedure.taken != Taken::GiveUp
            }
            // A right that we do not have, a name that the router does not like: asking again changes nothing.
            RequestError::ConnectionLost
            | RequestError::Cancelled
            | RequestError::InvalidUri(_)
            | RequestError::TooLarge(_)
            | RequestError::NotSupported(_)
            | RequestError::Encode(_)
            | RequestError::Unexpected(_)
            | RequestError::Peer(_) => false,
        }
    }

    /// Waits for the next thing to happen to the procedure, and deals with it.
    async fn change(mut self, session: &Session) -> (Self, Option<Report>) {
        let procedure = self.procedure.uri.clone();
        if let Some(held) = self.holds.take() {
            held.revoked.cancelled().await;
            if !session.is_open() {
                // Lost with the session, which is told by somebody else.
                return std::future::pending().await;
            }
            self.evictions += 1;
            let again = self.procedure.taken != Taken::GiveUp && self.evictions <= EVICTIONS;
            let retry_in = again.then(|| self.backoff.after(self.evictions));
            self.due = retry_in.map(|delay| Instant::now() + delay);
            return (self, Some(Report::Unregistered { procedure, retry_in }));
        }
        let Some(due) = self.due else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(due).await;
        let outcome = register(session, self.procedure).await;
        let report = match self.settle(outcome) {
            None => Report::Registered { procedure },
            Some(_) => {
                let retry_in = self.due.map(|due| due.saturating_duration_since(Instant::now()));
                Report::Unregistered { procedure, retry_in }
            }
        };
        (self, Some(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most_and_lose_up_to_a_half() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            most: Duration::from_secs(10),
            refused: Duration::from_secs(100),
        };
        let full: Vec<_> = (1..7)
            .map(|failures| backoff.delay(failures, 0.0).as_secs())
            .collect();
        assert_eq!(full, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.delay(3, 1.0), Duration::from_secs(2));
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_secs(10));
    }

    #[test]
    fn refused_clients_do_not_come_back_at_the_same_moment() {
        let backoff = Backoff {
            refused: Duration::from_secs(100),
            ..Backoff::default()
        };
        assert_eq!(backoff.delay_refused(1, 0.0), Duration::from_secs(100));
        assert_eq!(backoff.delay_refused(1, 1.0), Duration::from_secs(150));
        let impatient = Backoff {
            refused: Duration::ZERO,
            ..Backoff::default()
        };
        assert_eq!(impatient.delay_refused(3, 0.0), Duration::from_secs(4));
    }

    #[test]
    fn only_refusals_that_stay_are_waited_for_longer() {
        let aborted = |reason: &str| ConnectError::Aborted {
            reason: reason.to_owned(),
            message: String::new(),
        };
        for reason in [
            "wamp.error.not_authorized",
            "wamp.error.no_such_realm",
            "wamp.error.no_such_principal",
        ] {
            assert!(is_refusal(&aborted(reason)), "{reason}");
        }
        assert!(!is_refusal(&aborted("wamp.close.system_shutdown")));
        assert!(!is_refusal(&ConnectError::Timeout("HELLO")));
    }
}
