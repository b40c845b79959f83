//! The agent dies before and after every step that leaves something behind, of every wish, and with it the calls of
//! other programs that it had under way. The steps are named here, one by one: one that is not come by any more and one
//! that nobody has named fail the test.
#![allow(clippy::unwrap_used, reason = "the whole file belongs to tests")]

use std::collections::BTreeSet;

use protocol::AppState::{self, Built, Present, Published, Removed, Running, Uninstalled};
use protocol::Stage;
use testkit::docker;

use crate::SCRIPT;
use crate::gateway::Gateway;

/// What is asked for, and by which steps (`src/crash.rs`) it comes true after what was asked for before it.
struct Wish {
    target: AppState,
    /// It brings the version after the one that is there.
    is_update: bool,
    steps: &'static [&'static str],
    /// Only where the machine cannot give a container the privileges that it asks for: it is made again without them.
    /// Whether it can does not change while a test runs.
    conceding: &'static [&'static str],
}

/// Not a part of any wish: written by the clock, so the more often the longer a wish takes. The first one is always
/// written, because every wish puts a line into the app's log.
const BY_THE_CLOCK: &str = "log histories";

const INSTALL: Wish = Wish {
    target: Running,
    is_update: false,
    steps: &[
        "STARTING",
        "pull",
        "DOWNLOADING",
        "PRESENT",
        "create",
        "start",
        "RUNNING",
        BY_THE_CLOCK,
    ],
    conceding: &["remove", "create 2", "start 2"],
};
const UNINSTALL: Wish = Wish {
    target: Uninstalled,
    is_update: false,
    steps: &["DELETING", "remove", "remove image", "UNINSTALLED", BY_THE_CLOCK],
    conceding: &[],
};
const STOP: Wish = Wish {
    target: Present,
    is_update: false,
    steps: &["STOPPING", "stop", "remove", "PRESENT", BY_THE_CLOCK],
    conceding: &[],
};
const START: Wish = Wish {
    target: Running,
    is_update: false,
    steps: &["STARTING", "create", "start", "RUNNING", BY_THE_CLOCK],
    conceding: &["remove", "create 2", "start 2"],
};
const UPDATE: Wish = Wish {
    target: Running,
    is_update: true,
    steps: &[
        "UPDATING",
        "pull",
        "stop",
        "remove",
        "create",
        "start",
        "PRESENT",
        "RUNNING",
        BY_THE_CLOCK,
    ],
    conceding: &["remove 2", "create 2", "start 2"],
};
const BUILD: Wish = Wish {
    target: Built,
    is_update: false,
    steps: &["BUILDING", "build", "PRESENT", BY_THE_CLOCK],
    conceding: &[],
};
const REMOVE: Wish = Wish {
    target: Removed,
    is_update: false,
    steps: &["DELETING", "remove image", "REMOVED", BY_THE_CLOCK],
    conceding: &[],
};
const PUBLISH: Wish = Wish {
    target: Published,
    is_update: false,
    steps: &[
        "BUILDING",
        "build",
        "BUILT",
        "tag image",
        "PUBLISHING",
        "push",
        "PUBLISHED",
        BY_THE_CLOCK,
    ],
    conceding: &[],
};

/// Of compose apps.
const INSTALL_PROJECT: Wish = Wish {
    target: Running,
    is_update: false,
    steps: &["DOWNLOADING", "pull", "STARTING", "up", "RUNNING", BY_THE_CLOCK],
    conceding: &[],
};
const FETCH_PROJECT: Wish = Wish {
    target: Present,
    is_update: false,
    steps: &["DOWNLOADING", "pull", "PRESENT", BY_THE_CLOCK],
    conceding: &[],
};
const UNINSTALL_PROJECT: Wish = Wish {
    target: Uninstalled,
    is_update: false,
    steps: &["DELETING", "remove image", "down", "UNINSTALLED", BY_THE_CLOCK],
    conceding: &[],
};
const UPDATE_PROJECT: Wish = Wish {
    target: Running,
    is_update: true,
    steps: &[
        "UPDATING",
        "pull",
        "stop",
        "down",
        "up",
        "PRESENT",
        "RUNNING",
        BY_THE_CLOCK,
    ],
    conceding: &[],
};

impl Wish {
    /// What is reported when it has come true.
    fn end(&self) -> AppState {
        match self.target {
            // A build passes by BUILT.
            Built => Present,
            other => other,
        }
    }

    fn version(&self, gateway: &Gateway) -> String {
        gateway.version(u32::from(self.is_update))
    }

    /// What it asks for can be had. Each version is an image of its own, so that none is there before it is fetched.
    fn is_prepared(&self, gateway: &Gateway) {
        if self.is_update {
            let version = self.version(gateway);
            gateway.publish(&version, &format!("echo {version}; {SCRIPT}"));
        }
    }

    /// It comes true, whatever happened before.
    async fn comes_true(&self, gateway: &mut Gateway) {
        gateway.fulfils(self.end(), &self.version(gateway)).await;
    }

    fn is_true(&self, gateway: &Gateway, after: &str) {
        let running = gateway.running();
        if self.target == Running {
            let image = running.unwrap_or_default();
            let version = format!(":{}", self.version(gateway));
            let expected = image.starts_with("true ") && image.ends_with(&version);
            assert!(expected, "{image:?} after a kill {after}");
        } else {
            assert_eq!(running, None, "{} after a kill {after}", self.target);
        }
    }

    /// The backend hears of it.
    fn is_noted(&self, gateway: &mut Gateway) {
        gateway.present += u32::from(self.is_update);
    }

    /// It is asked for and comes true, and nobody dies.
    async fn is_granted(&self, gateway: &mut Gateway) {
        gateway.power();
        gateway.request_update(self.target, &self.version(gateway)).await;
        self.comes_true(gateway).await;
        gateway.cut();
    }

    /// Lets it come true undisturbed; returns the points that the agent came by.
    async fn is_watched(&self, gateway: &mut Gateway) -> Vec<String> {
        gateway.store(self.target, &self.version(gateway)).await;
        gateway.power();
        self.comes_true(gateway).await;
        gateway.comes_by(&points(self.steps)).await;
        gateway.cut();
        let seen = gateway.points();
        self.knows(&seen);
        let mut wanted = points(self.steps);
        let conceding = points(self.conceding);
        if seen.iter().any(|point| conceding.contains(point)) {
            let missing: Vec<_> = conceding.iter().filter(|point| !seen.contains(point)).collect();
            assert!(missing.is_empty(), "{}: {missing:?}", self.target);
            wanted.extend(conceding);
        }
        wanted
    }

    /// It is asked for, the agent dies at `point`, and it comes true.
    async fn survives(&self, gateway: &mut Gateway, point: &str) {
        eprintln!("{}: {point}", self.target);
        gateway.store(self.target, &self.version(gateway)).await;
        gateway.power_until(point);
        gateway.dies().await;
        self.knows(&gateway.points());
        assert!(gateway.containers().len() <= 1);
        gateway.power();
        self.comes_true(gateway).await;
        gateway.cut();
        self.is_true(gateway, point);
    }

    /// No point is new.
    fn knows(&self, seen: &[String]) {
        let known = [self.steps, self.conceding].concat();
        let known: BTreeSet<String> = points(&known).into_iter().collect();
        let clock = points(&[BY_THE_CLOCK]);
        for point in seen {
            let by_the_clock = clock.iter().any(|clock| point.starts_with(clock));
            assert!(by_the_clock || known.contains(point), "{}: {point}", self.target);
        }
    }
}

fn points(steps: &[&str]) -> Vec<String> {
    let of = |step: &&str| [format!("before {step}"), format!("after {step}")];
    steps.iter().flat_map(of).collect()
}

/// At which of a wish's points the agent dies in a test: at every n-th, beginning here. The shares of several tests,
/// which two cores do at once, make up all.
#[derive(Clone, Copy)]
struct Share {
    nth: usize,
    of: usize,
}

const ALL: Share = Share { nth: 0, of: 1 };

/// Lets the wishes come true in turn, again and again, until the agent has died at its share of the points of each of
/// them. A wish without a share only leads to the next one; an update needs none, the next one goes on from it.
async fn sweep(gateway: &mut Gateway, wishes: &[(&Wish, Option<Share>)]) {
    let mut left = Vec::new();
    for (wish, share) in wishes {
        wish.is_prepared(gateway);
        let points = match share {
            None => {
                wish.is_granted(gateway).await;
                Vec::new()
            }
            Some(Share { nth, of }) => {
                let points = wish.is_watched(gateway).await;
                points.into_iter().skip(*nth).step_by(*of).collect()
            }
        };
        left.push(points);
        wish.is_true(gateway, "nowhere");
        wish.is_noted(gateway);
    }
    while left.iter().any(|points| !points.is_empty()) {
        for ((wish, _), points) in wishes.iter().zip(&mut left) {
            wish.is_prepared(gateway);
            match points.pop() {
                None => wish.is_granted(gateway).await,
                Some(point) => wish.survives(gateway, &point).await,
            }
            wish.is_noted(gateway);
        }
    }
}

/// What only the first start of an agent leaves behind is no part of a wish. Nor is what an agent does when a host port
/// turns out to be taken: two agents on one machine would choose the same ones, and Docker tells neither. So it has one of
/// its own, below those that the system gives to whoever connects.
async fn started(mut gateway: Gateway) -> Gateway {
    gateway.host_port = 22_000 + std::process::id() % 10_000;
    gateway.power();
    gateway.comes_by(&["after adopt".to_owned()]).await;
    gateway.cut();
    gateway
}

async fn device() -> Gateway {
    started(Gateway::new(SCRIPT).await).await
}

/// One test for each share.
macro_rules! shares {
    ($story:ident { $($name:ident: $nth:literal of $of:literal),* $(,)? }) => {$(
        #[tokio::test]
        async fn $name() {
            $story(Share { nth: $nth - 1, of: $of }).await;
        }
    )*};
}

shares! { an_installation_and_a_removal {
    an_installation_and_a_removal_survive_a_kill_before_every_step: 1 of 2,
    an_installation_and_a_removal_survive_a_kill_after_every_step: 2 of 2,
}}

async fn an_installation_and_a_removal(share: Share) {
    let mut gateway = device().await;
    sweep(
        &mut gateway,
        &[(&INSTALL, Some(share)), (&UNINSTALL, Some(share))],
    )
    .await;
    assert_eq!(gateway.images(), Vec::<String>::new());
}

#[tokio::test]
async fn a_stop_and_a_start_survive_a_kill_at_every_step() {
    let mut gateway = device().await;
    INSTALL.is_granted(&mut gateway).await;
    sweep(&mut gateway, &[(&STOP, Some(ALL)), (&START, Some(ALL))]).await;
}

shares! { a_build_and_a_publication {
    a_build_and_a_publication_survive_a_kill_before_every_step: 1 of 2,
    a_build_and_a_publication_survive_a_kill_after_every_step: 2 of 2,
}}

async fn a_build_and_a_publication(share: Share) {
    let mut gateway = started(Gateway::with(Stage::Dev, SCRIPT).await).await;
    let base = gateway.scope.image("base", SCRIPT);
    gateway.upload(&format!("FROM {base}\nLABEL scope={}\n", gateway.app_name));
    let share = Some(share);
    sweep(
        &mut gateway,
        &[(&BUILD, share), (&REMOVE, share), (&PUBLISH, share)],
    )
    .await;
    assert!(gateway.is_released("1.0"));
    let layers = format!("label=scope={}", gateway.app_name);
    docker::docker(&["image", "prune", "-f", "--filter", &layers]).unwrap();
}

// A new version proves itself for some seconds, every time.
shares! { an_update {
    an_update_survives_a_kill_at_every_fourth_point: 1 of 4,
    an_update_survives_a_kill_at_the_points_after_those: 2 of 4,
    an_update_survives_a_kill_at_the_points_between_those: 3 of 4,
    an_update_survives_a_kill_at_the_points_before_those: 4 of 4,
}}

async fn an_update(share: Share) {
    let mut gateway = device().await;
    INSTALL.is_granted(&mut gateway).await;
    sweep(&mut gateway, &[(&UPDATE, Some(share))]).await;
}

async fn compose_device() -> Gateway {
    let mut gateway = device().await;
    gateway.compose = true;
    gateway
}

// Of the old compose command line a call takes seconds.
shares! { a_project_that_is_installed_and_started {
    a_project_that_is_installed_and_started_survives_a_kill_at_every_third_point: 1 of 3,
    a_project_that_is_installed_and_started_survives_a_kill_at_the_points_after_those: 2 of 3,
    a_project_that_is_installed_and_started_survives_a_kill_at_the_points_before_those: 3 of 3,
}}

async fn a_project_that_is_installed_and_started(share: Share) {
    let mut gateway = compose_device().await;
    sweep(
        &mut gateway,
        &[(&UNINSTALL_PROJECT, None), (&INSTALL_PROJECT, Some(share))],
    )
    .await;
}

shares! { a_project_that_leaves {
    a_project_that_leaves_survives_a_kill_at_every_third_point: 1 of 3,
    a_project_that_leaves_survives_a_kill_at_the_points_after_those: 2 of 3,
    a_project_that_leaves_survives_a_kill_at_the_points_before_those: 3 of 3,
}}

async fn a_project_that_leaves(share: Share) {
    let mut gateway = compose_device().await;
    sweep(
        &mut gateway,
        &[(&FETCH_PROJECT, Some(share)), (&UNINSTALL_PROJECT, Some(share))],
    )
    .await;
    for list in [&["ps", "-a"][..], &["volume", "ls"], &["network", "ls"]] {
        assert_eq!(gateway.of_project(list), Vec::<String>::new());
    }
    assert_eq!(gateway.images(), Vec::<String>::new());
}

shares! { an_update_of_a_project {
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_1: 1 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_2: 2 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_3: 3 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_4: 4 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_5: 5 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_6: 6 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_7: 7 of 8,
    an_update_of_a_project_survives_a_kill_at_every_eighth_point_8: 8 of 8,
}}

async fn an_update_of_a_project(share: Share) {
    let mut gateway = compose_device().await;
    INSTALL_PROJECT.is_granted(&mut gateway).await;
    sweep(&mut gateway, &[(&UPDATE_PROJECT, Some(share))]).await;
    assert_eq!(gateway.of_project(&["volume", "ls"]).len(), 1);
}
