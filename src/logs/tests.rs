//! The pipeline between a real daemon, a real router and a real database.

use std::collections::HashMap;
use std::path::Path;

use protocol::Stage;
use serde_json::{Value, json};
use testkit::docker::{self, Scope};
use testkit::wait;
use tokio::net::TcpListener;
use wamp::client::{ClientConfig, Session, Subscription};
use wamp::router::{JoinRequest, Limits, Permission, Principal, Router, RouterConfig};
use wamp::value::Dict;

use super::*;

mod saved;
mod stored;
mod turns;
mod unanswered;
mod unheard;

const SOON: Duration = Duration::from_secs(20);
const SERIAL: &str = "S-1";

fn app(key: u64) -> AppId {
    AppId {
        key,
        stage: Stage::Prod,
    }
}

/// A line of an operation that waits for nothing.
fn say(logs: &Logs, app: AppId, app_name: &str, line: String) {
    logs.line(Container::on(Channel::App, app, app_name), |container| {
        Command::OutputLine {
            container,
            line,
            room: None,
            _turn: None,
        }
    });
}

/// A router that lets everybody do everything but what starts with `forbidden`.
async fn router(forbidden: Option<&str>) -> String {
    router_of(forbidden, Limits::default()).await
}

async fn router_of(forbidden: Option<&str>, limits: Limits) -> String {
    router_and_url(forbidden, limits).await.1
}

async fn router_and_url(forbidden: Option<&str>, limits: Limits) -> (Router, String) {
    let permission = |uri: &str, allowed: bool| Permission {
        uri: uri.to_owned(),
        prefix: true,
        call: allowed,
        register: allowed,
        publish: allowed,
        subscribe: allowed,
        force_register: allowed,
        disclose: true,
    };
    let mut permissions = vec![permission("", true)];
    permissions.extend(forbidden.map(|uri| permission(uri, false)));
    let router = Router::new(RouterConfig {
        realm: "realm1".to_owned(),
        roles: HashMap::from([("all".to_owned(), permissions)]),
        authenticator: Arc::new(|_: JoinRequest| {
            Box::pin(async {
                Ok(Principal::Anonymous {
                    authid: "somebody".to_owned(),
                    role: "all".to_owned(),
                })
            })
        }),
        limits,
    });
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let serving = router.clone();
    tokio::spawn(async move { serving.serve(listener, CancellationToken::new()).await });
    (router, url)
}

async fn join(url: &str) -> Session {
    Session::connect(&ClientConfig::new(url, "realm1")).await.unwrap()
}

async fn view(session: &Session, container: &str) -> Subscription {
    let topic = protocol::uri::logs(SERIAL, container);
    session.subscribe(&topic, Dict::new()).await.unwrap()
}

async fn next(viewer: &mut Subscription) -> Value {
    let event = tokio::time::timeout(SOON, viewer.events.recv()).await;
    let event = event.expect("an event in time").expect("an open subscription");
    event.payload.args().unwrap()[0].to_json()
}

/// Reads messages until the output received has `count` lines.
async fn next_lines(viewer: &mut Subscription, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let message = next(viewer).await;
        let text = message
            .as_str()
            .unwrap_or_else(|| panic!("output, not {message}"));
        lines.extend(text.split('\n').map(str::to_owned));
    }
    lines
}

async fn start(directory: &Path) -> (Logs, Store) {
    let (store, _) = Store::open(&directory.join("reagent.db")).await.unwrap();
    let engine = Engine::new().unwrap();
    let logs = Logs::start(SERIAL.to_owned(), store.clone(), engine, CancellationToken::new());
    (logs, store)
}

/// A pipeline with everything around it.
struct Rig {
    logs: Logs,
    store: Store,
    /// Of the router.
    url: String,
    /// Somebody who is no agent.
    other: Session,
    _directory: tempfile::TempDir,
}

/// A pipeline, not attached, and a router that lets everybody do everything.
async fn rig() -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let (logs, store) = start(directory.path()).await;
    let url = router(None).await;
    Rig {
        logs,
        store,
        other: join(&url).await,
        url,
        _directory: directory,
    }
}

impl Rig {
    /// Attaches the pipeline to the router.
    async fn attach(&self) {
        self.logs.attach(join(&self.url).await).await;
    }

    /// Begins the history of an app anew, attached, with a viewer that was there before.
    async fn viewed(&self, app: AppId, name: &str) -> Subscription {
        let viewer = view(&self.other, &protocol::naming::container(app, name)).await;
        self.logs.clear_history(app, name);
        self.attach().await;
        viewer
    }
}

/// Output is let through from some moment after the subscription on: sends until it arrives.
async fn wait_for_open_gate(logs: &Logs, app: AppId, name: &str, viewer: &mut Subscription) {
    wait::until_async("output reaches the viewer", SOON, || {
        say(logs, app, name, "probe".to_owned());
        let probe = viewer.events.try_recv().ok();
        async move { probe }
    })
    .await;
    // What is still under way.
    logs.agent_line(app, name, "end of probes");
    while next(viewer).await.is_string() {}
}

#[tokio::test]
async fn agent_lines_arrive_at_once_and_in_order_with_output() {
    let rig = rig().await;
    let mut viewer = rig.viewed(app(1), "MyApp").await;
    let logs = &rig.logs;
    logs.agent_line(app(1), "MyApp", "hello");
    say(logs, app(1), "MyApp", "one".to_owned());
    say(logs, app(1), "MyApp", "two".to_owned());
    logs.agent_line(app(1), "MyApp", "bye");
    logs.clear_viewers(app(1), "MyApp");
    assert_eq!(
        next(&mut viewer).await,
        json!({"type": "build", "chunk": "hello"})
    );
    assert_eq!(next(&mut viewer).await, json!("one\ntwo"));
    assert_eq!(next(&mut viewer).await, json!({"type": "build", "chunk": "bye"}));
    assert_eq!(
        next(&mut viewer).await,
        json!({"type": "build", "chunk": "LOGGER_CLEAR"})
    );
    assert_eq!(
        logs.history(app(1), "MyApp").await,
        ["hello", "one", "two", "bye"]
    );
}

#[tokio::test]
async fn lines_that_are_lost_are_said_although_no_other_comes() {
    let rig = rig().await;
    let mut viewer = rig.viewed(app(1), "x").await;
    wait_for_open_gate(&rig.logs, app(1), "x", &mut viewer).await;
    rig.logs.lost.add("prod_1_x", 3, Cause::Rate);
    assert_eq!(
        next(&mut viewer).await,
        json!("… 3 log line(s) dropped (rate limit)")
    );
    rig.logs.lost.add("prod_1_x", 2, Cause::Rate);
    rig.logs.lost.add("prod_1_x", 1, Cause::Refused);
    assert_eq!(
        next(&mut viewer).await,
        json!("… 2 log line(s) dropped (rate limit)\n… 1 log line(s) dropped (refused by the router)")
    );
}

#[tokio::test]
async fn a_viewer_that_comes_later_or_reloads_its_page_gets_output() {
    let rig = rig().await;
    let logs = &rig.logs;
    logs.agent_line(app(1), "x", "makes the app known");
    rig.attach().await;

    let (first, second) = (&rig.other, join(&rig.url).await);
    let mut viewer = view(first, "prod_1_x").await;
    wait_for_open_gate(logs, app(1), "x", &mut viewer).await;
    first.unsubscribe(viewer.id).await.unwrap();
    let mut viewer = view(&second, "prod_1_x").await;
    wait_for_open_gate(logs, app(1), "x", &mut viewer).await;
    say(logs, app(1), "x", "seen".to_owned());
    assert_eq!(next(&mut viewer).await, json!("seen"));

    // An app that nobody knew when its viewer came.
    let mut early = view(&second, "prod_2_y").await;
    wait_for_open_gate(logs, app(2), "y", &mut early).await;
}

#[tokio::test]
async fn a_prefix_subscription_counts_whenever_it_comes() {
    let rig = rig().await;
    rig.logs.agent_line(app(1), "x", "makes the app known");
    rig.attach().await;
    let prefix = Dict::from([("match".to_owned(), wamp::Value::from("prefix"))]);
    let mut viewer = rig.other.subscribe("reswarm.logs.", prefix).await.unwrap();
    wait_for_open_gate(&rig.logs, app(1), "x", &mut viewer).await;
}

#[tokio::test]
async fn a_viewer_stays_served_when_the_agents_session_is_replaced() {
    let rig = rig().await;
    let logs = &rig.logs;
    let mut viewer = view(&rig.other, "prod_1_x").await;
    let lost = join(&rig.url).await;
    logs.attach(lost.clone()).await;
    wait_for_open_gate(logs, app(1), "x", &mut viewer).await;

    lost.abort();
    let _ = lost.closed().await;
    say(logs, app(1), "x", "nobody can be told".to_owned());
    logs.agent_line(app(1), "x", "nor of this");
    rig.attach().await;
    say(logs, app(1), "x", "back".to_owned());
    assert_eq!(next(&mut viewer).await, json!("nobody can be told"));
    assert_eq!(
        next(&mut viewer).await,
        json!({"type": "build", "chunk": "nor of this"})
    );
    assert_eq!(next(&mut viewer).await, json!("back"));
    let history = logs.history(app(1), "x").await;
    assert_eq!(
        history[history.len() - 3..],
        ["nobody can be told", "nor of this", "back"]
    );
}

#[tokio::test]
async fn with_a_router_that_does_not_tell_everything_is_published() {
    for forbidden in ["wamp.subscription.match", "wamp.subscription.on_"] {
        let directory = tempfile::tempdir().unwrap();
        let (logs, _store) = start(directory.path()).await;
        let url = router(Some(forbidden)).await;
        let session = join(&url).await;
        let mut viewer = view(&session, "prod_1_x").await;
        logs.agent_line(app(1), "x", "makes the app known");
        logs.attach(join(&url).await).await;
        say(&logs, app(1), "x", "open".to_owned());
        assert_eq!(next(&mut viewer).await, json!("open"), "{forbidden}");
    }
}

/// A container under the name of an app of this test alone, running `script`.
fn run(scope: &Scope, key: u64, script: &str) -> String {
    let name = format!("prod_{key}_{}", scope.name("app"));
    let image = scope.image("app", script);
    docker::docker(&[
        "run",
        "--detach",
        "--tty",
        "--network",
        "none",
        "--name",
        &name,
        &image,
    ])
    .unwrap();
    name
}

/// Removes the container of an app, whose name cannot begin with the scope's prefix.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        docker::remove(&self.0);
    }
}

#[tokio::test]
async fn a_followed_container_is_heard_once_and_to_the_end() {
    let rig = rig().await;
    let (logs, store) = (&rig.logs, &rig.store);
    let scope = Scope::new();
    let app_name = scope.name("app");
    let script = "trap 'echo last words; exit 3' TERM; seq 1 3; while :; do sleep 0.1; done";
    let mut viewer = rig.viewed(app(7), &app_name).await;

    let name = run(&scope, 7, script);
    let _removed = Removed(name.clone());
    logs.follow(app(7), &app_name);
    logs.follow(app(7), &app_name);
    assert_eq!(next_lines(&mut viewer, 3).await, ["1", "2", "3"]);
    docker::docker(&["stop", "--time", "5", &name]).unwrap();
    assert_eq!(next_lines(&mut viewer, 1).await, ["last words"]);
    wait::until_async("the history is saved when the log ends", SOON, || async {
        let stored = store.log_history(app(7)).await.unwrap();
        (stored == ["1", "2", "3", "last words"]).then_some(())
    })
    .await;

    // The same container again: only what is new.
    docker::docker(&["start", &name]).unwrap();
    logs.follow(app(7), &app_name);
    assert_eq!(next_lines(&mut viewer, 3).await, ["1", "2", "3"]);
    assert_eq!(
        logs.history(app(7), &app_name).await,
        ["1", "2", "3", "last words", "1", "2", "3"]
    );
    logs.close().await;
}

#[tokio::test]
async fn a_restart_of_the_agent_neither_repeats_nor_loses_lines() {
    let directory = tempfile::tempdir().unwrap();
    let scope = Scope::new();
    let app_name = scope.name("app");
    let name = run(
        &scope,
        8,
        "seq 1 3; while ! [ -e /tmp/go ]; do sleep 0.1; done; seq 4 6; sleep 100",
    );
    let _removed = Removed(name.clone());
    let (logs, store) = start(directory.path()).await;
    logs.follow(app(8), &app_name);
    logs.agent_line(app(8), &app_name, "from the agent");
    // With output in it, the history is answered from memory alone.
    say(&logs, app(8), &app_name, "from an operation".to_owned());
    wait::until_async("the log is read", SOON, || async {
        (logs.history(app(8), &app_name).await.len() == 5).then_some(())
    })
    .await;
    let before = logs.history(app(8), &app_name).await;
    logs.close().await;
    store.close().await;

    docker::docker(&["exec", &name, "/bin/sh", "-c", ": > /tmp/go"]).unwrap();
    let (logs, _store) = start(directory.path()).await;
    assert_eq!(logs.history(app(8), &app_name).await, before, "from the database");
    logs.follow(app(8), &app_name);
    let history = wait::until_async("the rest is read", SOON, || async {
        let history = logs.history(app(8), &app_name).await;
        (history.len() >= 8).then_some(history)
    })
    .await;
    assert_eq!(
        history,
        [&before[..], &["4", "5", "6"].map(str::to_owned)].concat()
    );
}

#[tokio::test]
async fn a_history_without_container_lines_is_completed_from_the_container() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, _store) = start(directory.path()).await;
    let scope = Scope::new();
    let app_name = scope.name("app");
    assert!(logs.history(app(9), &app_name).await.is_empty());
    let name = run(&scope, 9, "seq 1 60");
    let _removed = Removed(name.clone());
    wait::until("the container has ended", SOON, || {
        (docker::inspect(&name, "{{.State.Status}}").as_deref() == Some("exited")).then_some(())
    });
    let last: Vec<String> = (11..=60).map(|number| number.to_string()).collect();
    assert_eq!(logs.history(app(9), &app_name).await, last);
    logs.agent_line(app(9), &app_name, "Stopped");
    assert_eq!(logs.history(app(9), &app_name).await[..2], ["Stopped", "11"]);
    say(&logs, app(9), &app_name, "pulling".to_owned());
    assert_eq!(logs.history(app(9), &app_name).await, ["Stopped", "pulling"]);
    logs.clear_history(app(9), &app_name);
    assert_eq!(logs.history(app(9), &app_name).await, last);
}

#[tokio::test]
async fn of_a_flood_every_line_is_delivered_or_announced_as_dropped() {
    const LINES: u64 = 50_000;
    let rig = rig().await;
    let logs = &rig.logs;
    let scope = Scope::new();
    let app_name = scope.name("app");
    let mut viewer = rig.viewed(app(10), &app_name).await;
    let name = run(&scope, 10, &format!("seq 1 {LINES}; sleep 100"));
    let _removed = Removed(name);
    let began = std::time::Instant::now();
    logs.follow(app(10), &app_name);
    let (mut delivered, mut dropped) = (0, 0);
    while delivered + dropped < LINES {
        for line in next(&mut viewer).await.as_str().unwrap().split('\n') {
            match line.strip_prefix("… ").and_then(|rest| rest.split_once(' ')) {
                Some((count, rest)) => {
                    assert_eq!(rest, "log line(s) dropped (rate limit)");
                    dropped += count.parse::<u64>().unwrap();
                }
                None => {
                    delivered += 1;
                    assert_eq!(line, (delivered + dropped).to_string());
                }
            }
        }
    }
    println!(
        "{delivered} delivered, {dropped} dropped in {:?}",
        began.elapsed()
    );
    assert_eq!(delivered + dropped, LINES);
    assert!(delivered > 0);
}

/// Starts a container of a compose project as compose labels it.
fn run_service(image: &str, project: &str, service: &str, number: u32) -> String {
    let name = format!("{project}-{service}-{number}");
    let label = |key: &str, value: &str| format!("com.docker.compose.{key}={value}");
    docker::docker(&[
        "run",
        "--detach",
        "--network",
        "none",
        "--name",
        &name,
        "--label",
        &label("project", project),
        "--label",
        &label("service", service),
        "--label",
        &label("container-number", &number.to_string()),
        image,
    ])
    .unwrap();
    name
}

#[tokio::test]
async fn all_services_of_a_project_are_heard_under_their_names_until_the_last_is_gone() {
    let rig = rig().await;
    let logs = &rig.logs;
    let scope = Scope::new();
    let app_name = scope.name("app");
    let project = format!("{}_compose", scope.name("p"));
    let mut viewer = rig.viewed(app(11), &app_name).await;
    let run = |service: &str, script: &str| {
        let image = scope.image(service, script);
        run_service(&image, &project, service, 1)
    };

    let web = run("web", "echo from web; echo and more; while :; do sleep 1; done");
    logs.follow_project(app(11), &app_name, &project);
    assert_eq!(
        next_lines(&mut viewer, 2).await,
        ["web-1  | from web", "web-1  | and more"]
    );
    // One that comes later and is gone in a moment, and comes again.
    let job = run("job", "echo done");
    assert_eq!(next_lines(&mut viewer, 1).await, ["job-1  | done"]);
    docker::docker(&["start", &job]).unwrap();
    assert_eq!(next_lines(&mut viewer, 1).await, ["job-1  | done"]);
    docker::remove(&job);
    docker::remove(&web);

    // The project is over: what comes now is followed when asked for.
    let again = run("again", "echo new; while :; do sleep 1; done");
    wait::until_async("the new project is followed", SOON, || {
        logs.follow_project(app(11), &app_name, &project);
        let line = viewer.events.try_recv().ok();
        async move { line }
    })
    .await;
    assert_eq!(
        logs.history(app(11), &app_name).await,
        [
            "web-1  | from web",
            "web-1  | and more",
            "job-1  | done",
            "job-1  | done",
            "again-1  | new"
        ]
    );
    docker::remove(&again);
    logs.close().await;
}

#[tokio::test]
async fn a_publication_speaks_on_its_own_topic_and_leaves_the_apps_history_alone() {
    let rig = rig().await;
    let (logs, store) = (&rig.logs, &rig.store);
    let dev = AppId {
        key: 12,
        stage: Stage::Dev,
    };
    let mut viewer = view(&rig.other, "pub_12_myapp").await;
    rig.attach().await;
    logs.agent_line(dev, "MyApp", "of the app");
    logs.agent_line_on(Channel::Publication, dev, "MyApp", "Starting image build...");
    let mut operation = logs.operation(Channel::Publication, dev, "MyApp");
    operation.line("Step 1/2".to_owned()).await;
    assert_eq!(
        next(&mut viewer).await,
        json!({"type": "build", "chunk": "Starting image build..."})
    );
    assert_eq!(next(&mut viewer).await, json!("Step 1/2"));
    assert_eq!(logs.history(dev, "MyApp").await[..1], ["of the app"]);
    logs.close().await;
    assert_eq!(store.log_history(dev).await.unwrap(), ["of the app"]);
}
