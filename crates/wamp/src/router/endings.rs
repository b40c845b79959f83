//! How calls end before their time: cancelled, timed out, not deliverable, a peer gone.
//!
//! Whatever happens, the caller gets one final reply and the callee's late answer goes nowhere. Contract:
//! `wamp-interop.md` 3.3, cases R-R12 to R-R19.

use super::realm::Realm;
use super::refusal::{Refusal, choice};
use super::session::{PendingCall, Session};
use crate::Id;
use crate::message::{Message, code};
use crate::uri::error;
use crate::value::Dict;

/// `mode` of CANCEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CancelMode {
    /// The caller gets its reply, the callee is not told.
    Skip,
    /// The callee is told, the caller's reply waits for the callee's.
    Kill,
    /// The callee is told, the caller gets its reply at once.
    KillNoWait,
}

impl CancelMode {
    fn from_name(name: &str) -> Option<CancelMode> {
        match name {
            "skip" => Some(CancelMode::Skip),
            "kill" => Some(CancelMode::Kill),
            "killnowait" => Some(CancelMode::KillNoWait),
            _ => None,
        }
    }
}

impl Realm {
    /// CANCEL. Unknown and finished requests are ignored (R-R16).
    pub(super) fn cancel(&mut self, caller: Id, request: Id, options: &Dict) -> Result<(), Refusal> {
        let mode = choice(options, "mode", CancelMode::KillNoWait, CancelMode::from_name)?;
        let Some((callee, invocation)) = self
            .sessions
            .get(&caller)
            .and_then(|session| session.calls.get(&request))
            .map(|call| (call.callee, call.invocation))
        else {
            return Ok(());
        };
        match mode {
            CancelMode::Skip => self.release(caller, request),
            CancelMode::KillNoWait => {
                self.release(caller, request);
                self.interrupt(callee, invocation, "killnowait", error::CANCELED);
            }
            CancelMode::Kill => {
                let Some(session) = self.sessions.get_mut(&callee) else {
                    return Ok(());
                };
                // A callee that cannot be interrupted answers whenever it likes: the caller does not wait for it.
                if !session.identity.features.callee_canceling {
                    self.release(caller, request);
                    self.send_canceled(caller, request);
                    return Ok(());
                }
                if let Some(pending) = session.invocations.get_mut(&invocation)
                    && !std::mem::replace(&mut pending.killed, true)
                {
                    self.interrupt(callee, invocation, "kill", error::CANCELED);
                }
                return Ok(());
            }
        }
        self.send_canceled(caller, request);
        Ok(())
    }

    /// The router's own deadline for a call has passed.
    pub(super) fn time_out(&mut self, caller: Id, request: Id) {
        if self.interrupt_call(caller, request, error::TIMEOUT) {
            self.send_error(caller, code::CALL, request, error::TIMEOUT, "call timeout");
        }
    }

    /// The callee's send queue has no room for an INVOCATION.
    pub(super) fn refuse_invocation(&mut self, callee: Id, invocation: Id) {
        self.tally.limited_requests += 1;
        let text = "the callee does not keep up with its calls";
        self.fail_invocation(callee, invocation, error::NETWORK_FAILURE, text);
    }

    /// An INVOCATION cannot be given to the callee: the caller gets an ERROR. A callee that has got earlier parts of the
    /// call is told to forget them.
    pub(super) fn fail_invocation(&mut self, callee: Id, invocation: Id, uri: &str, text: &str) {
        let pending = self
            .sessions
            .get(&callee)
            .and_then(|session| session.invocations.get(&invocation));
        let Some((caller, call)) = pending.and_then(|pending| pending.caller) else {
            return;
        };
        if pending.is_some_and(|pending| pending.continued) {
            self.interrupt_call(caller, call, error::CANCELED);
        } else {
            self.finish(callee, invocation);
        }
        self.send_error(caller, code::CALL, call, uri, text);
    }

    /// A RESULT cannot be given to the caller. Ends the call if it was a partial one and the call still goes on, so that
    /// the ERROR is its only final reply.
    pub(super) fn fail_call(&mut self, caller: Id, request: Id, uri: &str, text: &str) {
        self.interrupt_call(caller, request, error::CANCELED);
        self.send_error(caller, code::CALL, request, uri, text);
    }

    /// Ends a call on both sides, except for the caller's reply; `false` when there is none under this id.
    pub(super) fn interrupt_call(&mut self, caller: Id, request: Id, reason: &str) -> bool {
        let pending = self
            .sessions
            .get(&caller)
            .and_then(|session| session.calls.get(&request));
        let Some((callee, invocation)) = pending.map(|call| (call.callee, call.invocation)) else {
            return false;
        };
        self.release(caller, request);
        self.interrupt(callee, invocation, "killnowait", reason);
        true
    }

    /// Cuts a call from its invocation: the caller's side is forgotten, a late answer goes nowhere.
    fn release(&mut self, caller: Id, request: Id) {
        let Some(call) = self
            .sessions
            .get_mut(&caller)
            .and_then(|session| session.take_call(request))
        else {
            return;
        };
        self.orphan(&call);
    }

    fn orphan(&mut self, call: &PendingCall) {
        if let Some(pending) = self
            .sessions
            .get_mut(&call.callee)
            .and_then(|session| session.invocations.get_mut(&call.invocation))
        {
            pending.caller = None;
        }
    }

    /// The caller has gone (R-R18).
    pub(super) fn abandon_calls(&mut self, caller: &mut Session) {
        caller.deadlines.clear();
        for (_, call) in caller.calls.drain() {
            self.orphan(&call);
            self.interrupt(call.callee, call.invocation, "killnowait", error::CANCELED);
        }
    }

    /// The callee has gone (R-R19).
    pub(super) fn fail_invocations(&mut self, callee: &mut Session) {
        for (_, pending) in callee.invocations.drain() {
            let Some((caller, call)) = pending.caller else {
                continue;
            };
            let waiting = self
                .sessions
                .get_mut(&caller)
                .and_then(|session| session.take_call(call));
            if waiting.is_some() {
                let text = "callee disconnected from in-flight request";
                self.send_error(caller, code::CALL, call, error::CANCELED, text);
            }
        }
    }

    /// INTERRUPT, to a callee that announced it can be cancelled.
    fn interrupt(&mut self, callee: Id, invocation: Id, mode: &str, reason: &str) {
        let able = self
            .sessions
            .get(&callee)
            .is_some_and(|session| session.identity.features.callee_canceling);
        if able {
            let options = Dict::from([
                ("mode".to_owned(), mode.into()),
                ("reason".to_owned(), reason.into()),
            ]);
            self.outbox.send(
                callee,
                Message::Interrupt {
                    request: invocation,
                    options,
                },
            );
        }
    }
}
