//! The cases of `wamp-interop.md` 5.1 to 5.5 on the wire, each for JSON, MessagePack and CBOR, over WebSocket and over
//! RawSocket. What needs a socket of a special kind (deadlines, floods, malformed frames) is in the other files.

use super::*;

mod meta;
mod pubsub;
mod rpc;
mod session;

/// A router, and how the run's peers speak to it.
struct Stage {
    running: Running,
    codec: Codec,
    raw: bool,
}

/// Runs a case once per codec and transport, each time with a router of its own.
async fn for_every_way(case: impl AsyncFn(&Stage)) {
    for raw in [false, true] {
        for codec in CODECS {
            let running = start(Limits::default()).await;
            case(&Stage { running, codec, raw }).await;
        }
    }
}

impl Stage {
    /// Somebody anonymous of role `device`, who may do everything and whose name is disclosed.
    async fn peer(&self) -> Peer {
        self.joined(None).await.0
    }

    /// Somebody named `as-<role>-<name>`, and the session.
    async fn named(&self, authid: &str) -> (Peer, u64) {
        self.joined(Some(authid)).await
    }

    async fn joined(&self, authid: Option<&str>) -> (Peer, u64) {
        match self.raw {
            false => self.running.joined_as(self.codec, authid).await,
            true => self.running.joined_raw_as(self.codec, authid).await,
        }
    }

    /// Somebody who has not joined.
    async fn stranger(&self) -> Peer {
        match self.raw {
            false => Peer::connect(self.running.address, self.codec.subprotocol())
                .await
                .unwrap(),
            true => Peer::connect_raw(self.running.address, self.codec).await,
        }
    }
}

impl Peer {
    /// The reply to REGISTER or SUBSCRIBE; its id.
    async fn established(&mut self, message: Value) -> u64 {
        let (code, request) = (message[0].as_u64().unwrap(), message[1].clone());
        let reply = self.ask(message).await;
        assert_eq!((&reply[0], &reply[1]), (&json!(code + 1), &request), "{reply}");
        reply[2].as_u64().unwrap()
    }

    /// The error URI of the ERROR that answers a request.
    async fn refused(&mut self, message: Value) -> String {
        let (code, request) = (message[0].clone(), message[1].clone());
        let error = self.ask(message).await;
        assert_eq!(
            (&error[0], &error[1], &error[2]),
            (&json!(8), &code, &request),
            "{error}"
        );
        error[4].as_str().unwrap().to_owned()
    }

    /// The result of a call of one of the router's procedures.
    async fn meta(&mut self, procedure: &str, args: Value) -> Value {
        let result = self.ask(json!([48, 7700, {}, procedure, args])).await;
        assert_eq!((&result[0], &result[1]), (&json!(50), &json!(7700)), "{result}");
        result[3][0].clone()
    }

    /// Nothing has come for this peer but what the test has read: the answer to a new request is next.
    #[track_caller]
    fn hears_nothing(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self
                .ask(json!([16, 9900, {"acknowledge": true}, "re.silence"]))
                .await;
            assert_eq!(
                (&answer[0], &answer[1]),
                (&json!(17), &json!(9900)),
                "at {caller}: {answer}"
            );
        }
    }

    /// The next message, which has to be of this type.
    #[track_caller]
    fn next_of(&mut self, code: u64) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let message = self.next().await;
            assert_eq!(message[0], code, "at {caller}: {message}");
            message
        }
    }
}
