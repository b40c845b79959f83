//! wampproto's dealer, asked directly.

use std::collections::HashMap;

use wampproto::dealer::Dealer;
use wampproto::messages::call::Call;
use wampproto::messages::invocation::Invocation;
use wampproto::messages::register::Register;
use wampproto::messages::types::Value;
use wampproto::messages::yield_::Yield;
use wampproto::types::SessionDetails;

const CALLEE: i64 = 1;
const CALLER: i64 = 2;

/// Microseconds per CALL and YIELD.
pub async fn measure(crowd: usize) -> f64 {
    let mut dealer = Dealer::new();
    for session in [CALLEE, CALLER] {
        let realm = "realm1".to_owned();
        let details = SessionDetails::new(session, realm, session.to_string(), "all".to_owned(), false);
        dealer
            .add_session(details)
            .unwrap_or_else(|error| panic!("{}", error.message));
    }
    let mut request_id = 0;
    let names = (0..crowd).map(|number| format!("bench.other.{number}"));
    for procedure in names.chain(["bench.echo".to_owned()]) {
        request_id += 1;
        let register = Register {
            request_id,
            options: HashMap::new(),
            procedure,
        };
        dealer
            .receive_message(CALLEE, &register)
            .unwrap_or_else(|error| panic!("{}", error.message));
    }
    let mut request_id = 0;
    super::cost(1, async || {
        request_id += 1;
        let call = Call {
            request_id,
            options: HashMap::new(),
            procedure: "bench.echo".to_owned(),
            args: Some(vec![Value::Str("sixteen bytes...".to_owned())]),
            kwargs: None,
        };
        let routed = dealer
            .receive_message(CALLER, &call)
            .ok()
            .flatten()
            .expect("an invocation");
        let invocation = routed
            .message
            .as_any()
            .downcast_ref::<Invocation>()
            .expect("an invocation");
        let answer = Yield {
            request_id: invocation.request_id,
            options: HashMap::new(),
            args: invocation.args.clone(),
            kwargs: None,
        };
        let result = dealer.receive_message(CALLEE, &answer).ok().flatten();
        assert!(result.is_some_and(|routed| routed.recipient == CALLER));
    })
    .await
}
