//! The send queue of one session: filled under the router's lock, emptied by the session's own task.
//!
//! Bounded in messages and bytes (`wamp-interop.md` 2). What others send a session unasked has three quarters of the
//! bound: an EVENT beyond is dropped and counted, an INVOCATION is refused, which its caller learns, an INTERRUPT is
//! dropped, because whoever waits for an answer gets it from the callee. The rest is for replies, so that nobody can
//! take a session's replies away by flooding it. A reply beyond the bound ends the session: lost, it would leave
//! somebody waiting for ever.
//!
//! How many EVENTs of a subscription were dropped, its next one says, in the place where they are missing. A session
//! that knows that much is told by an EVENT of its own as soon as the queue is half empty, should there be no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::outbox::{Ending, Outgoing};
use crate::Id;
use crate::message::{DROPPED, Message};
use crate::payload::Payload;
use crate::value::{Dict, Value};

/// What the session's task gets next.
#[derive(Debug)]
pub(super) enum Next {
    Message(Outgoing),
    /// A WebSocket ping, ahead of everything else.
    Ping,
    /// The last message and what to do after it. Nothing follows.
    End(Option<Message>, Ending),
    /// The queue overflowed: close the transport without a word, nobody would read it.
    Overflow,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// An EVENT that found no room.
    Dropped,
    /// An INVOCATION that found no room; its request id.
    Refused(Id),
    /// An INTERRUPT that found no room.
    Skipped,
    /// Something else found no room: the session has to end.
    Overflow,
}

#[derive(Debug)]
pub(super) struct Queue {
    max_messages: usize,
    max_bytes: usize,
    /// The session understands EVENTs that stand for none.
    tells_dropped: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    ping: bool,
    end: Option<Next>,
    /// By subscription: EVENTs dropped of which nothing was said yet.
    dropped: BTreeMap<Id, u64>,
    /// When the first of the events in a row was dropped.
    dropping_since: Option<Instant>,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Queue {
        Queue {
            max_messages,
            max_bytes,
            tells_dropped: false,
            state: Mutex::new(State {
                // For WELCOME, after which many a session only listens.
                messages: VecDeque::with_capacity(1),
                ..State::default()
            }),
        }
    }

    /// For a session that understands EVENTs that stand for none.
    pub(super) fn telling_dropped(self, tells_dropped: bool) -> Queue {
        Queue {
            tells_dropped,
            ..self
        }
    }

    /// Gives back the room that a burst of messages has taken.
    pub(super) fn release_room(&self) {
        let mut state = self.lock();
        if state.messages.is_empty() && state.messages.capacity() > 0 {
            state.messages = VecDeque::new();
        }
    }

    /// Appends a message. The waker, if there is one, is the caller's to wake once it holds no lock.
    pub(super) fn push(&self, message: Outgoing) -> (Pushed, Option<Waker>) {
        let mut state = self.lock();
        if state.end.is_some() {
            return (Pushed::Queued, None);
        }
        let weight = message.weight();
        let fits_unasked = || self.fits_unasked(&state, weight);
        let pushed = match message.message() {
            Message::Event { .. } if !fits_unasked() => Pushed::Dropped,
            Message::Invocation { request, .. } if !fits_unasked() => Pushed::Refused(*request),
            Message::Interrupt { .. } if !fits_unasked() => Pushed::Skipped,
            _ if !state.fits(weight, self.max_messages, self.max_bytes) => Pushed::Overflow,
            _ => Pushed::Queued,
        };
        if let (Pushed::Dropped, Message::Event { subscription, .. }) = (&pushed, message.message()) {
            *state.dropped.entry(*subscription).or_default() += 1;
            state.dropping_since.get_or_insert_with(Instant::now);
        }
        if pushed != Pushed::Queued {
            return (pushed, None);
        }
        let message = state.with_dropped(message);
        state.bytes += weight;
        state.messages.push_back(message);
        (Pushed::Queued, state.waker.take())
    }

    /// The EVENT that was taken last could not be given to the session. For its own task: nobody is woken.
    pub(super) fn undelivered(&self, subscription: Id, details: &Dict) {
        // What it was to say was not said either.
        let said = details.get(DROPPED).and_then(Value::as_u64).unwrap_or_default();
        let dropped = said.saturating_add(1);
        let mut state = self.lock();
        if self.tells_dropped && state.fits(0, self.max_messages, self.max_bytes) {
            let notice = Outgoing::One(notice(subscription, dropped));
            state.bytes += notice.weight();
            state.messages.push_front(notice);
        } else {
            *state.dropped.entry(subscription).or_default() += dropped;
        }
    }

    /// The session has this subscription no more: nobody waits to be told.
    pub(super) fn forget(&self, subscription: Id) {
        self.lock().dropped.remove(&subscription);
    }

    /// Ends the queue after what is in it.
    pub(super) fn end(&self, message: Option<Message>, ending: Ending) -> Option<Waker> {
        let mut state = self.lock();
        state.end.get_or_insert(Next::End(message, ending));
        state.waker.take()
    }

    /// Ends the queue at once.
    pub(super) fn overflow(&self) -> Option<Waker> {
        let mut state = self.lock();
        state.messages = VecDeque::new();
        state.end = Some(Next::Overflow);
        state.waker.take()
    }

    /// Since when events have been dropped without the queue becoming half empty; `None` when it keeps up.
    pub(super) fn dropping_since(&self) -> Option<Instant> {
        self.lock().dropping_since
    }

    /// Messages and bytes that wait.
    pub(super) fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.messages.len(), state.bytes)
    }

    /// Has a ping sent next.
    pub(super) fn ping(&self) {
        let waker = {
            let mut state = self.lock();
            state.ping = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the next message, if there is one.
    pub(super) fn try_pop(&self) -> Option<Next> {
        self.take()
    }

    /// Takes the next message, or remembers whom to wake when there is one.
    pub(super) fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.lock();
        if let Some(next) = state.pop() {
            self.note_relief(&mut state);
            return Poll::Ready(next);
        }
        state.remember(context);
        Poll::Pending
    }

    /// Ready once the queue has been ended, even if the last message is still in it.
    pub(super) fn poll_ended(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Poll::Ready(());
        }
        state.remember(context);
        Poll::Pending
    }

    /// Whether the queue has been ended, even if the last message is still in it.
    pub(super) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    fn take(&self) -> Option<Next> {
        let mut state = self.lock();
        let next = state.pop();
        self.note_relief(&mut state);
        next
    }

    /// What nobody asked for does not have all the room.
    fn fits_unasked(&self, state: &State, weight: usize) -> bool {
        let (messages, bytes) = (self.max_messages, self.max_bytes);
        state.fits(weight, messages - messages / 4, bytes - bytes / 4)
    }

    /// Once the queue is half empty, dropping is over, and what was dropped is said behind all that is in it.
    fn note_relief(&self, state: &mut State) {
        if state.messages.len() > self.max_messages / 2 || state.bytes > self.max_bytes / 2 {
            return;
        }
        state.dropping_since = None;
        while self.tells_dropped
            && state.end.is_none()
            && let Some((&subscription, &dropped)) = state.dropped.first_key_value()
        {
            let notice = Outgoing::One(notice(subscription, dropped));
            // The others as soon as there is room again.
            if !self.fits_unasked(state, notice.weight()) {
                return;
            }
            state.dropped.remove(&subscription);
            state.bytes += notice.weight();
            state.messages.push_back(notice);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A single message larger than the whole bound passes when nothing else is queued.
    fn fits(&self, weight: usize, max_messages: usize, max_bytes: usize) -> bool {
        self.messages.is_empty() || (self.messages.len() < max_messages && self.bytes + weight <= max_bytes)
    }

    /// Has an EVENT say how many of its subscription were dropped before it.
    fn with_dropped(&mut self, message: Outgoing) -> Outgoing {
        if self.dropped.is_empty() {
            return message;
        }
        let Message::Event { subscription, .. } = message.message() else {
            return message;
        };
        let Some(dropped) = self.dropped.remove(subscription) else {
            return message;
        };
        // A copy: other sessions have lost others, or none.
        let mut event = message.message().clone();
        if let Message::Event { details, .. } = &mut event {
            details.insert(DROPPED.to_owned(), Value::Uint(dropped));
        }
        Outgoing::One(event)
    }

    fn remember(&mut self, context: &mut Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    fn pop(&mut self) -> Option<Next> {
        if std::mem::take(&mut self.ping) {
            return Some(Next::Ping);
        }
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.weight().min(self.bytes);
            if self.messages.is_empty() {
                // A burst must not occupy memory for as long as the session lives.
                self.messages.shrink_to(16);
            }
            return Some(Next::Message(message));
        }
        let end = self.end.take()?;
        // Later pushes still have to see that the queue has ended.
        self.end = Some(Next::Overflow);
        Some(end)
    }
}

/// An EVENT that stands for none ([`crate::message::DROPPED_EVENTS`]).
fn notice(subscription: Id, dropped: u64) -> Message {
    Message::Event {
        subscription,
        publication: 0,
        details: Dict::from([(DROPPED.to_owned(), Value::Uint(dropped))]),
        payload: Payload::Empty,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::Message;
    use crate::router::outbox::SharedEvent;

    fn event(bytes: usize) -> Outgoing {
        event_of(1, bytes)
    }

    fn event_of(subscription: Id, bytes: usize) -> Outgoing {
        Outgoing::Event(Arc::new(SharedEvent::new(Message::Event {
            subscription,
            publication: 1,
            details: Dict::new(),
            payload: Payload::Raw {
                codec: crate::Codec::Json,
                args: vec![b' '; bytes].into(),
                kwargs: bytes::Bytes::new(),
            },
        })))
    }

    fn reply() -> Outgoing {
        Outgoing::One(Message::Published {
            request: 1,
            publication: 1,
        })
    }

    fn pop(queue: &Queue) -> Poll<Next> {
        queue.poll_pop(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn events_beyond_the_message_bound_are_dropped_and_replies_end_the_session() {
        let queue = Queue::new(2, 1 << 20);
        assert_eq!(queue.push(event(1)).0, Pushed::Queued);
        assert_eq!(queue.push(reply()).0, Pushed::Queued);
        assert_eq!(queue.push(event(1)).0, Pushed::Dropped);
        assert_eq!(queue.push(reply()).0, Pushed::Overflow);
    }

    #[test]
    fn events_beyond_the_byte_bound_are_dropped_until_there_is_room() {
        let queue = Queue::new(100, 1000);
        assert_eq!(queue.push(event(2000)).0, Pushed::Queued, "alone it passes");
        assert_eq!(queue.push(event(10)).0, Pushed::Dropped);
        assert!(matches!(pop(&queue), Poll::Ready(Next::Message(_))));
        assert_eq!(queue.push(event(10)).0, Pushed::Queued);
    }

    #[test]
    fn a_flood_of_what_nobody_asked_for_leaves_room_for_replies() {
        let queue = Queue::new(8, 1 << 20);
        let invocation = |request| {
            Outgoing::One(Message::Invocation {
                request,
                registration: 1,
                details: Dict::new(),
                payload: Payload::Empty,
            })
        };
        for request in 1..=6 {
            assert_eq!(queue.push(invocation(request)).0, Pushed::Queued);
        }
        assert_eq!(queue.push(invocation(7)).0, Pushed::Refused(7));
        let interrupt = Outgoing::One(Message::Interrupt {
            request: 1,
            options: Dict::new(),
        });
        assert_eq!(queue.push(interrupt).0, Pushed::Skipped);
        assert_eq!(queue.push(event(1)).0, Pushed::Dropped);
        assert_eq!(queue.push(reply()).0, Pushed::Queued);
        assert_eq!(queue.push(reply()).0, Pushed::Queued);
        assert_eq!(queue.push(reply()).0, Pushed::Overflow);
    }

    #[test]
    fn dropping_is_over_when_the_queue_is_half_empty() {
        let queue = Queue::new(4, 1 << 20);
        for _ in 0..3 {
            queue.push(event(1));
        }
        assert_eq!(queue.dropping_since(), None, "full is not too full");
        queue.push(event(1));
        let since = queue.dropping_since();
        assert!(since.is_some());
        queue.push(reply());
        assert!(matches!(pop(&queue), Poll::Ready(Next::Message(_))));
        assert_eq!(queue.dropping_since(), since, "one message read is no relief");
        assert!(matches!(queue.try_pop(), Some(Next::Message(_))));
        assert_eq!(queue.dropping_since(), None);
    }

    /// What is next in the queue: of an EVENT its subscription, its publication and how many were dropped before it.
    fn next_event(queue: &Queue) -> Option<(Id, Id, Option<u64>)> {
        match queue.try_pop() {
            Some(Next::Message(message)) => match message.message() {
                Message::Event {
                    subscription,
                    publication,
                    details,
                    ..
                } => {
                    let dropped = details.get(DROPPED).and_then(Value::as_u64);
                    Some((*subscription, *publication, dropped))
                }
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn the_next_event_of_a_subscription_says_how_many_were_dropped_before_it() {
        let queue = Queue::new(4, 1 << 20);
        for subscription in [1, 1, 2] {
            assert_eq!(queue.push(event_of(subscription, 1)).0, Pushed::Queued);
        }
        for subscription in [1, 2, 1] {
            assert_eq!(queue.push(event_of(subscription, 1)).0, Pushed::Dropped);
        }
        assert_eq!(next_event(&queue), Some((1, 1, None)));
        queue.push(event_of(1, 1));
        let rest: Vec<_> = std::iter::from_fn(|| next_event(&queue)).collect();
        assert_eq!(rest, [(1, 1, None), (2, 1, None), (1, 1, Some(2))]);
        // Whoever does not know better learns it with the next one alone.
        queue.push(event_of(2, 1));
        queue.push(event_of(2, 1));
        let rest: Vec<_> = std::iter::from_fn(|| next_event(&queue)).collect();
        assert_eq!(rest, [(2, 1, Some(1)), (2, 1, None)]);
    }

    #[test]
    fn events_that_none_follow_are_told_of_once_the_queue_is_half_empty() {
        let queue = Queue::new(4, 1 << 20).telling_dropped(true);
        for subscription in [1, 2, 3] {
            queue.push(event_of(subscription, 1));
        }
        for subscription in [1, 2, 1, 9] {
            assert_eq!(queue.push(event_of(subscription, 1)).0, Pushed::Dropped);
        }
        queue.forget(9);
        let all: Vec<_> = std::iter::from_fn(|| next_event(&queue)).collect();
        let expected = [
            (1, 1, None),
            (2, 1, None),
            (3, 1, None),
            (1, 0, Some(2)),
            (2, 0, Some(1)),
        ];
        assert_eq!(all, expected, "in the place where they are missing");
        // It was too large for the session: there is no other one to tell with.
        queue.undelivered(3, &Dict::new());
        assert_eq!(next_event(&queue), Some((3, 0, Some(1))));
        queue.undelivered(3, &Dict::from([(DROPPED.to_owned(), Value::Uint(4))]));
        assert_eq!(next_event(&queue), Some((3, 0, Some(5))));
        assert_eq!(next_event(&queue), None);
    }

    #[test]
    fn what_is_told_of_dropped_events_leaves_room_for_replies() {
        let queue = Queue::new(8, 1 << 20).telling_dropped(true);
        for _ in 0..6 {
            queue.push(event(1));
        }
        for subscription in 1..=20 {
            assert_eq!(queue.push(event_of(subscription, 1)).0, Pushed::Dropped);
        }
        for _ in 0..2 {
            queue.try_pop();
        }
        assert_eq!(queue.depth().0, 6);
        assert_eq!(queue.push(reply()).0, Pushed::Queued);
        let mut told = 0;
        while let Some(next) = queue.try_pop() {
            let Next::Message(message) = next else {
                panic!("{next:?}")
            };
            if let Message::Event { publication: 0, .. } = message.message() {
                told += 1;
            }
        }
        assert_eq!(told, 20);
    }

    #[test]
    fn the_end_comes_after_what_was_queued_and_is_final() {
        let queue = Queue::new(10, 1000);
        queue.push(reply());
        queue.end(None, Ending::Left);
        queue.push(reply());
        assert!(matches!(pop(&queue), Poll::Ready(Next::Message(_))));
        assert!(matches!(pop(&queue), Poll::Ready(Next::End(None, Ending::Left))));
        queue.push(reply());
        assert!(!matches!(pop(&queue), Poll::Ready(Next::Message(_))));
    }
}
