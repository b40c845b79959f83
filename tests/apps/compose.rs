//! Compose apps with the real command line, whichever is there (`app-lifecycle.md` 5).
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use protocol::AppState::{
    Deleting, Downloading, Failed, Present, Removed, Running, Starting, Stopping, Uninstalled,
};
use protocol::{AppRequest, AppState, Stage, naming};
use reagent::app::Sync;
use serde_json::{Value, json};
use testkit::registry::Registry;
use testkit::{docker, wait};

use crate::device::{Device, FOREVER, LAST_WORDS, SECRET, SOON, TOKEN};

/// A device with a compose app; what compose made for it goes with it.
pub(crate) struct Stack {
    pub(crate) device: Device,
    pub(crate) project: String,
}

impl Stack {
    pub(crate) async fn start(stage: Stage) -> Stack {
        Stack::of(Device::start(stage).await)
    }

    pub(crate) fn of(device: Device) -> Stack {
        let project = naming::compose_project(device.app, &device.app_name);
        Stack { device, project }
    }

    /// A local image of this test.
    pub(crate) fn image(&self, name: &str, script: &str) -> String {
        self.device.scope.image(name, script)
    }

    pub(crate) fn wanted(&self, target: AppState, compose: &Value, members: Value) -> AppRequest {
        let mut all = json!({"docker_compose": compose});
        let (Value::Object(all_of_them), Value::Object(members)) = (&mut all, members) else {
            unreachable!()
        };
        all_of_them.extend(members);
        self.device.wanted(target, all)
    }

    pub(crate) async fn request(&self, target: AppState, compose: &Value) {
        let request = self.wanted(target, compose, json!({}));
        self.device.apps.request(request).await.unwrap();
    }

    /// The id of a service's container, if there is one.
    pub(crate) fn container(&self, service: &str) -> Option<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let found = docker::docker(&[
            "ps",
            "-aq",
            "--no-trunc",
            "--filter",
            &project,
            "--filter",
            &service,
        ]);
        found.unwrap().lines().next().map(str::to_owned)
    }

    /// How many containers, volumes and networks the project has.
    pub(crate) fn leftovers(&self) -> [usize; 3] {
        let label = format!("label=com.docker.compose.project={}", self.project);
        [
            &["ps", "-aq", "--filter", &label][..],
            &["volume", "ls", "-q", "--filter", &label],
            &["network", "ls", "-q", "--filter", &label],
        ]
        .map(|arguments| docker::docker(arguments).unwrap().lines().count())
    }

    async fn log(&self) -> Vec<String> {
        let device = &self.device;
        device.logs.history(device.app, &device.app_name).await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let label = format!("label=com.docker.compose.project={}", self.project);
        for (list, remove) in [
            (&["ps", "-aq"][..], &["rm", "--force", "--volumes"][..]),
            (&["volume", "ls", "-q"], &["volume", "rm"]),
            (&["network", "ls", "-q"], &["network", "rm"]),
        ] {
            let found = docker::docker(&[list, &["--filter", &label]].concat()).unwrap_or_default();
            for name in found.lines() {
                let _ = docker::docker(&[remove, &[name]].concat());
            }
        }
    }
}

/// Of every process that can be seen.
/// The command lines of all processes, by process.
fn command_lines() -> BTreeMap<u32, String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| {
        let id = process.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        Some((id, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines.collect()
}

/// Whether this process or one before it started the other. Tests beside this one use the same names and secrets.
fn is_ours(mut process: u32) -> bool {
    while process > 1 && process != std::process::id() {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        process = parent.and_then(|id| id.trim().parse().ok()).unwrap_or_default();
    }
    process == std::process::id()
}

pub(crate) fn web(image: &str) -> Value {
    json!({"services": {"web": {"image": image}}})
}

#[tokio::test]
async fn a_project_starts_stops_starts_again_and_leaves_with_its_volumes() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", LAST_WORDS);
    let compose = json!({
        "services": {
            "web": {"image": image, "volumes": ["state:/state"]},
            "side-car_2": {"image": stack.image("side", FOREVER)},
        },
        "volumes": {"state": {}},
    });
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    assert_eq!(stack.leftovers(), [2, 1, 1]);
    let log = stack.log().await;
    assert_eq!(
        log.first().unwrap(),
        &format!("Starting {}...", device.app_name),
        "{log:#?}"
    );
    assert!(
        log.contains(&format!("Now running app {} (1.0)", device.app_name)),
        "{log:#?}"
    );

    // A prune is told to leave them alone.
    assert!(device.apps.service_images().await.contains(&image));

    // What is there already is reported once more and not touched.
    let web = stack.container("web");
    stack.request(Running, &compose).await;
    device.reports(&[Running]).await;
    assert_eq!(stack.container("web"), web);

    stack.request(Present, &compose).await;
    device.reports(&[Stopping, Present]).await;
    assert_eq!(stack.leftovers()[..2], [0, 1], "volumes outlive a stop");
    let stopped = format!("Successfully stopped {}", device.app_name);
    device.said_all_before(&stopped).await;

    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    assert_ne!(stack.container("web"), web);

    stack.request(Uninstalled, &compose).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert_eq!(stack.leftovers(), [0, 0, 0]);
    assert!(!device.path(&format!("compose/{}", device.app_name)).exists());
    assert!(docker::images_of(&image).is_empty(), "its images go");
}

#[tokio::test]
async fn secrets_of_a_project_can_be_read_by_nobody_else_and_arrive_unchanged() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let values = [
        ("PLAIN", "simple"),
        ("SPACED", "  a  b  "),
        ("COMMENT", "a #b"),
        ("SINGLE", "it's"),
        ("DOUBLE", "say \"x\""),
        ("QUOTED", "\"all of it\""),
        ("TICKED", "'all of it'"),
        ("BACKSLASH", "c:\\new\\'dir\\\"\\"),
        ("LINES", "one\ntwo\tthree"),
        ("VARIABLE", "$PATH ${HOME} $$ ${NONE:-x} \\$x"),
        ("END_DOLLAR", "price in $"),
        ("MIX", "a=b;c|d&e<f>g(h)`i`!j*k?l[m]{n}~^%"),
        ("UMLAUT", "grüße"),
        ("EMPTY", ""),
    ];
    let environment: serde_json::Map<String, Value> = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!({"value": value})))
        .chain([("BAD NAME".to_owned(), json!({"value": "x"}))])
        .collect();
    let image = stack.image("web", &format!("env; echo done; {FOREVER}"));
    let request = stack.wanted(Running, &web(&image), json!({"environment": environment}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Starting, Running]).await;

    let container = stack.container("web").unwrap();
    let seen = docker::inspect(&container, "{{json .Config.Env}}").unwrap();
    let seen: Vec<String> = serde_json::from_str(&seen).unwrap();
    for (name, value) in values {
        // As in a single container, where these characters are replaced, too.
        let value = value.replace('\n', "\\n").replace('\t', "\\t");
        assert!(
            seen.contains(&format!("{name}={value}")),
            "{name}={value} in {seen:#?}"
        );
    }
    assert!(seen.contains(&"ENV=PROD".to_owned()), "{seen:#?}");
    device
        .logged("Warning: ignored environment variable(s) with invalid name(s): [\"BAD NAME\"]")
        .await;
    for file in ["docker-compose.json", ".env-compose"] {
        let path = device.path(&format!("compose/{}/{file}", device.app_name));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let mounted = docker::docker(&["exec", &container, "cat", "/data/env/SINGLE.txt"]);
    assert_eq!(mounted.as_deref(), Ok("it's"));
}

#[tokio::test]
async fn the_ports_of_services_are_published_where_the_agent_says() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    device.connect().await;
    let image = stack.image("web", FOREVER);
    let compose = json!({"services": {
        "web": {"image": image, "ports": ["8080:80", "81"]},
        "api": {"image": image, "ports": ["127.0.0.1:53:53/udp", {"target": 9000, "published": 9000}]},
    }});
    let rules = json!([{"port": 8080, "active": false, "name": "page"}]);
    let request = stack.wanted(Running, &compose, json!({"ports": rules}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Starting, Running]).await;

    let bindings = |service: &str| {
        let container = stack.container(service).unwrap();
        let found = docker::inspect(&container, "{{json .HostConfig.PortBindings}}").unwrap();
        serde_json::from_str::<Value>(&found).unwrap()
    };
    let host_port = |service: &str, port: &str| -> u16 {
        let found = bindings(service);
        let host = &found[port][0];
        assert_eq!(host["HostIp"], "0.0.0.0", "{found}");
        host["HostPort"].as_str().unwrap().parse().unwrap()
    };
    let page = host_port("web", "80/tcp");
    for found in [page, host_port("api", "53/udp"), host_port("api", "9000/tcp")] {
        assert!((40_000..50_000).contains(&found), "{found}");
    }
    let container = stack.container("api").unwrap();
    let env = docker::inspect(&container, "{{json .Config.Env}}").unwrap();
    assert!(env.contains(&format!("\"DEVICE_PORT_FOR_8080={page}\"")), "{env}");
    let reported = device.ports_reported().await;
    let last = reported.last().unwrap();
    assert_eq!(last["ports"][0]["host_port"], page, "{last}");

    // The next start keeps the port.
    let request = stack.wanted(Present, &compose, json!({"ports": rules}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Stopping, Present]).await;
    let request = stack.wanted(Running, &compose, json!({"ports": rules}));
    device.apps.request(request).await.unwrap();
    device.reports(&[Starting, Running]).await;
    assert_eq!(host_port("web", "80/tcp"), page);
}

#[tokio::test]
async fn helpers_that_do_their_work_and_end_are_no_failure() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let compose = json!({"services": {
        "init": {"image": stack.image("init", "echo prepared")},
        "web": {
            "image": stack.image("web", FOREVER),
            "depends_on": {"init": {"condition": "service_completed_successfully"}},
        },
    }});
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Running]).await;
    let init = stack.container("init").unwrap();
    assert_eq!(
        docker::inspect(&init, "{{.State.Status}} {{.State.ExitCode}}").as_deref(),
        Some("exited 0")
    );
}

#[tokio::test]
async fn a_service_that_fails_at_the_start_is_named_and_the_project_taken_away() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let compose = json!({"services": {
        "broken": {"image": stack.image("broken", "echo something is wrong; exit 3")},
        "web": {"image": stack.image("web", FOREVER)},
    }});
    stack.request(Running, &compose).await;
    device.reports(&[Starting, Failed]).await;
    device
        .logged("The app failed to start, reason: service broken exited with status code: 3")
        .await;
    device.logged("something is wrong").await;
    assert_eq!(stack.leftovers()[0], 0);
    // Stopping it downloads nothing and needs no start (W59).
    stack.request(Present, &compose).await;
    device.reports(&[Present]).await;
}

#[tokio::test]
async fn a_project_that_crashes_is_started_again_after_a_while() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Running]).await;
    let first = stack.container("web").unwrap();
    docker::kill(&first);
    device.reports(&[Failed]).await;
    device.logged("service web exited with status code: 137").await;
    device
        .logged("Entered a crashloop (1st attempt), retrying in ")
        .await;
    device.reports(&[Starting, Running]).await;
    assert_ne!(stack.container("web").unwrap(), first);
}

#[tokio::test]
async fn a_project_of_which_nothing_runs_any_more_is_not_started_again_at_once() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let image = stack.image("web", script);
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Running]).await;
    docker::docker(&["kill", "--signal", "TERM", &stack.container("web").unwrap()]).unwrap();
    device.reports(&[Present]).await;
    device
        .logged("Entered a crashloop (1st attempt), retrying in ")
        .await;
    device.reports(&[Starting, Running]).await;
}

#[tokio::test]
async fn a_running_project_outlives_the_agent_and_is_known_again() {
    let mut stack = Stack::start(Stage::Prod).await;
    let image = stack.image("web", FOREVER);
    let compose = json!({"services": {"web": {"image": image, "ports": ["8080:80"]}}});
    stack.request(Running, &compose).await;
    stack.device.reports(&[Starting, Running]).await;
    let web = stack.container("web");
    stack.device.restart(|_| {}).await;
    let request = stack.wanted(Running, &compose, json!({}));
    stack.device.apps.request(request).await.unwrap();
    stack.device.reports(&[Running]).await;
    assert_eq!(stack.container("web"), web);

    // What ended while nobody looked is started again.
    let project = format!("label=com.docker.compose.project={}", stack.project);
    stack
        .device
        .restart(|_| {
            let found = docker::docker(&["ps", "-q", "--filter", &project]).unwrap();
            found.lines().for_each(docker::kill);
        })
        .await;
    stack.device.reports(&[Failed, Starting, Running]).await;
    assert_ne!(stack.container("web"), web);
}

#[tokio::test]
async fn a_document_that_cannot_be_read_fails_in_words_and_can_be_removed() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let compose = json!({"services": []});
    stack.request(Running, &compose).await;
    device.reports(&[Failed]).await;
    stack.request(Removed, &compose).await;
    device.reports(&[Deleting, Removed]).await;
}

#[tokio::test]
async fn projects_of_others_are_never_touched() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let name = device.scope.name("foreign");
    let label = format!("com.docker.compose.project={}", stack.project);
    let service = "com.docker.compose.service=web";
    docker::docker(&[
        "run", "--detach", "--name", &name, "--label", &label, "--label", service, &image,
    ])
    .unwrap();
    let id = docker::inspect(&name, "{{.Id}}").unwrap();
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Failed]).await;
    device.logged("which was not made by this agent").await;
    stack.request(Uninstalled, &web(&image)).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    let rows = Sync {
        rows: Vec::new(),
        unreadable: 0,
    };
    device.apps.sync(rows).await.unwrap();
    let found = docker::inspect(&name, "{{.Id}} {{.State.Running}} {{.RestartCount}}");
    assert_eq!(found, Some(format!("{id} true 0")));
}

#[tokio::test]
async fn a_project_of_an_app_that_nobody_knows_goes_only_when_we_made_it() {
    let stack = Stack::start(Stage::Prod).await;
    let device = &stack.device;
    let image = stack.image("web", FOREVER);
    let roots = device.path("compose/gone/docker-compose.json");
    let run = |name: &str, project: &str, file: &str| {
        let labels = [
            format!("com.docker.compose.project={project}"),
            "com.docker.compose.service=web".to_owned(),
            format!("com.docker.compose.project.config_files={file}"),
        ];
        let name = device.scope.name(name);
        let mut arguments = vec!["run", "--detach", "--name", &name];
        for label in &labels {
            arguments.extend(["--label", label]);
        }
        arguments.push(&image);
        docker::docker(&arguments).unwrap();
        name
    };
    let project = format!("prod_{}_gone_compose", device.app.key + 1);
    let ours = roots.display().to_string();
    // Before the agent has seen Docker for the first time: its database may have been lost.
    let earlier = run("earlier", &format!("prod_{}_lost_compose", device.app.key), &ours);
    stack.request(Running, &web(&image)).await;
    device.reports(&[Starting, Running]).await;
    let orphan = run("orphan", &project, &ours);
    let foreign = run("foreign", &project, "/home/user/compose/x/docker-compose.json");
    let rows = vec![stack.wanted(Running, &web(&image), json!({}))];
    device.apps.sync(Sync { rows, unreadable: 0 }).await.unwrap();
    wait::until_async("the orphan is gone", SOON, || async {
        (docker::count(&orphan) == 0).then_some(())
    })
    .await;
    assert_eq!(docker::count(&foreign), 1);
    assert_eq!(docker::count(&earlier), 1);
    assert!(stack.container("web").is_some());
}

/// A registry with an image that is not on the device, its reference, and a stack that may fetch it.
async fn published(script: &str) -> (Registry, Stack, String) {
    let registry = Registry::start();
    registry.add_user(TOKEN, SECRET);
    let device = Device::with(Stage::Prod, Some(&registry.address()), None).await;
    let stack = Stack::of(device);
    let local = stack.image("published", script);
    let reference = registry.push(&local, "apps/web:1.0", TOKEN, SECRET);
    docker::remove_image(&local);
    (registry, stack, reference)
}

#[tokio::test]
async fn a_first_start_fetches_what_is_missing_with_a_login_that_leaves_no_trace() {
    let (_registry, stack, image) = published(FOREVER).await;
    let device = &stack.device;
    device.connect().await;
    stack.request(Running, &web(&image)).await;
    device.reports(&[Downloading, Starting, Running]).await;
    let log = stack.log().await;
    let at = |text: &str| log.iter().position(|line| line.starts_with(text));
    assert!(at("Downloading images for ") < at("Starting "), "{log:#?}");
    let logins = device.path("../downloads/registry-logins");
    assert!(!logins.exists() || std::fs::read_dir(logins).unwrap().next().is_none());
    // From now on nothing needs the registry: neither a stop nor a start.
    drop(_registry);
    stack.request(Present, &web(&image)).await;
    device.reports(&[Stopping, Present]).await;
}

#[tokio::test]
async fn an_app_is_installed_without_being_started() {
    let (_registry, stack, image) = published(FOREVER).await;
    let device = &stack.device;
    device.connect().await;
    stack.request(Present, &web(&image)).await;
    device.reports(&[Downloading, Present]).await;
    device.logged("Compose Image Installed successfully").await;
    assert_eq!(docker::images_of(&image).len(), 1);
    assert_eq!(stack.leftovers()[0], 0);
    // Every image goes with the app, and one that is gone already is no failure (W21).
    docker::remove_image(&image);
    stack.request(Removed, &web(&image)).await;
    device.reports(&[Deleting, Removed]).await;
}

#[tokio::test]
async fn a_download_that_hangs_ends_with_the_wish_for_it() {
    // Takes the connection and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = silent.local_addr().unwrap().to_string();
    let device = Device::with(Stage::Prod, Some(&registry), None).await;
    let stack = Stack::of(device);
    let device = &stack.device;
    device.connect().await;
    let compose = web(&format!("{registry}/apps/web:1.0"));
    stack.request(Running, &compose).await;
    device.reports(&[Downloading]).await;
    let (_connection, _) = tokio::time::timeout(SOON, silent.accept())
        .await
        .expect("the registry is asked")
        .unwrap();
    // The login is in a place of its own for as long as the call takes, and on no command line.
    let logins = device.path("../downloads/registry-logins");
    let private = std::fs::read_dir(&logins)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mode = private.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut ours = command_lines();
    ours.retain(|&process, _| is_ours(process));
    assert!(
        ours.values().any(|line| line.contains(&stack.project)),
        "it runs: {ours:#?}"
    );
    let told = |line: &&String| line.contains(SECRET) || line.contains(TOKEN);
    assert_eq!(ours.values().find(told), None);
    stack.request(Uninstalled, &compose).await;
    device.reports(&[Deleting, Removed, Uninstalled]).await;
    assert!(!private.exists());
    let mut left = command_lines();
    left.retain(|_, line| line.contains(&stack.project));
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(stack.leftovers(), [0, 0, 0]);
}
