//! `reagent service` on a machine whose systemctl only writes down what it is told; the unit itself is judged by the real
//! systemd-analyze where there is one, and run by the real systemd in `tests/update/systemd.rs`.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Machine {
        let root = tempfile::Builder::new()
            .prefix("reagent-service-")
            .tempdir()
            .unwrap();
        let machine = Machine { root };
        for directory in ["bin", "units", "agent"] {
            std::fs::create_dir(machine.path(directory)).unwrap();
        }
        std::fs::write(machine.path("identity.flock"), "{\"secret\": \"hush\"}").unwrap();
        machine.systemctl("echo active");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn systemctl(&self, script: &str) {
        let path = self.path("bin/systemctl");
        let told = self.path("told");
        let text = format!("#!/bin/sh\necho \"$*\" >> {}\n{script}\n", told.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn service(&self, words: &[&str]) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        Command::new(env!("CARGO_BIN_EXE_reagent"))
            .arg("service")
            .args(words)
            .arg("-agentDir")
            .arg(self.path("agent"))
            .arg("-unitDir")
            .arg(self.path("units"))
            .env("PATH", path)
            .output()
            .unwrap()
    }

    fn install(&self, more: &[&str]) -> Output {
        let config = self.path("identity.flock");
        let mut words = vec!["install", "-config", config.to_str().unwrap()];
        words.extend(more);
        self.service(&words)
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn an_installed_service_has_a_binary_and_an_identity_of_its_own_and_is_started() {
    let machine = Machine::new();
    let output = machine.install(&["-proxy", "http://user:secret@proxy:3128"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(
        machine.told(),
        [
            "daemon-reload",
            "enable reagent.service",
            "restart reagent.service"
        ]
    );
    assert_eq!(mode(&machine.path("agent/reagent")), 0o755);
    assert_eq!(mode(&machine.path("agent/device.flock")), 0o600);
    assert_eq!(mode(&machine.path("agent/proxy.env")), 0o600);
    let unit = std::fs::read_to_string(machine.path("units/reagent.service")).unwrap();
    assert!(!unit.contains("secret"), "{unit}");
    assert!(
        unit.contains("Restart=always") && unit.contains("WatchdogSec=60"),
        "{unit}"
    );
    // Once more changes nothing for the worse.
    assert_eq!(machine.install(&["-noStart"]).status.code(), Some(0));
    assert_eq!(machine.told().last().unwrap(), "enable reagent.service");

    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .arg(machine.path("units/reagent.service"))
        .output();
    match verified {
        // It also complains about units of this machine; ours must not be among them.
        Ok(verified) => assert!(
            !text(&verified.stderr).contains("reagent.service:"),
            "{}",
            text(&verified.stderr)
        ),
        Err(error) => eprintln!("systemd-analyze is not here: {error}"),
    }
}

#[test]
fn a_device_of_the_vendors_manager_script_is_left_alone() {
    let machine = Machine::new();
    std::os::unix::fs::symlink("/nonexistent", machine.path("agent/Reagent-active")).unwrap();
    let output = machine.install(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("manager script"), "{output:?}");
    assert_eq!(machine.told(), [""; 0]);
    // Its unit has the name of ours.
    std::fs::write(machine.path("units/reagent.service"), "[Unit]\n").unwrap();
    let output = machine.service(&["uninstall"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("manager script"), "{output:?}");
    assert_eq!(machine.told(), [""; 0]);
    assert!(machine.path("units/reagent.service").exists());
}

#[test]
fn a_unit_that_somebody_else_wrote_is_neither_replaced_nor_removed() {
    let machine = Machine::new();
    let unit = machine.path("units/reagent.service");
    let theirs = "[Service]\nExecStart=/opt/reagent/Reagent-active\n";
    std::fs::write(&unit, theirs).unwrap();
    for output in [machine.install(&[]), machine.service(&["uninstall"])] {
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("was not written by"), "{output:?}");
    }
    assert_eq!(std::fs::read_to_string(unit).unwrap(), theirs);
    assert_eq!(machine.told(), [""; 0]);
    assert!(!machine.path("agent/reagent").exists());
}

#[test]
fn uninstalling_keeps_the_data_and_says_when_there_is_nothing() {
    let machine = Machine::new();
    let nothing = machine.service(&["uninstall"]);
    assert_eq!(text(&nothing.stderr), "error: the service is not installed\n");
    assert_eq!(nothing.status.code(), Some(1));
    machine.install(&["-noStart"]);
    assert_eq!(machine.service(&["uninstall"]).status.code(), Some(0));
    assert!(!machine.path("units/reagent.service").exists());
    assert!(machine.path("agent/device.flock").exists());
    assert!(
        machine
            .told()
            .contains(&"disable --now reagent.service".to_owned())
    );
}

#[test]
fn status_is_the_managers_word_and_its_refusals_are_passed_on() {
    let machine = Machine::new();
    assert_eq!(machine.service(&["status"]).status.code(), Some(1));
    machine.install(&["-noStart"]);
    let status = machine.service(&["status"]);
    assert_eq!(text(&status.stdout), "active (active)\n");
    machine.systemctl("echo 'no way' >&2; exit 5");
    let refused = machine.service(&["start"]);
    assert_eq!(
        text(&refused.stderr),
        "error: systemctl start reagent.service failed: no way\n"
    );
    assert_eq!(refused.status.code(), Some(1));
}
