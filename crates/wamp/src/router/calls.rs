//! Calls under way: from CALL over INVOCATION to the one final reply. What ends them before their time is in `endings`.
//!
//! A call lives in two places at once: in the caller's session until the caller has its reply, in the callee's session
//! until the callee has answered. Cancelling cuts the first from the second. Contract: `wamp-interop.md` 3.3, cases
//! R-R1, R-R2, R-R9 to R-R11, R-R20, R-R21 and R-R23.

use std::time::Duration;

use tokio::time::Instant;

use super::directory::is_reserved;
use super::pattern::MatchPolicy;
use super::permission::Action;
use super::realm::Realm;
use super::refusal::{Refusal, flag, number};
use super::session::{PendingCall, PendingInvocation, Session, Stream, deadline};
use crate::Id;
use crate::message::{Message, code};
use crate::payload::Payload;
use crate::uri::error;
use crate::value::{Dict, Value};

/// What the router has counted in this realm (see [`Counters`](super::Counters)).
const COUNTERS: &str = "wamp.router.counters";

/// Most bytes of arguments, encoded, that a procedure of the router itself takes.
const MAX_META_ARGUMENTS: usize = 64 << 10;

impl Realm {
    /// CALL.
    pub(super) fn call(
        &mut self,
        caller: Id,
        request: Id,
        options: &Dict,
        procedure: &str,
        payload: Payload,
        now: Instant,
    ) -> Result<(), Refusal> {
        let more = flag(options, "progress");
        let Some(session) = self.sessions.get_mut(&caller) else {
            return Ok(());
        };
        if let Some(pending) = session.calls.get(&request) {
            if pending.stream.is_none() {
                // Two calls under one id could not be answered apart.
                return Err(Refusal::Violation(format!("call {request} is still pending")));
            }
            return match more {
                Ok(more) => {
                    self.call_on(caller, request, more.unwrap_or(false), payload);
                    Ok(())
                }
                Err(refusal) => {
                    self.interrupt_call(caller, request, error::CANCELED);
                    Err(refusal)
                }
            };
        }
        if session.is_cut_short(request, matches!(more, Ok(Some(true)))) {
            return Ok(());
        }
        let more = more?.unwrap_or(false);
        if more && !session.identity.features.caller_streaming {
            return Err(Refusal::Violation(
                "a call in parts without progressive_call_invocations being announced".to_owned(),
            ));
        }
        let placed = self.place_call(caller, request, options, procedure, payload, more, now);
        if more
            && placed.is_err()
            && let Some(session) = self.sessions.get_mut(&caller)
        {
            session.cut_short(request);
        }
        placed
    }

    /// The first or only part of a call.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of CALL and what was read of them"
    )]
    fn place_call(
        &mut self,
        caller: Id,
        request: Id,
        options: &Dict,
        procedure: &str,
        payload: Payload,
        more: bool,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get(&caller) else {
            return Ok(());
        };
        if !self.uris.accepts(procedure) {
            return Err(Refusal::uri(procedure));
        }
        let Some(disclosed) = session.rights.allows_disclosing(Action::Call, procedure) else {
            return Err(self.not_authorized(caller, Action::Call, procedure));
        };
        let progress = flag(options, "receive_progress")?.unwrap_or(false);
        let timeout = number(options, "timeout")?.filter(|timeout| *timeout > 0);
        if is_reserved(procedure) {
            if more {
                return Err(not_in_parts("the router's own procedures do"));
            }
            return self.call_router(caller, request, procedure, &payload);
        }
        let most = self.limits.max_pending_calls;
        if session.calls.len() >= most {
            return Err(Refusal::limit(
                error::RUNTIME_ERROR,
                format!("a session has {most} pending calls at most"),
            ));
        }
        let found = self.registrations.best(procedure);
        let Some(entry) = found.and_then(|id| self.registrations.get_mut(id)) else {
            return Err(Refusal::error(
                error::NO_SUCH_PROCEDURE,
                format!("no callee registered for procedure {procedure:?}"),
            ));
        };
        let registration = entry.id;
        let by_pattern = entry.policy != MatchPolicy::Exact;
        let chosen = entry.members.choose(&mut self.random);
        let Some((callee, session)) = chosen.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) else {
            return Err(Refusal::error(
                error::NO_SUCH_PROCEDURE,
                "the callee has just left",
            ));
        };
        let features = session.identity.features;
        if more && !(features.callee_streaming && features.callee_canceling) {
            return Err(not_in_parts("the callee does"));
        }
        if session.invocations.len() >= most {
            return Err(Refusal::limit(
                error::NETWORK_FAILURE,
                "the callee has too many calls pending",
            ));
        }
        session.last_invocation += 1;
        let invocation = session.last_invocation;
        session.invocations.insert(
            invocation,
            PendingInvocation {
                caller: Some((caller, request)),
                progress,
                killed: false,
                continued: false,
            },
        );
        let Some(session) = self.sessions.get_mut(&caller) else {
            return Ok(());
        };
        let mut details = match disclosed && features.callee_identification {
            true => caller_details(caller, session),
            false => Dict::new(),
        };
        if by_pattern {
            details.insert("procedure".to_owned(), procedure.into());
        }
        if progress {
            details.insert("receive_progress".to_owned(), true.into());
        }
        let stream = more.then(|| {
            let details = details.clone();
            Box::new(Stream {
                registration,
                details,
            })
        });
        if more {
            details.insert("progress".to_owned(), true.into());
        }
        let deadline = timeout.and_then(|timeout| deadline(now, Duration::from_millis(timeout)));
        session.add_call(
            request,
            PendingCall {
                callee,
                invocation,
                deadline,
                stream,
            },
        );
        self.outbox.send(
            callee,
            Message::Invocation {
                request: invocation,
                registration,
                details,
                payload,
            },
        );
        Ok(())
    }

    /// A call of one of the router's own procedures.
    fn call_router(
        &mut self,
        caller: Id,
        request: Id,
        procedure: &str,
        payload: &Payload,
    ) -> Result<(), Refusal> {
        if payload.encoded_len() > MAX_META_ARGUMENTS {
            // They are decoded while everybody else waits.
            return Err(Refusal::limit(
                error::PAYLOAD_SIZE_EXCEEDED,
                format!("the router's own procedures take {MAX_META_ARGUMENTS} bytes of arguments at most"),
            ));
        }
        if procedure == COUNTERS {
            // Who delivers messages knows the queues, so the answer comes from there.
            self.outbox.send_counters(caller, request);
            return Ok(());
        }
        let result = self.meta_call(caller, procedure, payload)?;
        self.send_result(caller, request, Dict::new(), Payload::from_args(vec![result]));
        Ok(())
    }

    /// A further part of a call: to the same callee, under the same id, with the details of the first.
    fn call_on(&mut self, caller: Id, request: Id, more: bool, payload: Payload) {
        let Some(call) = self
            .sessions
            .get_mut(&caller)
            .and_then(|session| session.calls.get_mut(&request))
        else {
            return;
        };
        let (callee, invocation) = (call.callee, call.invocation);
        let stream = match more {
            true => call
                .stream
                .as_ref()
                .map(|stream| (stream.registration, stream.details.clone())),
            false => call
                .stream
                .take()
                .map(|stream| (stream.registration, stream.details)),
        };
        let pending = self
            .sessions
            .get_mut(&callee)
            .and_then(|session| session.invocations.get_mut(&invocation));
        let (Some((registration, mut details)), Some(pending)) = (stream, pending) else {
            return;
        };
        // The callee has been told to stop.
        if pending.killed {
            return;
        }
        pending.continued = true;
        if more {
            details.insert("progress".to_owned(), true.into());
        }
        self.outbox.send(
            callee,
            Message::Invocation {
                request: invocation,
                registration,
                details,
                payload,
            },
        );
    }

    /// YIELD.
    pub(super) fn yielded(
        &mut self,
        callee: Id,
        request: Id,
        options: &Dict,
        payload: Payload,
    ) -> Result<(), Refusal> {
        let Some(pending) = self.pending_invocation(callee, request)? else {
            return Ok(());
        };
        let partial = options.get("progress").and_then(Value::as_bool).unwrap_or(false);
        if partial {
            let wanted = pending.progress && !pending.killed;
            if let Some((caller, call)) = pending.caller.filter(|_| wanted) {
                let details = Dict::from([("progress".to_owned(), true.into())]);
                self.send_result(caller, call, details, payload);
            }
            return Ok(());
        }
        let killed = pending.killed;
        if let Some((caller, call)) = self.finish(callee, request) {
            if killed {
                self.send_canceled(caller, call);
            } else {
                self.send_result(caller, call, Dict::new(), payload);
            }
        }
        Ok(())
    }

    /// ERROR of a callee.
    pub(super) fn failed(
        &mut self,
        callee: Id,
        request_type: u64,
        request: Id,
        uri: String,
        payload: Payload,
    ) -> Result<(), Refusal> {
        if request_type != code::INVOCATION {
            return Err(Refusal::Violation(format!(
                "ERROR for request type {request_type} is not expected from a client"
            )));
        }
        let Some(pending) = self.pending_invocation(callee, request)? else {
            return Ok(());
        };
        let killed = pending.killed;
        let Some((caller, call)) = self.finish(callee, request) else {
            return Ok(());
        };
        if killed {
            self.send_error_payload(caller, code::CALL, call, error::CANCELED, payload);
        } else if self.uris.accepts(&uri) {
            self.send_error_payload(caller, code::CALL, call, &uri, payload);
        } else {
            let text = format!("the callee failed with the invalid error URI {uri:?}");
            self.send_error(caller, code::CALL, call, error::INVALID_URI, &text);
        }
        Ok(())
    }

    /// The invocation a callee answers. `None`: answered before, so the message is late. An id that was never issued to
    /// this session is a violation (R-R20).
    fn pending_invocation(&self, callee: Id, request: Id) -> Result<Option<&PendingInvocation>, Refusal> {
        let Some(session) = self.sessions.get(&callee) else {
            return Ok(None);
        };
        if request > session.last_invocation {
            return Err(Refusal::Violation(format!(
                "invocation {request} was not issued to this session"
            )));
        }
        Ok(session.invocations.get(&request))
    }

    /// Removes an invocation that the callee has answered; returns who waits for the answer.
    pub(super) fn finish(&mut self, callee: Id, request: Id) -> Option<(Id, Id)> {
        let pending = self
            .sessions
            .get_mut(&callee)
            .and_then(|session| session.invocations.remove(&request))?;
        let (caller, call) = pending.caller?;
        self.sessions.get_mut(&caller)?.take_call(call)?;
        Some((caller, call))
    }

    pub(super) fn send_result(&mut self, caller: Id, request: Id, details: Dict, payload: Payload) {
        self.outbox.send(
            caller,
            Message::Result {
                request,
                details,
                payload,
            },
        );
    }

    pub(super) fn send_canceled(&mut self, caller: Id, request: Id) {
        self.send_error_payload(caller, code::CALL, request, error::CANCELED, Payload::Empty);
    }
}

/// What an INVOCATION says about the caller, to a callee that wants to know, if the caller's role discloses it for this
/// procedure.
fn caller_details(id: Id, session: &Session) -> Dict {
    Dict::from([
        ("caller".to_owned(), Value::Uint(id)),
        (
            "caller_authid".to_owned(),
            session.identity.authid.as_str().into(),
        ),
        (
            "caller_authrole".to_owned(),
            session.identity.authrole.as_str().into(),
        ),
    ])
}

/// ERROR for a call in parts that somebody cannot take.
fn not_in_parts(who: &str) -> Refusal {
    Refusal::error(
        error::FEATURE_NOT_SUPPORTED,
        format!("{who} not take calls in parts"),
    )
}
