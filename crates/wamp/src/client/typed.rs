//! Calls and procedures with types of one's own in place of payloads.

use std::future::Future;

use super::{CallOptions, Handler, Invocation, RequestError, Session, WampError, handler};
use crate::payload::{FromPayload, IntoPayload};
use crate::uri;

impl Session {
    /// Calls a procedure with arguments and a result of any serde type. Dropping the future cancels the call.
    ///
    /// ```no_run
    /// # use wamp::client::{CallOptions, RequestError, Session};
    /// use wamp::payload::{Args, One};
    ///
    /// # async fn example(session: Session) -> Result<(), RequestError> {
    /// let One(sum) = session.ask::<_, One<i64>>("com.example.add", Args((2, 3)), CallOptions::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ask<A: IntoPayload, R: FromPayload>(
        &self,
        procedure: &str,
        arguments: A,
        options: CallOptions,
    ) -> Result<R, RequestError> {
        let payload = arguments
            .into_payload()
            .map_err(|error| RequestError::Encode(error.to_string()))?;
        let result = self.call(procedure, payload, options).await?;
        result
            .payload
            .parse()
            .map_err(|error| RequestError::Unexpected(error.to_string()))
    }
}

/// Wraps an async function of any serde types as a [`Handler`]. Arguments that do not fit are answered with
/// `wamp.error.invalid_argument` and what was expected.
///
/// ```
/// use wamp::client::{WampError, procedure};
/// use wamp::payload::{Args, One};
///
/// let add = procedure(|Args((a, b)): Args<(i64, i64)>, _| async move {
///     a.checked_add(b).map(One).ok_or_else(|| WampError::new("com.example.overflow", "too large"))
/// });
/// ```
pub fn procedure<A, R, F, Fut>(function: F) -> Handler
where
    A: FromPayload + Send,
    R: IntoPayload,
    F: Fn(A, Invocation) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<R, WampError>> + Send + 'static,
{
    handler(move |invocation| {
        let begun = invocation
            .payload
            .parse::<A>()
            .map(|arguments| function(arguments, invocation));
        async move {
            let result = match begun {
                Ok(future) => future.await?,
                Err(error) => return Err(WampError::new(uri::error::INVALID_ARGUMENT, error.to_string())),
            };
            result
                .into_payload()
                .map_err(|error| WampError::new(uri::error::RUNTIME_ERROR, error.to_string()))
        }
    })
}
