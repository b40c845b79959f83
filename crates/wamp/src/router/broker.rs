//! The broker: subscriptions and publications.
//!
//! Every matching subscription gives one EVENT with the publication's id, shared by all its receivers. Contract:
//! `wamp-interop.md` 3.4 and the cases R-P1 to R-P10.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::audience::Audience;
use super::directory::is_reserved;
use super::outbox::SharedEvent;
use super::pattern::MatchPolicy;
use super::permission::{Action, Rights};
use super::realm::Realm;
use super::refusal::{Refusal, choice, flag};
use super::retained::{Keeping, RetainedEvent};
use super::session::Session;
use super::testament::Testament;
use crate::message::{Message, code};
use crate::payload::Payload;
use crate::uri::error;
use crate::value::{Dict, Value};
use crate::{Id, MAX_ID};

/// The sessions behind a subscription.
pub(super) type Subscribers = BTreeSet<Id>;

/// A subscription or registration that a meta event is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'p> {
    policy: MatchPolicy,
    uri: &'p str,
    either: [Action; 2],
}

impl<'p> About<'p> {
    pub(super) fn subscription(policy: MatchPolicy, uri: &'p str) -> About<'p> {
        About {
            policy,
            uri,
            either: [Action::Publish, Action::Subscribe],
        }
    }

    pub(super) fn registration(policy: MatchPolicy, uri: &'p str) -> About<'p> {
        About {
            policy,
            uri,
            either: [Action::Call, Action::Register],
        }
    }

    /// Whether a session with these rights could take part.
    pub(super) fn concerns(&self, rights: &Rights) -> bool {
        rights.concerns(self.policy, self.uri, self.either)
    }
}

/// A publication on its way to the matching subscriptions.
struct Publication<'p> {
    id: Id,
    topic: &'p str,
    /// Never gets the event: the publisher, unless it wants to.
    skip: Option<Id>,
    audience: &'p Audience,
    /// What a meta event is about: only sessions that this concerns get it.
    about: Option<About<'p>>,
    /// Identity of the publisher, if disclosed.
    details: Dict,
    payload: Payload,
}

impl Realm {
    /// SUBSCRIBE.
    pub(super) fn subscribe(
        &mut self,
        session: Id,
        request: Id,
        options: &Dict,
        topic: String,
    ) -> Result<(), Refusal> {
        let policy = choice(options, "match", MatchPolicy::Exact, MatchPolicy::from_name)?;
        let get_retained = flag(options, "get_retained")?.unwrap_or(false);
        if !policy.accepts(&topic, self.uris) {
            return Err(Refusal::uri(&topic));
        }
        let Some(subscriber) = self.sessions.get(&session) else {
            return Ok(());
        };
        if !subscriber.rights.allows(Action::Subscribe, &topic) {
            return Err(self.not_authorized(session, Action::Subscribe, &topic));
        }
        let existing = self.subscriptions.find(policy, &topic);
        let most = self.limits.max_subscriptions;
        let owned = existing.is_some_and(|id| subscriber.subscriptions.contains(&id));
        if subscriber.subscriptions.len() >= most && !owned {
            return Err(Refusal::limit(
                error::RUNTIME_ERROR,
                format!("a session has {most} subscriptions at most"),
            ));
        }
        let subscription = existing.unwrap_or_else(|| {
            self.subscriptions
                .create(policy, topic, Subscribers::new(), &mut self.random)
        });
        let mut joined = false;
        if let Some(entry) = self.subscriptions.get_mut(subscription) {
            joined = entry.members.insert(session);
        }
        if let Some(subscriber) = self.sessions.get_mut(&session) {
            subscriber.subscriptions.insert(subscription);
        }
        self.outbox.send(
            session,
            Message::Subscribed {
                request,
                subscription,
            },
        );
        if get_retained {
            self.send_retained(session, subscription);
        }
        if existing.is_none() {
            self.subscription_created(session, subscription);
        }
        if joined {
            self.subscription_event("wamp.subscription.on_subscribe", session, subscription);
        }
        Ok(())
    }

    /// Sends a subscriber the retained events of its subscription that it would have got had it been there.
    fn send_retained(&mut self, receiver: Id, subscription: Id) {
        let (Some(session), Some(entry)) =
            (self.sessions.get(&receiver), self.subscriptions.get(subscription))
        else {
            return;
        };
        let by_pattern = entry.policy != MatchPolicy::Exact;
        let admits = |topic: &str, event: &RetainedEvent| {
            event.skip != Some(receiver)
                && (!by_pattern || session.rights.allows(Action::Subscribe, topic))
                && event.audience.admits(receiver, &session.identity)
        };
        for (topic, event) in self.retained.matching(entry.policy, &entry.uri, admits) {
            let mut details = event.details.clone();
            details.insert("retained".to_owned(), true.into());
            if by_pattern {
                details.insert("topic".to_owned(), topic.into());
            }
            self.outbox.send(
                receiver,
                Message::Event {
                    subscription,
                    publication: event.publication,
                    details,
                    payload: event.payload.clone(),
                },
            );
        }
    }

    /// UNSUBSCRIBE.
    pub(super) fn unsubscribe(&mut self, session: Id, request: Id, subscription: Id) -> Result<(), Refusal> {
        let owned = self
            .sessions
            .get_mut(&session)
            .is_some_and(|session| session.subscriptions.remove(&subscription));
        if !owned {
            return Err(Refusal::error(
                error::NO_SUCH_SUBSCRIPTION,
                format!("this session has no subscription {subscription}"),
            ));
        }
        let details = Dict::new();
        self.outbox
            .send(session, Message::Unsubscribed { request, details });
        self.outbox.forget(session, subscription);
        self.drop_subscriber(subscription, session);
        Ok(())
    }

    /// Takes from a session the subscriptions that it may not have any more; UNSUBSCRIBED with request id 0 says so.
    pub(super) fn revoke_subscriptions(&mut self, session: Id) {
        let Some(subscriber) = self.sessions.get_mut(&session) else {
            return;
        };
        let mut revoked = Vec::new();
        for id in &subscriber.subscriptions {
            if let Some(entry) = self.subscriptions.get(*id)
                && !subscriber.rights.allows(Action::Subscribe, &entry.uri)
            {
                revoked.push(*id);
            }
        }
        for subscription in revoked {
            self.revoke_subscription(session, subscription, error::NOT_AUTHORIZED);
        }
    }

    /// Takes a subscription from a session and tells it; `false` when it has no such subscription.
    pub(super) fn revoke_subscription(&mut self, session: Id, subscription: Id, reason: &str) -> bool {
        let owned = self
            .sessions
            .get_mut(&session)
            .is_some_and(|session| session.subscriptions.remove(&subscription));
        if owned {
            let details = Dict::from([
                ("subscription".to_owned(), Value::Uint(subscription)),
                ("reason".to_owned(), reason.into()),
            ]);
            self.outbox
                .send(session, Message::Unsubscribed { request: 0, details });
            self.outbox.forget(session, subscription);
            self.drop_subscriber(subscription, session);
        }
        owned
    }

    /// Removes a subscriber from a subscription, and the subscription with its last subscriber. The session's own list
    /// is the caller's business.
    pub(super) fn drop_subscriber(&mut self, subscription: Id, subscriber: Id) {
        let Some(entry) = self.subscriptions.get_mut(subscription) else {
            return;
        };
        entry.members.remove(&subscriber);
        let last = entry.members.is_empty();
        self.subscription_event("wamp.subscription.on_unsubscribe", subscriber, subscription);
        if last {
            self.subscription_event("wamp.subscription.on_delete", subscriber, subscription);
            self.subscriptions.remove(subscription);
        }
    }

    /// PUBLISH. Without `acknowledge` the publisher never hears of it, not even why it was refused.
    pub(super) fn publish(
        &mut self,
        session: Id,
        request: Id,
        options: &Dict,
        topic: &str,
        payload: Payload,
    ) -> Result<(), Refusal> {
        let acknowledge = options
            .get("acknowledge")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        match self.publish_for(session, options, topic, payload) {
            Ok(publication) if acknowledge => {
                let message = Message::Published { request, publication };
                self.outbox.send(session, message);
                Ok(())
            }
            Err(refusal) if acknowledge => Err(refusal),
            Err(refusal) => {
                self.note_refusal(session, code::PUBLISH, &refusal);
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    fn publish_for(
        &mut self,
        publisher: Id,
        options: &Dict,
        topic: &str,
        payload: Payload,
    ) -> Result<Id, Refusal> {
        if !self.uris.accepts(topic) || is_reserved(topic) {
            return Err(Refusal::uri(topic));
        }
        let Some(session) = self.sessions.get(&publisher) else {
            return Ok(0);
        };
        if !session.rights.allows(Action::Publish, topic) {
            return Err(self.not_authorized(publisher, Action::Publish, topic));
        }
        let audience = Audience::from_options(options)?;
        let retain = flag(options, "retain")?.unwrap_or(false);
        let id = self.random.u64(1..=MAX_ID);
        let publication = Publication {
            id,
            topic,
            skip: (!audience.include_publisher).then_some(publisher),
            audience: &audience,
            about: None,
            details: publisher_details(publisher, session, topic),
            payload,
        };
        self.route(&publication);
        if retain {
            self.retain(&publication);
        }
        Ok(id)
    }

    /// Keeps a publication for subscribers to come.
    fn retain(&mut self, publication: &Publication<'_>) {
        let event = RetainedEvent {
            publication: publication.id,
            skip: publication.skip,
            audience: publication.audience.clone(),
            details: publication.details.clone(),
            payload: publication.payload.clone(),
        };
        match self.retained.keep(publication.topic, event) {
            Keeping::Kept { gone } => self.tally.replaced_retained += gone,
            Keeping::TooLarge => self.tally.limited_requests += 1,
        }
    }

    /// Publishes the testament of a session that is no longer in the realm.
    pub(super) fn publish_testament(&mut self, publisher: Id, session: &Session, testament: Testament) {
        let publication = Publication {
            id: testament.publication,
            topic: &testament.topic,
            skip: Some(publisher),
            audience: &testament.audience,
            about: None,
            details: publisher_details(publisher, session, &testament.topic),
            payload: testament.payload,
        };
        self.route(&publication);
        if testament.retain {
            self.retain(&publication);
        }
    }

    /// Publishes an event of the router itself, to those whom it concerns if it is about something. The arguments are
    /// built only if somebody listens.
    pub(super) fn publish_meta(
        &mut self,
        topic: &'static str,
        about: Option<About<'_>>,
        args: impl FnOnce() -> Vec<Value>,
    ) {
        let mut matched = std::mem::take(&mut self.matched);
        self.subscriptions.all(topic, &mut matched);
        let nobody = matched.is_empty();
        matched.clear();
        self.matched = matched;
        if nobody {
            return;
        }
        let id = self.random.u64(1..=MAX_ID);
        self.route(&Publication {
            id,
            topic,
            skip: None,
            audience: &Audience::default(),
            about,
            details: Dict::new(),
            payload: Payload::from_args(args()),
        });
    }

    /// Sends a publication to the subscribers of every matching subscription.
    fn route(&mut self, publication: &Publication<'_>) {
        let mut matched = std::mem::take(&mut self.matched);
        self.subscriptions.all(publication.topic, &mut matched);
        for subscription in matched.drain(..) {
            self.deliver(subscription, publication);
        }
        self.matched = matched;
    }

    fn deliver(&mut self, subscription: Id, publication: &Publication<'_>) {
        let Some(entry) = self.subscriptions.get(subscription) else {
            return;
        };
        let by_pattern = entry.policy != MatchPolicy::Exact;
        let mut event = None;
        for &receiver in &entry.members {
            if publication.skip == Some(receiver) {
                continue;
            }
            if by_pattern || publication.about.is_some() || !publication.audience.is_everybody() {
                let Some(session) = self.sessions.get(&receiver) else {
                    continue;
                };
                // A pattern may cover topics that the subscriber's role may not see.
                let visible = (!by_pattern || session.rights.allows(Action::Subscribe, publication.topic))
                    && publication
                        .about
                        .is_none_or(|about| about.concerns(&session.rights));
                if !visible || !publication.audience.admits(receiver, &session.identity) {
                    continue;
                }
            }
            let event = event.get_or_insert_with(|| publication.event(subscription, by_pattern));
            self.outbox.send_event(receiver, event);
        }
    }

    fn subscription_created(&mut self, session: Id, subscription: Id) {
        let Some(entry) = self.subscriptions.get(subscription) else {
            return;
        };
        if entry.is_hidden() {
            return;
        }
        let (details, policy, uri) = (entry.details(), entry.policy, entry.uri.clone());
        let about = About::subscription(policy, &uri);
        self.publish_meta("wamp.subscription.on_create", Some(about), || {
            vec![Value::Uint(session), details.into()]
        });
    }

    fn subscription_event(&mut self, topic: &'static str, session: Id, subscription: Id) {
        let Some(entry) = self.subscriptions.get(subscription) else {
            return;
        };
        if entry.is_hidden() {
            return;
        }
        let (policy, uri) = (entry.policy, entry.uri.clone());
        let about = About::subscription(policy, &uri);
        self.publish_meta(topic, Some(about), || {
            vec![Value::Uint(session), Value::Uint(subscription)]
        });
    }
}

impl Publication<'_> {
    fn event(&self, subscription: Id, by_pattern: bool) -> Arc<SharedEvent> {
        let mut details = self.details.clone();
        if by_pattern {
            details.insert("topic".to_owned(), self.topic.into());
        }
        Arc::new(SharedEvent::new(Message::Event {
            subscription,
            publication: self.id,
            details,
            payload: self.payload.clone(),
        }))
    }
}

/// What an EVENT says about the publisher: nothing unless the publisher's role discloses it for this topic.
fn publisher_details(id: Id, session: &Session, topic: &str) -> Dict {
    if !session.rights.discloses(topic) {
        return Dict::new();
    }
    Dict::from([
        ("publisher".to_owned(), Value::Uint(id)),
        (
            "publisher_authid".to_owned(),
            session.identity.authid.as_str().into(),
        ),
        (
            "publisher_authrole".to_owned(),
            session.identity.authrole.as_str().into(),
        ),
    ])
}
