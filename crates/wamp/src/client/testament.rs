//! The last will of a session: what the router publishes in its name when it is gone (`wamp-interop.md` 3.5).

use crate::client::{CallOptions, PublishOptions, RequestError, Session};
use crate::payload::Payload;
use crate::value::{Dict, Value};

/// When the router publishes a testament.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TestamentScope {
    /// When the transport is gone.
    Detached,
    /// When the session is gone, which most routers do at the same time, after those that are detached.
    #[default]
    Destroyed,
}

impl TestamentScope {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            TestamentScope::Detached => "detached",
            TestamentScope::Destroyed => "destroyed",
        }
    }
}

/// An event that the router publishes when the session has ended, in whatever way, unless it is flushed before.
#[derive(Clone, Debug)]
pub struct Testament {
    pub topic: String,
    pub payload: Payload,
    pub options: PublishOptions,
    pub scope: TestamentScope,
}

impl Testament {
    /// Published with default options.
    pub fn new(topic: impl Into<String>, payload: Payload) -> Testament {
        Testament {
            topic: topic.into(),
            payload,
            options: PublishOptions::default(),
            scope: TestamentScope::default(),
        }
    }
}

impl Session {
    /// Leaves a testament with the router. It need not be allowed to publish it now: that is checked when the time has
    /// come. Bounded by the reply timeout. A router without testaments answers `wamp.error.no_such_procedure`.
    pub async fn add_testament(&self, testament: &Testament) -> Result<(), RequestError> {
        let malformed = |error: crate::codec::CodecError| RequestError::Encode(error.to_string());
        let args = testament.payload.args().map_err(malformed)?;
        let kwargs = testament.payload.kwargs().map_err(malformed)?;
        let arguments = vec![
            Value::from(testament.topic.as_str()),
            Value::List(args),
            Value::Dict(kwargs),
            Value::Dict(testament.options.clone().into_details()),
        ];
        let scope = scope_of(testament.scope);
        self.meta(
            "wamp.session.add_testament",
            Payload::from_parts(arguments, scope),
        )
        .await
    }

    /// Takes back all testaments of this session. Routers publish them after GOODBYE, too: who leaves on purpose and
    /// has nothing to tell flushes them first.
    pub async fn flush_testaments(&self) -> Result<(), RequestError> {
        for scope in [TestamentScope::Detached, TestamentScope::Destroyed] {
            self.meta(
                "wamp.session.flush_testaments",
                Payload::from_kwargs(scope_of(scope)),
            )
            .await?;
        }
        Ok(())
    }

    async fn meta(&self, procedure: &str, payload: Payload) -> Result<(), RequestError> {
        let bound = CallOptions::timeout(self.shared().reply_timeout);
        self.call(procedure, payload, bound).await.map(drop)
    }
}

fn scope_of(scope: TestamentScope) -> Dict {
    Dict::from([("scope".to_owned(), Value::from(scope.name()))])
}
