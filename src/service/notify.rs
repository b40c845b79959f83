//! Words to the service manager, `sd_notify`: ready, and that the process lives. Without one nothing happens. Must not
//! know what the process does.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants to hear something.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The one that the environment names.
    pub fn from_environment() -> Notifier {
        let text = |name| std::env::var(name).ok();
        Notifier::to(
            std::env::var_os(SOCKET),
            text(WATCHDOG).as_deref(),
            text(WATCHDOG_PID).as_deref(),
        )
    }

    fn to(socket: Option<OsString>, watchdog: Option<&str>, pid: Option<&str>) -> Notifier {
        let socket = socket.filter(|name| !name.is_empty()).and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name),
                None => SocketAddr::from_pathname(&name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not read must not hold the agent up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        let meant = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = watchdog
            .filter(|_| meant)
            .and_then(|microseconds| microseconds.parse().ok())
            .filter(|microseconds| *microseconds > 0)
            .map(Duration::from_micros);
        Notifier { socket, watchdog }
    }

    /// The process has started.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// Says twice per watchdog interval that the process lives, for ever. The one who polls it is the one who lives.
    pub async fn keep_alive(&self) {
        let Some(interval) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut ticks = tokio::time::interval(interval / 2);
        loop {
            ticks.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, word: &str) {
        if let Some((socket, address)) = &self.socket {
            // Lost words are repeated or do not matter.
            let _ = socket.send_to_addr(word.as_bytes(), address);
        }
    }

    /// Keeps a child from talking to the manager in our name.
    pub fn keep_from(command: &mut Command) {
        command
            .env_remove(SOCKET)
            .env_remove(WATCHDOG)
            .env_remove(WATCHDOG_PID);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(manager: &UnixDatagram) -> String {
        let mut word = [0; 64];
        let length = manager.recv(&mut word).unwrap();
        String::from_utf8_lossy(&word[..length]).into_owned()
    }

    #[tokio::test]
    async fn the_manager_hears_that_the_agent_is_ready_and_lives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let notifier = Notifier::to(Some(path.into()), Some("20000"), None);
        notifier.ready();
        assert_eq!(hear(&manager), "READY=1");
        let lives = tokio::time::timeout(Duration::from_millis(50), notifier.keep_alive()).await;
        lives.unwrap_err();
        assert_eq!(hear(&manager), "WATCHDOG=1");
        assert_eq!(hear(&manager), "WATCHDOG=1");
    }

    #[test]
    fn an_abstract_socket_is_understood() {
        let name = format!("reagent-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Notifier::to(Some(format!("@{name}").into()), None, None).ready();
        assert_eq!(hear(&manager), "READY=1");
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        assert_eq!(Notifier::to(None, Some("1000"), Some("1")).watchdog, None);
        let own = std::process::id().to_string();
        assert_eq!(
            Notifier::to(None, Some("1000"), Some(&own)).watchdog,
            Some(Duration::from_millis(1))
        );
        assert_eq!(Notifier::to(None, Some("0"), None).watchdog, None);
    }
}
