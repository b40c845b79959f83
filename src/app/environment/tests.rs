use protocol::request::parse_row;
use protocol::{AppId, credentials};
use serde_json::json;

use super::*;

fn flock() -> Flock {
    Flock {
        name: "gateway".to_owned(),
        secret: "device-secret".to_owned(),
        swarm_key: 2,
        device_key: 3,
        swarm_name: "fleet".to_owned(),
        swarm_owner_name: "owner".to_owned(),
        serial_number: "abc".to_owned(),
        device_endpoint_url: "ws://localhost:8080/ws-re-dev".to_owned(),
        docker_registry_url: "r/".to_owned(),
        docker_main_repository: "apps/".to_owned(),
        environment: String::new(),
        appliance_domain: String::new(),
        update_url: String::new(),
        board_model: String::new(),
        certificate: String::new(),
        certificate_key: String::new(),
    }
}

fn request(stage: &str, members: Value) -> AppRequest {
    let mut row = json!({"app_key": 6, "app_name": "MyApp", "stage": stage, "target_state": "RUNNING"});
    let (Value::Object(row), Value::Object(members)) = (&mut row, members) else {
        unreachable!()
    };
    row.extend(members);
    parse_row(&Value::Object(row.clone())).unwrap()
}

fn made(flock: &Flock, request: &AppRequest) -> Environment {
    Environment::new(&Inputs {
        flock,
        request,
        credential: None,
        lan_ip: None,
        base_url: None,
        bindings: &[],
    })
}

#[test]
fn the_order_and_the_values_are_those_of_the_contract() {
    let flock = flock();
    let request = request(
        "PROD",
        json!({
            "instance_key": 4,
            "environment": {"MQTT_HOST": {"value": "broker.local"}},
            "environment_template": {"MQTT_PORT": {"defaultValue": 1883}, "MQTT_HOST": {"defaultValue": "x"}},
        }),
    );
    let app = AppId {
        key: 6,
        stage: Stage::Prod,
    };
    let credential = credentials::derive("key", "abc", app, 2).unwrap();
    let binding = |container_port, protocol, host_port| PortBinding {
        container_port,
        protocol,
        host_port,
    };
    let environment = Environment::new(&Inputs {
        flock: &flock,
        request: &request,
        credential: Some(&credential),
        lan_ip: Some(Ipv4Addr::new(192, 168, 0, 9)),
        base_url: Some("https://studio"),
        bindings: &[
            binding(8080, WireProtocol::Tcp, 40_001),
            binding(53, WireProtocol::Udp, 40_002),
            binding(53, WireProtocol::Tcp, 40_003),
        ],
    });
    let secret = format!("APP_AUTH_SECRET={}", credential.secret);
    assert_eq!(
        environment.for_container(),
        [
            "DEVICE_SERIAL_NUMBER=abc",
            "ENV=PROD",
            "DEVICE_KEY=3",
            "SWARM_KEY=2",
            "APP_KEY=6",
            "APP_NAME=MyApp",
            "DEVICE_NAME=gateway",
            "DEVICE_ENDPOINT_URL=ws://host.docker.internal:8080/ws-re-dev",
            "TUNNEL_DOMAIN=app.ironflock.com",
            "APP_AUTH_ID=app-6-prod-e2@abc",
            secret.as_str(),
            "DEVICE_LAN_IP=192.168.0.9",
            "INSTANCE_KEY=4",
            "RESWARM_URL=https://studio",
            "DEVICE_URL=https://studio/owner/swarms/fleet/settings/devices/gateway",
            "MQTT_HOST=broker.local",
            "MQTT_PORT=1883",
            "DEVICE_PORT_FOR_53=40003",
            "DEVICE_PORT_FOR_8080=40001",
        ]
    );
}

#[test]
fn values_keep_their_digits_and_unusable_entries_are_left_out() {
    let request = request(
        "PROD",
        json!({
            "environment": {
                "BIG": {"value": 1_000_000}, "LIST": {"value": [1, "a"]}, "NOTHING": {"value": null},
                "LINES": {"value": "a\nb\tc\r"}, "ODD": "not an object", "A=B": {"value": 1}, "": {"value": 1},
                "APP_AUTH_SECRET": {"value": "stolen"},
            },
            "environment_template": {
                "NOTHING": {"defaultValue": "default"}, "EMPTY": {"defaultValue": null},
                "APP_AUTH_ID": {"defaultValue": "stolen"}, "PORT": {"defaultValue": 80},
            },
        }),
    );
    let all = made(&flock(), &request).for_container();
    assert_eq!(
        all[9..],
        [
            "BIG=1000000",
            "LIST=[1,\"a\"]",
            "LINES=a\\nb\\tc\\r",
            "NOTHING=default",
            "PORT=80"
        ]
    );
}

#[test]
fn a_dev_app_gets_all_defaults_and_no_user_variables() {
    let request = request(
        "DEV",
        json!({
            "environment": {"A": {"value": "user"}},
            "environment_template": {"A": {"defaultValue": "default"}, "ENV": {"defaultValue": "mine"}},
        }),
    );
    let environment = made(&flock(), &request);
    assert_eq!(environment.for_container()[9..], ["A=default", "ENV=mine"]);
    assert_eq!(environment.for_files()["ENV"], "mine");
}

#[test]
fn a_long_value_exists_as_file_only() {
    let request = request(
        "PROD",
        json!({"environment": {"BIG": {"value": "x".repeat(LONGEST_ENTRY)}}}),
    );
    let environment = made(&flock(), &request);
    assert!(
        !environment
            .for_container()
            .iter()
            .any(|entry| entry.starts_with("BIG="))
    );
    assert_eq!(environment.for_files()["BIG"].len(), LONGEST_ENTRY);
}

#[test]
fn only_loopback_endpoints_are_rewritten() {
    for (url, expected) in [
        (
            "ws://localhost:8080/ws-re-dev",
            "ws://host.docker.internal:8080/ws-re-dev",
        ),
        ("ws://[::1]:8080/ws", "ws://host.docker.internal:8080/ws"),
        ("ws://localhost/ws", "ws://host.docker.internal/ws"),
        ("ws://127.0.0.1", "ws://host.docker.internal"),
        ("wss://192.168.0.21:18080/x", "wss://192.168.0.21:18080/x"),
        ("wss://localhost.example/x", "wss://localhost.example/x"),
        ("", ""),
        ("garbage", "garbage"),
    ] {
        assert_eq!(reachable_from_container(url), expected);
    }
}

#[test]
fn an_island_has_an_address_too() {
    let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        br-1a2b\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nnonsense\n";
    let found: Vec<Ipv4Addr> = attached_networks(routes).collect();
    assert_eq!(found, [Ipv4Addr::new(192, 0, 2, 0)]);
    // On every machine the loopback leads to itself.
    assert_eq!(source_toward(Ipv4Addr::LOCALHOST), Some(Ipv4Addr::LOCALHOST));
}
