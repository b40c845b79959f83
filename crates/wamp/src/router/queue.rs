//! The send queue of one session: filled under the router's lock, emptied by the session's own task.
//!
//! Bounded in messages and bytes (`wamp-interop.md` 2). What others send a session unasked has three quarters of the
//! bound: an EVENT beyond is dropped and counted, an INVOCATION is refused, which its caller learns, an INTERRUPT is
//! dropped, because whoever waits for an answer gets it from the callee. The rest is for replies, so that nobody can
//! take a session's replies away by flooding it. A reply beyond the bound ends the session: lost, it would leave
//! somebody waiting for ever.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::outbox::{Ending, Outgoing};
use crate::Id;
use crate::message::Message;

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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    ping: bool,
    end: Option<Next>,
    /// When the first of the events in a row was dropped.
    dropping_since: Option<Instant>,
    waker: Option<Waker>,
}

impl Queue {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Queue {
        Queue {
            max_messages,
            max_bytes,
            state: Mutex::new(State {
                // For WELCOME, after which many a session only listens.
                messages: VecDeque::with_capacity(1),
                ..State::default()
            }),
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
        // A single message larger than the whole bound passes when nothing else is queued.
        let fits = |max_messages: usize, max_bytes: usize| {
            state.messages.is_empty()
                || (state.messages.len() < max_messages && state.bytes + weight <= max_bytes)
        };
        let fits_unasked = || {
            let (messages, bytes) = (self.max_messages, self.max_bytes);
            fits(messages - messages / 4, bytes - bytes / 4)
        };
        let pushed = match message.message() {
            Message::Event { .. } if !fits_unasked() => Pushed::Dropped,
            Message::Invocation { request, .. } if !fits_unasked() => Pushed::Refused(*request),
            Message::Interrupt { .. } if !fits_unasked() => Pushed::Skipped,
            _ if !fits(self.max_messages, self.max_bytes) => Pushed::Overflow,
            _ => Pushed::Queued,
        };
        if pushed == Pushed::Dropped {
            state.dropping_since.get_or_insert_with(Instant::now);
        }
        if pushed != Pushed::Queued {
            return (pushed, None);
        }
        state.bytes += weight;
        state.messages.push_back(message);
        (Pushed::Queued, state.waker.take())
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
            state.note_relief(self.max_messages, self.max_bytes);
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
        state.note_relief(self.max_messages, self.max_bytes);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note_relief(&mut self, max_messages: usize, max_bytes: usize) {
        if self.messages.len() <= max_messages / 2 && self.bytes <= max_bytes / 2 {
            self.dropping_since = None;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::Message;
    use crate::payload::Payload;
    use crate::router::outbox::SharedEvent;
    use crate::value::Dict;

    fn event(bytes: usize) -> Outgoing {
        Outgoing::Event(Arc::new(SharedEvent::new(Message::Event {
            subscription: 1,
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
