//! How long an update of the agent itself takes, on a network that costs nothing: from the call of `update_agent` to
//! CONNECTED of the new version, which is the same program under another number.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use testkit::release::{BucketDir, Signer};
use testkit::static_server::StaticServer;

use super::{
    CallOptions, Command, Instant, MINUTE, Payload, Process, SECRET, Session, agent, config, json, mpsc,
    percentile, promise, router, serve, serve_plain,
};

const UPDATES: usize = 5;
const SERIAL: &str = "00000000-0000-4000-8000-000000000002";
const OLD: &str = reagent::cli::VERSION;
const NEW: &str = "7.7.7";

pub(super) async fn measure() {
    let old = std::fs::read(agent()).expect("the agent was built");
    let new = rebadged(&old);
    let mut times = Vec::new();
    for _ in 0..UPDATES {
        times.push(update(&old, &new).await);
    }
    promise(
        "update_to_connected_p50",
        percentile(&mut times, 0.5) / 1e6,
        "s",
        5.0,
    );
}

/// The same program, which calls itself [`NEW`].
fn rebadged(old: &[u8]) -> Vec<u8> {
    let (from, to) = (format!("{OLD}\n"), format!("{NEW}\n"));
    let (from, to) = (from.as_bytes(), to.as_bytes());
    assert_eq!(from.len(), to.len(), "it takes the place of the other one");
    let mut new = old.to_vec();
    let places = old.windows(from.len()).enumerate();
    for (place, _) in places.filter(|(_, window)| *window == from) {
        new[place..place + to.len()].copy_from_slice(to);
    }
    assert_ne!(new, old, "the binary says its version");
    new
}

/// One device, from its first start to the new version.
async fn update(old: &[u8], new: &[u8]) -> std::time::Duration {
    let home = tempfile::tempdir().expect("a directory");
    let path = |name: &str| home.path().join(name);
    let (router, stop) = router();
    let url = serve_plain(&router, &stop).await;
    let backend = Session::connect(&config(&url, "system", SECRET))
        .await
        .expect("the backend joins");
    let (sender, mut connected) = mpsc::channel(1024);
    serve(&backend, "reswarm.devices.update_device_status", move |args| {
        if args["status"] == "CONNECTED" {
            let _ = sender.try_send(Instant::now());
        }
        json!({})
    })
    .await;
    for (procedure, answer) in [
        ("reswarm.containers.get_requested_app_states", json!([])),
        ("reswarm.devices.read_device_metadata", json!({"swarm_key": 1})),
        ("reswarm.devices.update_device_architecture", json!(null)),
    ] {
        serve(&backend, procedure, move |_| answer.clone()).await;
    }

    let (os, arch) = (
        reagent::system::platform::os(),
        reagent::system::platform::build_arch(),
    );
    let (bucket, signer) = (BucketDir::new(&path("bucket"), os, arch), Signer::new());
    bucket.publish(NEW, new, &signer);
    bucket.offer(NEW);
    let server = StaticServer::start(path("bucket"));
    let flock = json!({
        "name": "bench", "secret": SECRET, "swarm_key": 1, "device_key": 1, "swarm_name": "s", "swarm_owner_name": "o",
        "serial_number": SERIAL, "device_endpoint_url": url, "docker_registry_url": "127.0.0.1:9/",
        "docker_main_repository": "bench/", "environment": "production", "update_url": server.url(),
    });
    std::fs::write(path("device.flock"), flock.to_string()).expect("the .flock is written");
    // The key of this bucket; everything else is the product's.
    let setup = json!({"keys": [signer.public()]});
    std::fs::write(path("setup.json"), setup.to_string()).expect("the setup is written");
    install(&path("bin/reagent"), old);

    let mut command = Command::new(path("bin/reagent"));
    for (flag, name) in [
        ("-config", "device.flock"),
        ("-agentDir", "agent"),
        ("-appsDir", "agent/apps"),
        ("-dbFileName", "reagent.db"),
        ("-logFile", "reagent.log"),
    ] {
        command.arg(flag).arg(path(name));
    }
    command
        .args(["-nmw=false", "-update=false"])
        .env("REAGENT_LOCK_FILE", path("lock"))
        .env("REAGENT_UPDATE_SETUP", path("setup.json"));
    std::fs::create_dir_all(path("agent")).expect("a directory");
    let agent = Process::start("agent", &mut command);
    // An agent that was never connected would not wait for a new version to be.
    tokio::time::timeout(MINUTE, connected.recv())
        .await
        .expect("connected");
    let begin = Instant::now();
    let call = |name: &str| {
        let procedure = format!("re.mgmt.{SERIAL}.{name}");
        let backend = backend.clone();
        async move {
            let options = CallOptions::timeout(MINUTE);
            let result = backend
                .call(&procedure, Payload::from_args(Vec::new()), options)
                .await;
            Some(result.ok()?.payload.args().ok()?.first()?.to_json())
        }
    };
    let answer = call("update_agent").await.expect("the agent answers");
    assert_eq!(answer["DidAgentUpdate"], true, "{answer}");
    let arrived = async {
        loop {
            let at = connected.recv().await.expect("open");
            let metadata = call("get_agent_metadata").await.unwrap_or_default();
            if metadata["version"] == NEW {
                return at;
            }
        }
    };
    let at = tokio::time::timeout(MINUTE, arrived)
        .await
        .expect("the new version connects");
    drop(agent);
    stop.cancel();
    at.duration_since(begin)
}

fn install(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
    std::fs::write(path, content).expect("the agent is written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
}
