//! The systemd unit. Must not know who installs it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What the unit names; all absolute.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) binary: PathBuf,
    pub(super) config: PathBuf,
    pub(super) agent_dir: PathBuf,
    pub(super) apps_dir: PathBuf,
    /// A file of environment variables.
    pub(super) proxy: Option<PathBuf>,
}

/// The line by which our units are known; others are left alone.
const MARK: &str = "# Written by reagent service install.";

/// Whether this is the text of a unit of ours.
pub(super) fn is_ours(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n')
        .any(|line| line.trim_ascii_end() == MARK.as_bytes())
}

/// The unit's text. `Err`: a path that no unit can hold.
///
/// The agent administers this machine: it talks to Docker, sets up networks, restarts the host and opens terminals for
/// people, and everything that it starts inherits what is taken away here. So only what none of that needs is gone.
pub(super) fn text(paths: &Paths) -> Result<String, PathBuf> {
    let mut command = word(&paths.binary)?;
    for (flag, path) in [
        ("-config", paths.config.clone()),
        ("-agentDir", paths.agent_dir.clone()),
        ("-appsDir", paths.apps_dir.clone()),
        ("-dbFileName", paths.agent_dir.join("reagent.db")),
        ("-logFile", PathBuf::from("/var/log/reagent.log")),
    ] {
        let _ = write!(command, " {flag} {}", word(&path)?);
    }
    let proxy = match &paths.proxy {
        Some(path) => format!("EnvironmentFile={}\n", plain(path)?),
        None => String::new(),
    };
    Ok(format!(
        "\
{MARK}
[Unit]
Description=IronFlock Device Agent
Wants=network-online.target
After=network-online.target docker.service
# A device that nobody can touch is never given up.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
{proxy}Restart=always
RestartSec=5
WatchdogSec=60
TimeoutStartSec=60
TimeoutStopSec=20
# A version under test is ended by the one that watches it.
KillMode=mixed
OOMScoreAdjust=-900
Nice=-16
CPUWeight=2048
LimitNOFILE=65536
UMask=0022
KeyringMode=private
LockPersonality=yes
ProtectControlGroups=yes
RestrictRealtime=yes

[Install]
WantedBy=multi-user.target
"
    ))
}

/// The variables for a proxy, for a file that only root reads.
pub(super) fn proxy_environment(url: &str) -> String {
    let url: String = url.chars().filter(|character| !character.is_control()).collect();
    let quoted = url.replace('\\', "\\\\").replace('"', "\\\"");
    format!("HTTP_PROXY=\"{quoted}\"\nHTTPS_PROXY=\"{quoted}\"\nNO_PROXY=\"localhost,127.0.0.1\"\n")
}

/// One word of a command line: systemd expands `%` and `$` and understands C escapes within quotes.
fn word(path: &Path) -> Result<String, PathBuf> {
    let text = plain(path)?
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('$', "$$");
    Ok(format!("\"{text}\""))
}

fn plain(path: &Path) -> Result<String, PathBuf> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(text.replace('%', "%%")),
        _ => Err(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(agent_dir: &str) -> Paths {
        let agent_dir = PathBuf::from(agent_dir);
        Paths {
            binary: agent_dir.join("reagent"),
            config: agent_dir.join("device.flock"),
            apps_dir: agent_dir.join("apps"),
            proxy: None,
            agent_dir,
        }
    }

    #[test]
    fn the_command_line_is_explicit_and_odd_paths_stay_one_word() {
        let text = text(&paths("/opt/my agent/100% $HOME \"x\"")).unwrap();
        let command = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert!(
            command.contains(r#"-agentDir "/opt/my agent/100%% $$HOME \"x\"" -appsDir"#),
            "{command}"
        );
    }

    #[test]
    fn our_units_are_known_and_others_are_not() {
        assert!(is_ours(text(&paths("/opt/agent")).unwrap().as_bytes()));
        assert!(!is_ours(b"[Unit]\nDescription=IronFlock Device Agent\n"));
    }

    #[test]
    fn a_path_with_a_line_break_is_refused() {
        text(&paths("/opt/a\nExecStartPre=/bin/x")).unwrap_err();
    }

    #[test]
    fn a_proxy_stays_one_value() {
        let text = proxy_environment("http://user:pa\"ss@proxy:8080\nEVIL=1");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.starts_with("HTTP_PROXY=\"http://user:pa\\\"ss@proxy:8080EVIL=1\"\n"),
            "{text}"
        );
    }
}
