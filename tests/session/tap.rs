//! A wire tap between agent and router: sees every message in order, and may put in frames of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value as Json;
use testkit::wait;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wamp::Codec;
use wamp::client::TlsOptions;
use wamp::message::Message;
use wamp::transport::{Connection, Incoming, Proxies, accept, dial};

use super::SOON;

/// One connection of the agent, as the tap saw it.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// What the agent said.
    pub(crate) said: Vec<Message>,
    /// What the router answered.
    pub(crate) heard: Vec<Message>,
    /// The agent hung up.
    pub(crate) closed: bool,
    forge: Option<mpsc::UnboundedSender<Message>>,
}

/// Listens on an address of its own.
pub(crate) struct Tap {
    pub(crate) url: String,
    wires: Arc<Mutex<Vec<Wire>>>,
}

impl Tap {
    pub(crate) async fn before(router: &str) -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let wires = Arc::new(Mutex::new(Vec::new()));
        let router = router.to_owned();
        let kept = Arc::clone(&wires);
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(agent) = accept(tcp, &[Codec::Json], 16 << 20).await else {
                    continue;
                };
                let router = dial(
                    &router,
                    &[Codec::Json],
                    &TlsOptions::default(),
                    &Proxies::none(),
                    16 << 20,
                )
                .await;
                let Ok(router) = router else { continue };
                let number = {
                    let mut wires: std::sync::MutexGuard<'_, Vec<Wire>> = kept.lock().unwrap();
                    wires.push(Wire::default());
                    wires.len() - 1
                };
                tokio::spawn(carry(agent, router, Arc::clone(&kept), number));
            }
        });
        Tap { url, wires }
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.wires.lock().unwrap().len()
    }

    /// Looks at connection `number`, once it is there.
    pub(crate) fn look<T>(&self, number: usize, look: impl FnOnce(&Wire) -> T) -> Option<T> {
        self.wires.lock().unwrap().get(number).map(look)
    }

    /// Waits until connection `number` satisfies `condition`.
    pub(crate) async fn wait(&self, what: &str, number: usize, condition: impl Fn(&Wire) -> bool) {
        wait::until_async(what, SOON, || async {
            self.look(number, &condition)?.then_some(())
        })
        .await;
    }

    /// Sends the agent a message in the router's name.
    pub(crate) fn forge(&self, number: usize, message: Message) {
        let forge = self.look(number, |wire| wire.forge.clone()).flatten();
        assert!(
            forge.unwrap().send(message).is_ok(),
            "connection {number} is gone"
        );
    }

    /// What the agent said on connection `number`, one word per message with its subject.
    pub(crate) fn said(&self, number: usize) -> Vec<String> {
        self.look(number, |wire| wire.said.iter().map(short).collect())
            .unwrap_or_default()
    }
}

async fn carry(agent: Connection, router: Connection, wires: Arc<Mutex<Vec<Wire>>>, number: usize) {
    let (mut agent_sink, mut agent_stream) = (agent.sink, agent.stream);
    let (mut router_sink, mut router_stream) = (router.sink, router.stream);
    let (forge, mut forged) = mpsc::unbounded_channel();
    wires.lock().unwrap()[number].forge = Some(forge);
    let up = async {
        while let Some(Ok(incoming)) = agent_stream.next().await {
            let Incoming::Data(frame) = incoming else { continue };
            let message = Codec::Json.decode(&frame).unwrap();
            let ours = is_answer_to_forged(&message);
            wires.lock().unwrap()[number].said.push(message);
            if ours {
                continue;
            }
            if router_sink.feed(frame).await.is_err() || router_sink.flush().await.is_err() {
                break;
            }
        }
        wires.lock().unwrap()[number].closed = true;
    };
    let down = async {
        loop {
            let frame = tokio::select! {
                Some(message) = forged.recv() => Codec::Json.encode(&message).unwrap(),
                incoming = router_stream.next() => match incoming {
                    Some(Ok(Incoming::Data(frame))) => {
                        let message = Codec::Json.decode(&frame).unwrap();
                        wires.lock().unwrap()[number].heard.push(message);
                        frame
                    }
                    Some(Ok(Incoming::Pong(_) | Incoming::Close { .. })) => continue,
                    Some(Err(_)) | None => break,
                },
            };
            if agent_sink.feed(frame).await.is_err() || agent_sink.flush().await.is_err() {
                break;
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(1), agent_sink.close(1000, "gone")).await;
    };
    // The end of one side is the end of the other.
    tokio::select! {
        () = up => {}
        () = down => {
            wires.lock().unwrap()[number].closed = true;
        }
    }
}

/// Invocations with such ids come from the test: the router knows nothing of them.
pub(crate) const FORGED: u64 = 1 << 50;

fn is_answer_to_forged(message: &Message) -> bool {
    matches!(message, Message::Error { request, .. } | Message::Yield { request, .. } if (FORGED..FORGED + 1000).contains(request))
}

/// First positional argument of a message, as JSON.
pub(crate) fn first(message: &Message) -> Json {
    let payload = match message {
        Message::Call { payload, .. } | Message::Publish { payload, .. } => payload,
        _ => return Json::Null,
    };
    let args = payload.args().unwrap();
    args.first().map(wamp::Value::to_json).unwrap_or_default()
}

fn short(message: &Message) -> String {
    match message {
        Message::Hello { .. } => "HELLO".to_owned(),
        Message::Authenticate { .. } => "AUTHENTICATE".to_owned(),
        Message::Goodbye { reason, .. } => format!("GOODBYE {reason}"),
        Message::Call { procedure, .. } => match first(message).get("status") {
            Some(status) => format!("CALL {procedure} {}", status.as_str().unwrap()),
            None => format!("CALL {procedure}"),
        },
        Message::Register {
            procedure, options, ..
        } => {
            let name = procedure.rsplit('.').next().unwrap();
            match options.get("force_reregister") {
                Some(wamp::Value::Bool(true)) => format!("REGISTER {name} by force"),
                _ => format!("REGISTER {name}"),
            }
        }
        Message::Subscribe { topic, .. } => format!("SUBSCRIBE {topic}"),
        other => format!("{}", other.code()),
    }
}
