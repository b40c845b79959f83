use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The example of the contract, 2.8.
const EXAMPLE: &str = r#"{
 "name": "press-07",
 "secret": "c2VjcmV0LXZhbHVl",
 "board": {
  "cpu": "cortex-a72",
  "docs": null,
  "board": "raspberrypi",
  "model": "raspberrypi4-64",
  "boardname": "Raspberry Pi",
  "modelname": "Raspberry Pi 4",
  "reflasher": false,
  "architecture": "arm64"
 },
 "status": "DISCONNECTED",
 "password": "",
 "wlanssid": "",
 "swarm_key": 42,
 "device_key": 1337,
 "swarm_name": "plant_north",
 "description": null,
 "architecture": "arm64",
 "serial_number": "7f0c6a1e-64c2-4c0e-9d4b-2f1f3a6b5c11",
 "authentication": {
  "key": "",
  "certificate": ""
 },
 "swarm_owner_name": "acme",
 "config_passphrase": "",
 "device_endpoint_url": "wss://cbw.ironflock.com/ws-re-dev",
 "environment": "production",
 "docker_registry_url": "registry.ironflock.com/",
 "docker_main_repository": "apps/"
}"#;

fn example_with(name: &str, value: Value) -> String {
    let mut members: Map<String, Value> = serde_json::from_str(EXAMPLE).unwrap();
    members.insert(name.to_owned(), value);
    Value::Object(members).to_string()
}

fn smallest() -> Value {
    json!({
        "serial_number": "s", "secret": "x", "swarm_key": 1, "device_key": 2,
        "device_endpoint_url": "ws://localhost:8080/ws"
    })
}

#[test]
fn the_example_of_the_contract_survives_byte_for_byte() {
    let document = FlockDocument::parse(EXAMPLE).unwrap();
    assert_eq!(document.to_text(), EXAMPLE);

    let flock = document.flock();
    assert_eq!((flock.swarm_key, flock.device_key), (42, 1337));
    assert_eq!(flock.board_model, "raspberrypi4-64");
    assert_eq!(flock.environment, "production");
    assert_eq!(flock.appliance_domain, "");
}

#[test]
fn a_document_without_a_mandatory_member_is_refused_by_name() {
    for name in [
        "device_endpoint_url",
        "serial_number",
        "secret",
        "swarm_key",
        "device_key",
    ] {
        for unusable in [
            json!(null),
            json!(""),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(true),
            json!([]),
            json!({}),
        ] {
            let refused = FlockDocument::parse(&example_with(name, unusable.clone()));
            assert_eq!(
                refused.unwrap_err(),
                FlockError::Member(name),
                "{name} = {unusable}"
            );
        }
    }
}

#[test]
fn a_text_that_is_no_object_is_refused() {
    for text in [
        "",
        " ",
        "null",
        "[]",
        "\"x\"",
        "{",
        &EXAMPLE[..EXAMPLE.len() - 1],
        "{}{}",
        "{\"name\": 1e999}",
    ] {
        let refused = FlockDocument::parse(text).unwrap_err();
        assert!(matches!(refused, FlockError::Syntax(_)), "{text:?}: {refused:?}");
    }
}

#[test]
fn keys_written_as_text_or_whole_float_are_read() {
    for value in [json!(7), json!("7"), json!(7.0)] {
        let document = FlockDocument::parse(&example_with("swarm_key", value.clone())).unwrap();
        assert_eq!(document.flock().swarm_key, 7, "{value}");
    }
}

#[test]
fn optional_members_of_the_wrong_type_read_as_empty() {
    let document = FlockDocument::parse(&example_with("name", json!(5))).unwrap();
    assert_eq!(document.flock().name, "");
    assert_eq!(document.flock().swarm_name, "plant_north");
}

#[test]
fn keys_match_in_any_case_and_the_last_spelling_counts() {
    let mut value = smallest();
    value["NAME"] = json!("first");
    value["Name"] = json!("second");
    let mut document = FlockDocument::parse(&value.to_string()).unwrap();
    assert_eq!(document.flock().name, "second");

    document.set_name("third");
    assert_eq!(document.flock().name, "third");
    assert!(
        document
            .to_text()
            .contains("\"NAME\": \"first\",\n \"Name\": \"third\"")
    );
}

#[test]
fn exactly_the_two_outdated_addresses_are_migrated_once() {
    let mut value = smallest();
    value["docker_registry_url"] = json!("registry.reswarm.io/");
    value["device_endpoint_url"] = json!("wss://cbw.record-evolution.com/ws-re-dev");
    let mut document = FlockDocument::parse(&value.to_string()).unwrap();
    assert!(document.migrate());
    assert_eq!(document.flock().docker_registry_url, "registry.ironflock.com/");
    assert_eq!(
        document.flock().device_endpoint_url,
        "wss://cbw.ironflock.com/ws-re-dev"
    );
    assert!(!document.migrate());

    for near_miss in [
        "registry.reswarm.io",
        "REGISTRY.reswarm.io/",
        "registry.ironflock.com/",
    ] {
        let text = example_with("docker_registry_url", json!(near_miss));
        let mut document = FlockDocument::parse(&text).unwrap();
        assert!(!document.migrate(), "{near_miss}");
        assert_eq!(document.flock().docker_registry_url, near_miss);
    }
}

#[test]
fn unknown_members_and_their_order_survive_a_change() {
    let mut value = smallest();
    value["owner_account_key"] = json!(12);
    value["latestImages"] = json!({"b": [1], "a": {}});
    let mut document = FlockDocument::parse(&value.to_string()).unwrap();
    document.set_swarm_key(9);
    assert_eq!(
        document.to_text(),
        "{\n \"serial_number\": \"s\",\n \"secret\": \"x\",\n \"swarm_key\": 9,\n \"device_key\": 2,\n \
         \"device_endpoint_url\": \"ws://localhost:8080/ws\",\n \"owner_account_key\": 12,\n \"latestImages\": {\n  \
         \"b\": [\n   1\n  ],\n  \"a\": {}\n }\n}"
    );
}

#[test]
fn a_member_that_was_absent_goes_to_its_place_in_the_table() {
    let mut document = FlockDocument::parse(EXAMPLE).unwrap();
    document.set_update_url("https://updates.example");
    assert!(document.to_text().ends_with(
        " \"docker_main_repository\": \"apps/\",\n \"update_url\": \"https://updates.example\"\n}"
    ));

    let mut document = FlockDocument::parse(&smallest().to_string()).unwrap();
    document.set_name("gate");
    assert!(
        document
            .to_text()
            .starts_with("{\n \"name\": \"gate\",\n \"serial_number\"")
    );
}

#[test]
fn empty_values_change_nothing() {
    let before = FlockDocument::parse(EXAMPLE).unwrap();
    let mut after = before.clone();
    after.set_name("");
    after.set_swarm_name("");
    after.set_swarm_owner_name("");
    after.set_update_url("");
    after.set_swarm_key(0);
    assert_eq!(after, before);
}

#[test]
fn special_characters_are_escaped_as_the_reference_does() {
    let text = example_with("name", json!("a<b>&c\u{2028}\u{2029}ü\"\n"));
    let document = FlockDocument::parse(&text).unwrap();
    assert!(
        document
            .to_text()
            .contains(r#""name": "a\u003cb\u003e\u0026c\u2028\u2029ü\"\n""#),
        "{}",
        document.to_text()
    );
    assert_eq!(FlockDocument::parse(&document.to_text()).unwrap(), document);
}

#[test]
fn a_new_document_has_every_member_in_table_order() {
    let flock = FlockDocument::parse(EXAMPLE).unwrap().flock();
    let document = FlockDocument::issue(&flock);
    assert_eq!(document.flock(), flock);
    let keys: Vec<&String> = document.members.keys().collect();
    let expected: Vec<&&str> = ORDER
        .iter()
        .filter(|name| !["insecure-registries", "appliance_domain", "update_url"].contains(name))
        .collect();
    assert_eq!(format!("{keys:?}"), format!("{expected:?}"));
    assert_eq!(FlockDocument::parse(&document.to_text()).unwrap(), document);

    // Members of the example that the agent does not work with are empty; everything else is the same text.
    let mut emptied = EXAMPLE.to_owned();
    for known in [
        "cortex-a72",
        "\"raspberrypi\"",
        "Raspberry Pi 4",
        "Raspberry Pi",
        "\"arm64\"",
    ] {
        emptied = emptied.replace(known, if known.starts_with('"') { "\"\"" } else { "" });
    }
    assert_eq!(document.to_text(), emptied);
}

#[test]
fn the_environment_follows_the_member_then_the_endpoint() {
    for (environment, endpoint, expected) in [
        ("staging", "wss://cbw.datapods.io/ws", "staging"),
        ("", "wss://cbw.datapods.io/ws", "test"),
        ("", "wss://cbw.record-evolution.com/ws-re-dev", "production"),
        ("", "wss://cbw.ironflock.com/ws-re-dev", "production"),
        ("", "wss://cbw.ironflock.dev/ws-re-dev", "test"),
        ("", "ws://ironflock_router:8080/ws-re-dev", "local"),
    ] {
        let mut flock = FlockDocument::parse(EXAMPLE).unwrap().flock();
        flock.environment = environment.to_owned();
        flock.device_endpoint_url = endpoint.to_owned();
        assert_eq!(
            flock.effective_environment(),
            expected,
            "{environment:?} {endpoint}"
        );
    }
}

#[test]
fn debug_output_never_shows_a_secret() {
    let text = example_with("password", json!("wifi-password"));
    let document = FlockDocument::parse(&text).unwrap();
    let shown = format!("{document:?} {:?}", document.flock());
    assert!(shown.contains("press-07"), "{shown}");
    assert!(
        !shown.contains("c2VjcmV0LXZhbHVl") && !shown.contains("wifi-password"),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(text in "\\PC*") {
        let _ = FlockDocument::parse(&text);
    }

    #[test]
    fn what_is_written_reads_back_the_same(name in "\\PC{1,20}", key in 1_u64.., extra in "[a-z]{1,8}", value in "\\PC*") {
        let mut members = smallest();
        members[format!("x_{extra}")] = json!(value);
        let mut document = FlockDocument::parse(&members.to_string()).unwrap();
        document.set_name(&name);
        document.set_swarm_key(key);
        let again = FlockDocument::parse(&document.to_text()).unwrap();
        prop_assert_eq!(&again, &document);
        prop_assert_eq!(again.flock().name, name);
        prop_assert_eq!(again.flock().swarm_key, key);
    }
}
