//! The task behind a reconnecting session: joins, re-establishes in the order of rule 25, keeps, and waits.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Pauses;
use super::status::{Item, Loss, Missing, MissingCause, State, Status};
use super::{Feed, KeptRegistration, KeptSubscription, Plan, WhenTaken};
use crate::client::{CloseReason, Registration, RequestError, Session, Subscription};
use crate::uri::error;

/// Requests of one kind that wait for an answer at the same time while a session is set up: some routers lose answers
/// beyond a few hundred.
const IN_FLIGHT: usize = 32;

/// Times that something may be taken away from us before we leave it to whoever wants it that much. The count starts
/// again when we have had it for [`HELD`] times the longest pause: a twin that plays by the same rules comes back sooner.
const MAX_EVICTIONS: u32 = 5;

/// See [`MAX_EVICTIONS`].
const HELD: u32 = 10;

pub(super) struct Task {
    pub(super) plan: Plan,
    pub(super) status: watch::Sender<Status>,
    pub(super) stop: CancellationToken,
}

impl Task {
    pub(super) async fn run(self) {
        let mut pauses = Pauses::new(self.plan.backoff);
        while let Some(pause) = self.once(&mut pauses).await {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.status.send_modify(|status| {
            status.state = State::Stopped;
            status.missing.clear();
        });
    }

    /// One attempt and, if it succeeds, one session. Gives the pause before the next; `None` when there is to be none.
    async fn once(&self, pauses: &mut Pauses) -> Option<Duration> {
        self.status.send_modify(|status| status.state = State::Connecting);
        let joined = tokio::select! {
            () = self.stop.cancelled() => return None,
            joined = Session::connect(&self.plan.config) => joined,
        };
        let session = match joined {
            Ok(session) => session,
            Err(error) => {
                let pause = pauses.after_refusal(&error);
                tracing::info!(%error, ?pause, "no session");
                self.status.send_modify(|status| {
                    status.state = State::Waiting(pause);
                    status.last_failure = Some(Arc::new(error));
                });
                return Some(pause);
            }
        };
        let begin = Instant::now();
        self.status.send_modify(|status| status.sessions += 1);
        let reason = tokio::select! {
            () = self.stop.cancelled() => {
                self.leave(&session).await;
                return None;
            }
            reason = self.live(&session) => reason,
        };
        let pause = pauses.after_session(begin.elapsed());
        tracing::info!(?reason, ?pause, "session lost");
        self.status.send_modify(|status| {
            status.state = State::Waiting(pause);
            status.missing.clear();
            status.last_loss = Some(Loss {
                reason,
                failed_calls: session.failed_calls(),
            });
        });
        Some(pause)
    }

    /// On purpose, so that nobody need be told.
    async fn leave(&self, session: &Session) {
        if self.plan.testament.is_some()
            && let Err(error) = session.flush_testaments().await
        {
            tracing::debug!(%error, "the testament stays");
        }
        session.leave().await;
    }

    async fn live(&self, session: &Session) -> CloseReason {
        let first = self.status.borrow().sessions == 1;
        tokio::select! {
            biased;
            reason = session.closed() => reason,
            () = self.establish(session, first) => session.closed().await,
        }
    }

    async fn establish(&self, session: &Session, first: bool) {
        if let Some(testament) = &self.plan.testament
            && let Err(error) = session.add_testament(testament).await
        {
            self.lacks(Item::Testament(testament.topic.clone()), error, true);
        }
        let mut duties: Vec<BoxFuture<'_, ()>> = Vec::new();
        for some in self.plan.registrations.chunks(IN_FLIGHT) {
            let registered = join_all(some.iter().map(|kept| kept.register(session))).await;
            for (kept, registered) in some.iter().zip(registered) {
                duties.push(Box::pin(self.keep(session, kept, registered)));
            }
        }
        let wanted: Vec<_> = self
            .plan
            .subscriptions
            .iter()
            .filter(|kept| kept.is_wanted())
            .collect();
        for some in wanted.chunks(IN_FLIGHT) {
            let subscribed = join_all(some.iter().map(|kept| kept.subscribe(session))).await;
            for (kept, subscribed) in some.iter().zip(subscribed) {
                duties.push(Box::pin(self.feed(session, kept, subscribed, !first)));
            }
        }
        let mut duties = std::pin::pin!(join_all(duties));
        // Once around, so that what is missing is known when we say that we are there.
        tokio::select! {
            biased;
            _ = &mut duties => {}
            () = std::future::ready(()) => {}
        }
        self.status
            .send_modify(|status| status.state = State::Connected(session.clone()));
        let hook = async {
            if let Some(hook) = &self.plan.connected {
                hook(session.clone()).await;
            }
        };
        tokio::join!(hook, async { drop(duties.await) });
    }

    /// Keeps a registration for as long as the session lasts, or until it is hopeless.
    async fn keep(
        &self,
        session: &Session,
        kept: &KeptRegistration,
        mut registered: Result<Registration, RequestError>,
    ) {
        let item = || Item::Registration(kept.procedure.clone());
        let mut pauses = Pauses::new(self.plan.backoff);
        let mut evictions = Evictions::new(self.plan.backoff.cap);
        loop {
            match registered {
                Ok(registration) => {
                    self.has(&item());
                    let since = Instant::now();
                    registration.revoked.cancelled().await;
                    if !session.is_open() || !self.evicted(item(), &mut evictions, &mut pauses, since) {
                        return;
                    }
                }
                Err(error) => {
                    let hopeless = kept.is_hopeless(&error);
                    self.lacks(item(), error, hopeless);
                    if hopeless {
                        return;
                    }
                }
            }
            tokio::time::sleep(pauses.grow()).await;
            registered = kept.register(session).await;
        }
    }

    /// Hands the events of a subscription on, for as long as the session lasts and somebody wants them.
    async fn feed(
        &self,
        session: &Session,
        kept: &KeptSubscription,
        mut subscribed: Result<Subscription, RequestError>,
        mut gap: bool,
    ) {
        let item = || Item::Subscription(kept.topic.clone());
        let mut pauses = Pauses::new(self.plan.backoff);
        let mut evictions = Evictions::new(self.plan.backoff.cap);
        loop {
            match subscribed {
                Ok(mut subscription) => {
                    self.has(&item());
                    let since = Instant::now();
                    tokio::select! {
                        () = kept.feed.closed() => {
                            // What the router still sends is dropped, should it not answer.
                            drop(session.unsubscribe(subscription.id).await);
                            return;
                        }
                        () = pass_on(&mut subscription, kept, gap) => {}
                    }
                    gap = true;
                    if !session.is_open() || !self.evicted(item(), &mut evictions, &mut pauses, since) {
                        return;
                    }
                }
                Err(error) => {
                    let hopeless = is_hopeless(&error);
                    self.lacks(item(), error, hopeless);
                    if hopeless {
                        return;
                    }
                }
            }
            tokio::time::sleep(pauses.grow()).await;
            subscribed = kept.subscribe(session).await;
        }
    }

    /// Reports that something was taken away. `false` when it is not worth another attempt.
    fn evicted(&self, item: Item, evictions: &mut Evictions, pauses: &mut Pauses, since: Instant) -> bool {
        if evictions.note(since.elapsed()) {
            pauses.restart();
        }
        let given_up = evictions.count >= MAX_EVICTIONS;
        tracing::warn!(?item, given_up, "taken away by the router");
        self.status.send_modify(|status| {
            status.evictions += 1;
            status.lacks(Missing {
                item,
                cause: MissingCause::Revoked,
                given_up,
            });
        });
        !given_up
    }

    fn lacks(&self, item: Item, error: RequestError, given_up: bool) {
        // Then the session itself is the news.
        if matches!(error, RequestError::ConnectionLost) {
            return;
        }
        tracing::warn!(?item, %error, given_up, "not established");
        self.status.send_modify(|status| {
            status.lacks(Missing {
                item,
                cause: MissingCause::Refused(error),
                given_up,
            });
        });
    }

    /// Tells nobody when it was not missing.
    fn has(&self, item: &Item) {
        self.status.send_if_modified(|status| {
            let before = status.missing.len();
            status.has(item);
            status.missing.len() < before
        });
    }
}

struct Evictions {
    count: u32,
    long: Duration,
}

impl Evictions {
    fn new(longest_pause: Duration) -> Evictions {
        Evictions {
            count: 0,
            long: longest_pause.saturating_mul(HELD),
        }
    }

    /// Notes another one, of something that was held for this long. Whether the count starts again.
    fn note(&mut self, held: Duration) -> bool {
        let again = held >= self.long;
        self.count = if again { 1 } else { self.count + 1 };
        again
    }
}

/// Ends with the subscription. Waits for a slow reader: meanwhile the session drops events and counts them.
async fn pass_on(subscription: &mut Subscription, kept: &KeptSubscription, gap: bool) {
    if gap && kept.feed.send(Feed::Gap).await.is_err() {
        return std::future::pending().await;
    }
    while let Some(event) = subscription.events.recv().await {
        if kept.feed.send(Feed::Event(event)).await.is_err() {
            // The other branch ends this.
            return std::future::pending().await;
        }
    }
}

/// What another attempt in the same session would not change.
fn is_hopeless(failure: &RequestError) -> bool {
    match failure {
        RequestError::ConnectionLost
        | RequestError::InvalidUri(_)
        | RequestError::TooLarge(_)
        | RequestError::NotSupported(_)
        | RequestError::Encode(_) => true,
        RequestError::Peer(refusal) => {
            matches!(
                refusal.uri.as_str(),
                error::NOT_AUTHORIZED | error::INVALID_URI | error::INVALID_ARGUMENT
            )
        }
        RequestError::Timeout(_) | RequestError::Cancelled => false,
    }
}

fn is_taken(failure: &RequestError) -> bool {
    matches!(failure, RequestError::Peer(refusal) if refusal.uri == error::PROCEDURE_ALREADY_EXISTS)
}

impl KeptRegistration {
    fn is_hopeless(&self, failure: &RequestError) -> bool {
        match self.when_taken {
            WhenTaken::GiveUp if is_taken(failure) => true,
            WhenTaken::GiveUp | WhenTaken::Retry | WhenTaken::Force => is_hopeless(failure),
        }
    }

    /// Forces only when somebody is there, because forcing a shared registration is never answered by some routers.
    async fn register(&self, session: &Session) -> Result<Registration, RequestError> {
        let handler = || Arc::clone(&self.handler);
        let mut options = self.options.clone();
        match session
            .register(&self.procedure, options.clone(), handler())
            .await
        {
            Err(failure) if is_taken(&failure) && self.when_taken == WhenTaken::Force => {
                options.force_reregister = true;
                session.register(&self.procedure, options, handler()).await
            }
            registered => registered,
        }
    }
}

impl KeptSubscription {
    fn is_wanted(&self) -> bool {
        !self.feed.is_closed()
    }

    async fn subscribe(&self, session: &Session) -> Result<Subscription, RequestError> {
        session.subscribe(&self.topic, self.options.clone()).await
    }
}
