//! The studio as a component of a real Crossbar.io node, with the configuration that `docs/crossbar.md` shows.

use serde_json::{Value, json};
use testkit::crossbar::Crossbar;
use testkit::wait;
use wamp::client::{RequestError, Session};

use crate::harness::{Device, Studio, call, join, refusal};

const SECRET: &str = "the studio's own";
const AUTHENTICATOR: &str = "reswarm.auth.authenticate";

/// The configuration in the document, with ports of this test's own. `adapt` gets the permissions of a role by its name.
fn documented(adapt: impl Fn(&str, &mut Vec<Value>)) -> (Value, u16, u16) {
    let document = include_str!("../../../../docs/crossbar.md");
    let (_, rest) = document.split_once("```json\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let (port, dynamic_port) = (wait::free_port(), wait::free_port());
    let mut config: Value = serde_json::from_str(&text.replace("SECRET-OF-THE-STUDIO", SECRET)).unwrap();
    let worker = &mut config["workers"][0];
    for (transport, expected, own) in [(0, 8080, port), (1, 8081, dynamic_port)] {
        let endpoint = &mut worker["transports"][transport]["endpoint"];
        assert_eq!(endpoint["port"], expected);
        endpoint["port"] = json!(own);
        endpoint["interface"] = json!("127.0.0.1");
    }
    for role in worker["realms"][0]["roles"].as_array_mut().unwrap() {
        let name = role["name"].as_str().unwrap().to_owned();
        adapt(&name, role["permissions"].as_array_mut().unwrap());
    }
    (config, port, dynamic_port)
}

struct Attached {
    studio: Studio,
    device: Device,
    operator: Session,
    node: Crossbar,
}

/// How a studio is attached to the node.
fn flags(node: &Crossbar) -> [String; 6] {
    [
        "--router".to_owned(),
        node.url(),
        "--router-secret-file".to_owned(),
        "studio.secret".to_owned(),
        "--public-url".to_owned(),
        node.dynamic_url(),
    ]
}

async fn attach(adapt: impl Fn(&str, &mut Vec<Value>)) -> Attached {
    let (config, port, dynamic_port) = documented(adapt);
    let node = tokio::task::spawn_blocking(move || Crossbar::start_with(&config, port, dynamic_port))
        .await
        .unwrap()
        .unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("studio.secret"), SECRET).unwrap();
    let flags = flags(&node);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let studio = Studio::start_with(folder, &flags).await;
    assert_eq!(studio.url, node.dynamic_url());
    let flock = studio.add_device("press").await;
    let device = Device::connect(flock).await;
    let operator = studio.operator().await;
    Attached {
        studio,
        device,
        operator,
        node,
    }
}

/// Asks for a secret as the router does.
async fn ask(session: &Session, authid: &str) -> Result<Value, RequestError> {
    call(
        session,
        AUTHENTICATOR,
        &[json!("realm1"), json!(authid), json!({})],
    )
    .await
}

fn said(result: Result<Value, RequestError>) -> (String, String) {
    match result {
        Err(RequestError::Peer(answer)) => {
            let text = format!("{:?}", answer.payload.args().unwrap());
            (answer.uri, text)
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn the_documented_node_carries_a_fleet_and_gives_no_secret_away() {
    let attached = attach(|_, _| {}).await;
    let Attached {
        studio,
        device,
        operator,
        ..
    } = &attached;
    assert_eq!(studio.status("press").await, "CONNECTED");
    device.offer("echo", |payload| payload).await;
    let echoed = studio.ok(&["call", "press", "echo", "7"]).await;
    assert_eq!(echoed["args"], json!([7]));
    let log = protocol::uri::logs(&device.flock.serial_number, "prod_1_x");
    let mut lines = operator.subscribe(&log, wamp::Dict::new()).await.unwrap();
    device.publish(&log, json!("a line")).await;
    let line = crate::harness::within("the line", lines.events.recv())
        .await
        .unwrap();
    assert_eq!(line.payload.args().unwrap(), ["a line".into()]);

    let authid = format!("{}-{}", device.flock.swarm_key, device.flock.device_key);
    for session in [&device.session, operator] {
        for who in [authid.as_str(), "1", "system"] {
            assert_eq!(refusal(ask(session, who).await), "wamp.error.not_authorized");
        }
        for uri in ["re.mgmt.x.y", "wamp.session.list"] {
            assert_eq!(
                refusal(call(session, uri, &[]).await),
                "wamp.error.not_authorized"
            );
        }
    }
    let wrong = join(&studio.url, authid, "wrong".to_owned()).await.unwrap_err();
    assert!(wrong.is_credential_failure(), "{wrong:?}");
    let nobody = join(&studio.url, "system".to_owned(), String::new()).await;
    assert!(
        nobody.is_err(),
        "the studio's own authid is not for this listener"
    );

    device.session.leave().await;
    crate::harness::eventually("the testament arrives", async || {
        (studio.status("press").await == "DISCONNECTED").then_some(())
    })
    .await;

    // A node that was killed is joined again.
    let Attached { studio, mut node, .. } = attached;
    let node = tokio::task::spawn_blocking(move || node.restart(|| {}).map(|()| node));
    let _node = node.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    crate::harness::eventually("the studio answers again", async || {
        (studio.run(&["device", "list"]).await.code == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_is_connected_is_known_although_testaments_were_lost() {
    let Attached {
        studio,
        device,
        operator,
        mut node,
    } = attach(|_, _| {}).await;
    let lathe = Device::connect(studio.add_device("lathe").await).await;
    // Both are there all along, and report nothing meanwhile.
    let (code, folder) = studio.stop().await;
    assert_eq!(code, 0);
    // Nobody hears of that one.
    device.session.leave().await;
    let flags = flags(&node);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let studio = Studio::start_with(folder, &flags).await;
    assert_eq!(studio.status("press").await, "DISCONNECTED");
    assert_eq!(studio.status("lathe").await, "CONNECTED");

    // No testament survives the node.
    let node = tokio::task::spawn_blocking(move || node.restart(|| {}).map(|()| node));
    let _node = node.await.unwrap().unwrap_or_else(|error| panic!("{error}"));
    crate::harness::eventually("the studio answers again", async || {
        (studio.run(&["device", "list"]).await.code == 0).then_some(())
    })
    .await;
    assert_eq!(studio.status("lathe").await, "DISCONNECTED");
    drop((lathe, operator));
    let _lathe = Device::connect(studio.flock("lathe")).await;
    assert_eq!(studio.status("lathe").await, "CONNECTED");
}

#[tokio::test]
async fn a_node_that_names_no_sessions_has_devices_connected_when_they_say_so() {
    let Attached {
        studio, device, node, ..
    } = attach(|role, permissions| {
        if role == "system" {
            permissions.push(json!({
                "uri": "wamp.session.list", "match": "exact", "allow": {"call": false}, "cache": true,
            }));
        }
    })
    .await;
    let (_, folder) = studio.stop().await;
    let flags = flags(&node);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let studio = Studio::start_with(folder, &flags).await;
    assert_eq!(studio.status("press").await, "DISCONNECTED");
    device.report_status("CONNECTED").await.unwrap();
    assert_eq!(studio.status("press").await, "CONNECTED");
}

/// Everybody may call everything below `reswarm.`; `disclosed`: and says who it is.
fn careless(disclosed: bool) -> impl Fn(&str, &mut Vec<Value>) {
    move |role, permissions| {
        if role == "system" {
            return;
        }
        permissions.retain(|line| !line["uri"].as_str().unwrap().starts_with("reswarm.auth."));
        permissions.push(json!({
            "uri": AUTHENTICATOR, "match": "exact", "allow": {"call": true},
            "disclose": {"caller": disclosed, "publisher": disclosed}, "cache": true,
        }));
    }
}

#[tokio::test]
async fn a_careless_node_gets_no_secret_out_of_the_studio_either() {
    for disclosed in [true, false] {
        let Attached {
            device,
            operator,
            node: _node,
            ..
        } = &attach(careless(disclosed)).await;
        let authid = format!("{}-{}", device.flock.swarm_key, device.flock.device_key);
        for session in [&device.session, operator] {
            for who in [authid.as_str(), "1", "system"] {
                let (uri, text) = said(ask(session, who).await);
                assert_eq!(uri, "wamp.error.not_authorized", "{who}, disclosed: {disclosed}");
                assert!(
                    text.contains("only the router may ask"),
                    "the studio itself refuses: {text}"
                );
                assert!(!text.contains(&device.flock.secret));
            }
        }
    }
}
