//! Who may do what at the studio's router: devices keep to themselves, accounts to the devices they may see.

use serde_json::{Value, json};
use wamp::client::{
    ClientConfig, Credentials, Event, RegisterOptions, RequestError, Session, Subscription, handler,
};
use wamp::{Dict, Payload};

use crate::harness::{Device, Studio, call, eventually, join, refusal, within};

const DENIED: &str = "wamp.error.not_authorized";

async fn register(session: &Session, uri: &str, options: RegisterOptions) -> Result<Value, RequestError> {
    let nothing = handler(async |_| Ok(Payload::Empty));
    let registered = within("register", session.register(uri, options, nothing)).await;
    registered.map(|_| Value::Null)
}

async fn subscribe(session: &Session, topic: &str, policy: &str) -> Result<Subscription, RequestError> {
    let options = Dict::from([("match".to_owned(), policy.into())]);
    within("subscribe", session.subscribe(topic, options)).await
}

async fn publish(session: &Session, topic: &str) -> Result<Value, RequestError> {
    let payload = Payload::from_args(vec!["x".into()]);
    let published = session.publish_acknowledged(topic, Dict::new(), payload);
    within("publish", published).await.map(|_| Value::Null)
}

fn nothing(subscribed: Result<Subscription, RequestError>) -> Result<Value, RequestError> {
    subscribed.map(|_| Value::Null)
}

async fn next(events: &mut Subscription) -> Event {
    within("an event", events.events.recv()).await.unwrap()
}

#[tokio::test]
async fn a_device_has_its_own_procedures_and_topics_and_nothing_of_another() {
    let studio = Studio::start().await;
    let device = Device::connect(studio.add_device("press").await).await;
    let victim = Device::connect(studio.add_device("lathe").await).await;
    let (own, other) = (&device.flock.serial_number, &victim.flock.serial_number);
    let session = &device.session;
    let force = RegisterOptions {
        force_reregister: true,
        ..RegisterOptions::default()
    };
    let prefix = RegisterOptions {
        extra: Dict::from([("match".to_owned(), "prefix".into())]),
        ..RegisterOptions::default()
    };

    register(session, &format!("re.mgmt.{own}.ping"), force.clone())
        .await
        .unwrap();
    publish(session, &format!("re.mgmt.{own}.data.1")).await.unwrap();
    publish(session, &format!("reswarm.logs.{own}.prod_1_x"))
        .await
        .unwrap();
    nothing(subscribe(session, &format!("re.mgmt.{own}.term_write.1"), "exact").await).unwrap();
    nothing(subscribe(session, "reswarm.device.%d.list/ondestroy", "exact").await).unwrap();

    for (what, refused) in [
        (
            "another's procedure taken over",
            register(session, &format!("re.mgmt.{other}.request_app_state"), force).await,
        ),
        (
            "everybody's procedures",
            register(session, "re.mgmt.", prefix).await,
        ),
        (
            "a studio procedure",
            register(session, "studio.device.list", RegisterOptions::default()).await,
        ),
        (
            "a backend procedure",
            register(session, "reswarm.auth.authenticate", RegisterOptions::default()).await,
        ),
        (
            "another's topic",
            publish(session, &format!("re.mgmt.{other}.data.1")).await,
        ),
        (
            "another's log",
            publish(session, &format!("reswarm.logs.{other}.prod_1_x")).await,
        ),
        ("a studio event", publish(session, "studio.events.device").await),
        (
            "the order to destroy oneself",
            publish(session, "reswarm.device.%d.list/ondestroy").await,
        ),
        (
            "reading another's log",
            nothing(subscribe(session, &format!("reswarm.logs.{other}.prod_1_x"), "exact").await),
        ),
        (
            "reading all logs",
            nothing(subscribe(session, "reswarm.logs.", "prefix").await),
        ),
        (
            "reading another's terminal",
            nothing(subscribe(session, &format!("re.mgmt.{other}.data.1"), "exact").await),
        ),
        (
            "reading all terminals",
            nothing(subscribe(session, "re.mgmt.", "prefix").await),
        ),
        (
            "reading testaments",
            nothing(subscribe(session, "reswarm.api.testament_device", "exact").await),
        ),
        (
            "another device's procedure",
            call(session, &format!("re.mgmt.{other}.request_app_state"), &[]).await,
        ),
        (
            "a procedure for accounts",
            call(session, "studio.device.list", &[]).await,
        ),
        (
            "the authenticator",
            call(session, "reswarm.auth.authenticate", &[]).await,
        ),
        (
            "the list of sessions",
            call(session, "wamp.session.list", &[]).await,
        ),
        (
            "killing",
            call(session, "wamp.session.kill", &[json!(victim.session.id())]).await,
        ),
    ] {
        assert_eq!(refusal(refused), DENIED, "{what}");
    }
    let role = session.welcome().get("authrole").and_then(wamp::Value::as_str);
    assert_eq!(role, Some("device"));
}

#[tokio::test]
async fn a_device_hears_of_the_subscriptions_that_concern_it_alone() {
    let studio = Studio::start().await;
    let device = Device::connect(studio.add_device("press").await).await;
    let other = studio.add_device("lathe").await;
    let mut created = subscribe(&device.session, "wamp.subscription.on_create", "exact")
        .await
        .unwrap();
    let operator = studio.operator().await;
    let own_topic = format!("reswarm.logs.{}.prod_1_x", device.flock.serial_number);
    let other_topic = format!("reswarm.logs.{}.prod_1_x", other.serial_number);
    let _foreign = subscribe(&operator, &other_topic, "exact").await.unwrap();
    let _own = subscribe(&operator, &own_topic, "exact").await.unwrap();
    let args = next(&mut created).await.payload.args().unwrap();
    assert_eq!(
        args[1].get("uri").and_then(wamp::Value::as_str),
        Some(&*own_topic)
    );
    for (topic, seen) in [(own_topic, true), (other_topic, false)] {
        let matched = call(&device.session, "wamp.subscription.match", &[json!(topic)]).await;
        assert_eq!(matched.unwrap().is_array(), seen, "{topic}");
    }
}

#[tokio::test]
async fn a_testament_about_another_device_is_not_believed() {
    let studio = Studio::start().await;
    let victim = Device::connect(studio.add_device("lathe").await).await;
    let device = Device::connect(studio.add_device("press").await).await;
    let about_the_victim = json!([{
        "swarm_key": victim.flock.swarm_key, "device_key": victim.flock.device_key,
        "serial_number": victim.flock.serial_number, "wamp_session_id": victim.session.id(),
    }]);
    let testament = [json!("reswarm.api.testament_device"), about_the_victim, json!({})];
    device
        .call("wamp.session.add_testament", &testament)
        .await
        .unwrap();
    device.session.leave().await;
    // Its own testament was left first and the studio works them off one after the other: a third one comes last.
    let last = Device::connect(studio.add_device("saw").await).await;
    last.session.leave().await;
    eventually("the last testament was worked off", async || {
        (studio.status("saw").await == "DISCONNECTED").then_some(())
    })
    .await;
    assert_eq!(studio.status("lathe").await, "CONNECTED");
}

#[tokio::test]
async fn an_account_reaches_the_devices_that_it_may_see_as_soon_and_as_long_as_it_may() {
    let studio = Studio::start().await;
    let device = Device::connect(studio.add_device("press").await).await;
    device.offer("echo", |payload| payload).await;
    let serial = device.flock.serial_number.clone();
    let alice = studio
        .ok(&["account", "add", "alice", "--out", "alice.secret"])
        .await["account"]
        .to_string();
    let secret = std::fs::read_to_string(studio.path("alice.secret")).unwrap();
    let session = join(&studio.url, alice.clone(), secret.trim().to_owned())
        .await
        .unwrap();
    let echo = format!("re.mgmt.{serial}.echo");
    let log = format!("reswarm.logs.{serial}.prod_1_x");
    let reach = async || {
        let called = call(&session, &echo, &[json!(1)]).await.is_ok();
        let read = subscribe(&session, &log, "exact").await;
        (called, read)
    };
    let (called, read) = reach().await;
    assert!(!called);
    assert_eq!(refusal(nothing(read)), DENIED);
    for topic in ["reswarm.logs.", "re.mgmt.", ""] {
        assert_eq!(
            refusal(nothing(subscribe(&session, topic, "prefix").await)),
            DENIED,
            "{topic:?}"
        );
    }

    studio.ok(&["account", "grant", &alice, "press", "NETWORK"]).await;
    let (called, read) = reach().await;
    assert!(called, "the device decides what it obeys");
    assert_eq!(refusal(nothing(read)), DENIED, "logs need READ");
    assert_eq!(
        refusal(publish(&session, &format!("re.mgmt.{serial}.data.1")).await),
        DENIED
    );
    publish(&session, &format!("re.mgmt.{serial}.term_write.1"))
        .await
        .unwrap();

    studio.ok(&["account", "grant", &alice, "press", "READ"]).await;
    let (_, read) = reach().await;
    let mut read = read.unwrap();
    device.publish(&log, json!("a line")).await;
    assert_eq!(next(&mut read).await.payload.args().unwrap(), ["a line".into()]);

    studio.ok(&["account", "revoke", &alice, "press", "READ"]).await;
    assert!(
        within("the end of the log", read.events.recv()).await.is_none(),
        "what may not be read any more is taken away"
    );
    studio
        .ok(&["account", "revoke", &alice, "press", "NETWORK"])
        .await;
    assert!(!reach().await.0);
}

#[tokio::test]
async fn an_account_reaches_a_device_that_it_has_just_added() {
    let studio = Studio::start().await;
    let alice = studio
        .ok(&["account", "add", "alice", "--out", "alice.secret"])
        .await["account"]
        .to_string();
    let secret = std::fs::read_to_string(studio.path("alice.secret")).unwrap();
    let mut config = ClientConfig::new(&studio.url, "realm1");
    config.credentials = Credentials::Cra {
        authid: alice,
        secret: secret.trim().to_owned(),
    };
    let session = within("join", Session::connect(&config)).await.unwrap();
    let name = Payload::from_kwargs(Dict::from([("name".to_owned(), "mine".into())]));
    let added = within(
        "add",
        session.call("studio.device.add", name, wamp::client::CallOptions::default()),
    )
    .await
    .unwrap();
    let added: Value = added.payload.first().unwrap().unwrap();
    let serial = added["device"]["serial_number"].as_str().unwrap();
    nothing(subscribe(&session, &format!("reswarm.logs.{serial}.prod_1_x"), "exact").await).unwrap();
}
