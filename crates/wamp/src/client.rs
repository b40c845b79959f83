//! The client: one session with a router.
//!
//! [`Session::connect`] joins and returns a cloneable handle; a task of the session reads, another writes. Everything a
//! session had (registrations, subscriptions, pending calls) ends with it. A [`Component`] is what joins again and
//! re-establishes what it was told to have.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::codec::Codec;
use crate::message::Message;
use crate::payload::Payload;
#[cfg(feature = "router")]
use crate::transport::Activity;
use crate::transport::{Connection, Keepalive};
use crate::value::{Dict, Value};
use crate::{Id, uri};

mod component;
mod config;
mod error;
mod events;
mod invocation;
mod join;
// Without a router in this process there is nobody to hand messages to as they are.
#[cfg_attr(not(feature = "router"), allow(dead_code))]
mod link;
mod options;
#[cfg_attr(not(feature = "router"), allow(dead_code))]
mod outbox;
mod parts;
mod state;
mod stream;
mod task;
mod typed;

pub use crate::transport::{Proxies, TlsOptions};
pub use component::{Backoff, Component, EVICTIONS, Report, Taken};
pub use config::{ClientConfig, Credentials};
pub use error::{CloseReason, ConnectError, RequestError, WampError};
pub use events::{EVENT_QUEUE, EVENT_QUEUE_BYTES, Event, Events};
pub use invocation::{Handler, HandlerFuture, HandlerResult, Invocation, handler};
pub use options::{
    CallOptions, CancelMode, Invoke, Match, PublishOptions, Receivers, RegisterOptions, SubscribeOptions,
};
pub use parts::CallParts;
pub use stream::{CallPart, CallStream};
pub use typed::procedure;

#[cfg(feature = "router")]
pub(crate) use link::Host;
use link::{Form, Source};
use outbox::{CLOSE_TIMEOUT, Place};
use state::{Answer, HandlerSlot, Pending, Shared};
use task::SessionTask;

/// Invocations of one session that are worked on at the same time. Further ones are answered with an ERROR at once.
pub const MAX_INVOCATIONS: usize = 256;

/// Largest message that is sent, bytes, unless the router has announced a lower limit: routers drop a peer that sends a
/// larger one.
pub const MAX_SENT_MESSAGE: usize = 16 << 20;

/// A partial or final result.
#[derive(Clone, Debug)]
pub struct CallResult {
    /// RESULT details.
    pub details: Dict,
    pub payload: Payload,
}

/// A procedure of ours at the router.
#[derive(Debug)]
pub struct Registration {
    /// The router's id.
    pub id: Id,
    /// Cancelled when the router revokes the registration (rule 11) or the session ends.
    pub revoked: CancellationToken,
}

/// A subscription of ours. Dropping it does not tell the router: see [`Session::unsubscribe`].
#[derive(Debug)]
pub struct Subscription {
    /// The router's id; the same for every subscription of this session to the same topic and match policy.
    pub id: Id,
    /// Events in order. Bounded: when the receiver is [`EVENT_QUEUE`] events or [`EVENT_QUEUE_BYTES`] behind, further
    /// events are dropped, counted and announced in [`Event::missed`] of the next one. Ends with the subscription.
    pub events: Events,
}

/// Handle of a joined session. Cloneable; the session ends when [`Session::leave`] is called, the transport dies, or
/// the last handle is dropped.
#[derive(Clone)]
pub struct Session {
    handle: Arc<Handle>,
}

/// What all clones of a [`Session`] share. The session's task does not hold it, so that dropping the last one ends the
/// session.
struct Handle {
    id: Id,
    welcome: Dict,
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abort.cancel();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Session({})", self.handle.id)
    }
}

/// A request on its way. Dropped before its answer has come, it is forgotten, and a call is cancelled.
struct Outstanding {
    shared: Arc<Shared>,
    request: Id,
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.shared.abandon(self.request);
    }
}

impl Session {
    /// Dials, upgrades, joins.
    pub async fn connect(config: &ClientConfig) -> Result<Session, ConnectError> {
        let joined = join::join(config).await?;
        let Connection {
            codec,
            max_sent,
            sink,
            stream,
            activity,
        } = joined.connection;
        let ping_interval = match sink.is_raw() && cannot_be_pinged(&joined.welcome) {
            true => Duration::ZERO,
            false => config.ping_interval,
        };
        let (outbox, queue) = outbox::outbox();
        let shared = Arc::new(Shared::new(
            Form::Encoded(codec),
            max_sent.min(MAX_SENT_MESSAGE),
            config.reply_timeout,
            outbox,
        ));
        let (farewell, said) = oneshot::channel();
        let task = SessionTask {
            shared: shared.clone(),
            source: Source::Frames(stream),
            keepalive: Keepalive::new(ping_interval, activity),
            writer: tokio::spawn(queue.drain(sink, said)),
            farewell,
        };
        // Ends by itself when the transport does, and when `Handle` is dropped.
        tokio::spawn(task.run());
        Ok(Session::of(joined.session, joined.welcome, shared))
    }

    /// A session of a router in this process, which has let it in already.
    #[cfg(feature = "router")]
    pub(crate) fn hosted(id: Id, welcome: Dict, reply_timeout: Duration, host: Arc<dyn Host>) -> Session {
        let (outbox, queue) = outbox::outbox();
        let shared = Arc::new(Shared::new(Form::Plain, usize::MAX, reply_timeout, outbox));
        let (farewell, said) = oneshot::channel();
        let task = SessionTask {
            shared: shared.clone(),
            source: Source::Host(Arc::clone(&host)),
            keepalive: Keepalive::new(Duration::ZERO, Activity::default()),
            writer: tokio::spawn(queue.hand_over(host, said)),
            farewell,
        };
        tokio::spawn(task.run());
        Session::of(id, welcome, shared)
    }

    fn of(id: Id, welcome: Dict, shared: Arc<Shared>) -> Session {
        Session {
            handle: Arc::new(Handle { id, welcome, shared }),
        }
    }

    /// The session id of WELCOME.
    pub fn id(&self) -> Id {
        self.handle.id
    }

    /// Details of WELCOME.
    pub fn welcome(&self) -> &Dict {
        &self.handle.welcome
    }

    /// The codec that was agreed on; `None` when the router is in this process.
    pub fn codec(&self) -> Option<Codec> {
        self.shared().form.codec()
    }

    /// Calls a procedure and waits for the final result. Dropping the future cancels the call.
    pub async fn call(
        &self,
        uri: &str,
        payload: Payload,
        options: CallOptions,
    ) -> Result<CallResult, RequestError> {
        let (answer, answered) = oneshot::channel();
        let call = Pending::Call {
            partial: None,
            cancel: options.cancel,
            answer,
        };
        self.run_call(uri, payload, options, call, async {
            answered.await.unwrap_or(Err(RequestError::ConnectionLost))
        })
        .await
    }

    async fn run_call(
        &self,
        procedure: &str,
        payload: Payload,
        options: CallOptions,
        call: Pending,
        answer: impl Future<Output = Result<CallResult, RequestError>>,
    ) -> Result<CallResult, RequestError> {
        check_uri(procedure)?;
        let shared = self.shared();
        let payload = shared.encode_payload(&payload)?;
        let timeout = options.timeout;
        let mut details = options.into_wire();
        if matches!(call, Pending::Call { partial: Some(_), .. }) {
            details.insert("receive_progress".to_owned(), Value::Bool(true));
        }
        let procedure = procedure.to_owned();
        let exchange = async {
            let place = self.place().await?;
            let request = shared.submit(
                place,
                |request| Message::Call {
                    request,
                    options: details,
                    procedure,
                    payload,
                },
                Some(call),
            )?;
            let _outstanding = Outstanding {
                shared: Arc::clone(shared),
                request,
            };
            answer.await
        };
        match timeout {
            None => exchange.await,
            Some(bound) => tokio::time::timeout(bound, exchange)
                .await
                .unwrap_or(Err(RequestError::Timeout(bound))),
        }
    }

    /// Registers a procedure. Several may be in flight at once; answers are matched by request id.
    pub async fn register(
        &self,
        uri: &str,
        options: RegisterOptions,
        handler: Handler,
    ) -> Result<Registration, RequestError> {
        let details = options.into_wire();
        check_pattern(uri, &details)?;
        let procedure = uri.to_owned();
        self.request(
            |request| Message::Register {
                request,
                options: details,
                procedure,
            },
            |answer| Pending::Register {
                handler: HandlerSlot(handler),
                answer,
            },
        )
        .await
    }

    /// Takes a registration back. Invocations that are running are still answered.
    pub async fn unregister(&self, registration: Id) -> Result<(), RequestError> {
        self.request(
            |request| Message::Unregister {
                request,
                registration,
            },
            |answer| Pending::Unregister { registration, answer },
        )
        .await
    }

    /// Subscribes. The options may be a [`Match`] alone.
    pub async fn subscribe(
        &self,
        topic: &str,
        options: impl Into<SubscribeOptions>,
    ) -> Result<Subscription, RequestError> {
        let options = options.into().into_wire();
        check_pattern(topic, &options)?;
        let topic = topic.to_owned();
        self.request(
            |request| Message::Subscribe {
                request,
                options,
                topic,
            },
            |answer| Pending::Subscribe { answer },
        )
        .await
    }

    /// Ends a subscription, and with it the events of every [`Subscription`] that has this id.
    pub async fn unsubscribe(&self, subscription: Id) -> Result<(), RequestError> {
        self.request(
            |request| Message::Unsubscribe {
                request,
                subscription,
            },
            |answer| Pending::Unsubscribe { subscription, answer },
        )
        .await
    }

    /// Publishes without acknowledgement. Waits only for a place in the send queue.
    pub async fn publish(
        &self,
        topic: &str,
        options: impl Into<PublishOptions>,
        payload: Payload,
    ) -> Result<(), RequestError> {
        check_uri(topic)?;
        let options = options.into().into_wire();
        let shared = self.shared();
        let payload = shared.encode_payload(&payload)?;
        let topic = topic.to_owned();
        let place = self.place().await?;
        shared.submit(
            place,
            |request| Message::Publish {
                request,
                options,
                topic,
                payload,
            },
            None,
        )?;
        Ok(())
    }

    /// Publishes with `acknowledge: true` and waits for PUBLISHED.
    pub async fn publish_acknowledged(
        &self,
        topic: &str,
        options: impl Into<PublishOptions>,
        payload: Payload,
    ) -> Result<Id, RequestError> {
        let bound = self.shared().reply_timeout;
        self.publish_acknowledged_within(bound, topic, options, payload)
            .await
    }

    /// The same with a bound of its own, for publications that a slow router may still take.
    pub async fn publish_acknowledged_within(
        &self,
        bound: Duration,
        topic: &str,
        options: impl Into<PublishOptions>,
        payload: Payload,
    ) -> Result<Id, RequestError> {
        check_uri(topic)?;
        let mut options = options.into().into_wire();
        let payload = self.shared().encode_payload(&payload)?;
        options.insert("acknowledge".to_owned(), Value::Bool(true));
        let topic = topic.to_owned();
        self.request_within(
            bound,
            |request| Message::Publish {
                request,
                options,
                topic,
                payload,
            },
            |answer| Pending::Publish { answer },
        )
        .await
    }

    /// Bound for every reply of the router.
    fn reply_timeout(&self) -> Duration {
        self.shared().reply_timeout
    }

    /// Whether the session is still up.
    pub fn is_open(&self) -> bool {
        self.shared().is_open()
    }

    /// Resolves when the session has ended, with the reason. May be called any number of times.
    pub async fn closed(&self) -> CloseReason {
        let mut ended = self.shared().ended.subscribe();
        let reason = ended
            .wait_for(Option::is_some)
            .await
            .expect("the sender lives as long as this handle");
        reason.clone().expect("waited for")
    }

    /// GOODBYE, bounded wait for the router's, WebSocket close. Idempotent. Takes at most two reply timeouts, and
    /// a second for the close handshake.
    pub async fn leave(&self) {
        let shared = self.shared();
        let bound = shared.reply_timeout * 2;
        shared.say_goodbye(&Message::Goodbye {
            details: Dict::new(),
            reason: uri::close::CLOSE_REALM.to_owned(),
        });
        if tokio::time::timeout(bound, self.closed()).await.is_err() {
            tracing::debug!("the router does not answer GOODBYE");
            shared.abort.cancel();
        }
        // Bounded by the close handshake, or at once after the abort.
        if tokio::time::timeout(CLOSE_TIMEOUT * 2, shared.finished.cancelled())
            .await
            .is_err()
        {
            shared.abort.cancel();
        }
    }

    /// Drops the transport at once, without GOODBYE.
    pub fn abort(&self) {
        self.shared().abort.cancel();
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    async fn place(&self) -> Result<Place, RequestError> {
        self.shared()
            .outbox
            .place()
            .await
            .ok_or(RequestError::ConnectionLost)
    }

    /// Sends a request and waits for its answer, both together for one reply timeout.
    async fn request<T>(
        &self,
        build: impl FnOnce(Id) -> Message,
        pending: impl FnOnce(Answer<T>) -> Pending,
    ) -> Result<T, RequestError> {
        self.request_within(self.shared().reply_timeout, build, pending)
            .await
    }

    async fn request_within<T>(
        &self,
        bound: Duration,
        build: impl FnOnce(Id) -> Message,
        pending: impl FnOnce(Answer<T>) -> Pending,
    ) -> Result<T, RequestError> {
        let shared = self.shared();
        let exchange = async {
            let (answer, answered) = oneshot::channel();
            let place = self.place().await?;
            let request = shared.submit(place, build, Some(pending(answer)))?;
            let _outstanding = Outstanding {
                shared: Arc::clone(shared),
                request,
            };
            answered.await.unwrap_or(Err(RequestError::ConnectionLost))
        };
        tokio::time::timeout(bound, exchange)
            .await
            .unwrap_or(Err(RequestError::Timeout(bound)))
    }
}

/// Crossbar.io takes a PING on a RawSocket for a message of absurd length and hangs up (`wamp-interop.md` 3.8). There, TCP
/// keep-alive has to do.
fn cannot_be_pinged(welcome: &Dict) -> bool {
    welcome.contains_key("x_cb_node")
}

fn check_uri(uri: &str) -> Result<(), RequestError> {
    match uri::is_loose(uri) {
        true => Ok(()),
        false => Err(RequestError::InvalidUri(uri.to_owned())),
    }
}

/// With a match policy other than `exact` components may be empty.
fn check_pattern(uri: &str, options: &Dict) -> Result<(), RequestError> {
    match options.get("match").and_then(Value::as_str) {
        None | Some("exact") => check_uri(uri),
        Some(_) if uri::is_loose_pattern(uri) => Ok(()),
        Some(_) => Err(RequestError::InvalidUri(uri.to_owned())),
    }
}
