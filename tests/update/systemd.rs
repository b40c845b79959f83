//! An agent that a real systemd runs, as `reagent service install` leaves it: systemd is the first process of a container
//! with the programs of this machine.

use std::path::Path;
use std::time::Duration;

use testkit::wait;

use super::SOON;
use super::builds::NEW;
use super::container::{Container, succeeds_and_fails_to_update};
use super::gateway::Gateway;

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// What differs from the unit: no Docker, an agent for tests, and a watchdog that barks soon.
const DROP_IN: &str = "/etc/systemd/system/reagent.service.d/test.conf";

struct Machine {
    container: Container,
    home: String,
}

impl Machine {
    fn boot(gateway: &Gateway) -> Machine {
        assert!(
            Path::new(SYSTEMD).exists(),
            "package systemd is installed (scripts/setup)"
        );
        let mut options = vec![
            "--cap-add=SYS_ADMIN",
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            // By this it knows what not to touch.
            "--env=container=docker",
            "--tmpfs=/run",
            "--tmpfs=/tmp",
        ];
        // Of cgroup v1 it has a hierarchy of its own to write to; of v2 it has to be given the machine's.
        if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            options.extend(["--cgroupns=host", "--volume=/sys/fs/cgroup:/sys/fs/cgroup"]);
        } else {
            options.push("--cgroupns=private");
        }
        let command = [SYSTEMD, "--unit=multi-user.target"];
        let machine = Machine {
            container: Container::start("systemd", gateway, &options, &command),
            home: gateway.home.path().display().to_string(),
        };
        machine.is_up();
        machine
    }

    fn is_up(&self) {
        wait::until("systemd is up", SOON, || {
            let state = self.container.run(&["systemctl", "is-system-running"]);
            let state = state.unwrap_or_else(|said| said);
            matches!(state.trim(), "running" | "degraded").then_some(())
        });
    }

    fn write(&self, path: &str, text: &str) {
        let script = format!("mkdir -p \"$(dirname {path})\" && echo '{text}' > {path}");
        self.container.run(&["sh", "-c", &script]).unwrap();
    }

    fn service(&self, words: &[&str]) -> String {
        let (program, agent_dir) = (
            format!("{}/bin/reagent", self.home),
            format!("{}/agent", self.home),
        );
        let mut all = vec![program.as_str(), "service"];
        all.extend(words);
        all.extend(["-agentDir", &agent_dir]);
        self.container.run(&all).unwrap_or_else(|said| panic!("{said}"))
    }

    fn shows(&self, property: &str) -> String {
        self.container
            .run(&["systemctl", "show", "reagent", "--value", "--property", property])
            .unwrap()
    }

    /// What goes to the main process, and waits until the service has been started once more.
    fn starts_again_after(&self, signal: &str) {
        let before = self.shows("NRestarts");
        self.container
            .run(&[
                "systemctl",
                "kill",
                "--kill-who=main",
                "--signal",
                signal,
                "reagent",
            ])
            .unwrap();
        wait::until("it is started again", SOON, || {
            (self.shows("NRestarts") != before && self.shows("ActiveState") == "active").then_some(())
        });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = ["journalctl", "--no-pager", "--lines=40", "--unit=reagent"];
            eprintln!("{}", self.container.run(&journal).unwrap_or_else(|said| said));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_runs_it_through_updates_that_succeed_and_fail_kills_hangs_and_reboots() {
    let mut gateway = Gateway::new().await;
    let machine = Machine::boot(&gateway);
    let drop_in = format!(
        "[Service]\nWatchdogSec=10\nRestartSec=1\nEnvironment=REAGENT_UPDATE_SETUP={}/setup.json DOCKER_HOST=unix:///nonexistent",
        machine.home
    );
    machine.write(DROP_IN, &drop_in);
    let config = format!("{}/device.flock", machine.home);
    machine.service(&["install", "-config", &config]);
    assert_eq!(machine.service(&["status"]), "active (enabled)");
    succeeds_and_fails_to_update(&mut gateway).await;
    assert_eq!(machine.shows("NRestarts"), "0", "systemd has seen nothing of it");

    machine.starts_again_after("KILL");
    gateway.runs(NEW).await;
    // It hangs: only the watchdog can know.
    machine.starts_again_after("STOP");
    gateway.runs(NEW).await;

    machine.container.restart();
    machine.is_up();
    gateway.runs(NEW).await;
    assert_eq!(machine.service(&["status"]), "active (enabled)");

    machine.service(&["stop"]);
    assert_eq!(machine.shows("ActiveState"), "inactive");
    assert_eq!(machine.shows("Result"), "success");
    machine.service(&["uninstall"]);
    let gone = wait::poll(Duration::from_secs(5), || {
        (machine.shows("LoadState") != "loaded").then_some(())
    });
    assert!(gone.is_some(), "{}", machine.shows("LoadState"));
    assert!(gateway.path("agent/device.flock").exists());
}
