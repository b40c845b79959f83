//! Words to the service manager, `sd_notify`: ready, and that the process lives. Without one nothing happens. Must not
//! know what the process does.

use std::ffi::OsString;
use std::io;
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
            self.lives();
        }
    }

    fn say(&self, word: &str) {
        if let Some((socket, address)) = &self.socket {
            // Lost words are repeated or do not matter.
            let _ = socket.send_to_addr(word.as_bytes(), address);
        }
    }

    /// The process lives: once.
    pub fn lives(&self) {
        self.say("WATCHDOG=1");
    }

    /// How often the manager wants to hear that, if it does.
    pub fn interval(&self) -> Option<Duration> {
        self.watchdog
    }
}

/// Hears the words of a child as a service manager does, so that a child which falls silent is noticed.
#[derive(Debug)]
pub struct Ear {
    socket: tokio::net::UnixDatagram,
    /// As the variable has it.
    name: String,
}

impl Ear {
    /// Opens a socket without a file: none is left behind, and no path is too long.
    pub fn open() -> io::Result<Ear> {
        let name = format!("reagent-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes())?)?;
        socket.set_nonblocking(true)?;
        Ok(Ear {
            socket: tokio::net::UnixDatagram::from_std(socket)?,
            name: format!("@{name}"),
        })
    }

    /// The child speaks to this one, and not to the manager in our name; twice per `interval`.
    pub fn listen_to(&self, command: &mut Command, interval: Duration) {
        command
            .env(SOCKET, &self.name)
            .env(WATCHDOG, interval.as_micros().to_string())
            .env_remove(WATCHDOG_PID);
    }

    /// Waits until the child says that it lives. May be dropped at any time.
    pub async fn sign_of_life(&self) {
        let mut word = [0; 512];
        loop {
            match self.socket.recv(&mut word).await {
                Ok(length)
                    if word[..length]
                        .split(|byte| *byte == b'\n')
                        .any(|line| line == b"WATCHDOG=1") =>
                {
                    return;
                }
                Ok(_) => {}
                // Deaf is as bad as silent.
                Err(_) => return std::future::pending().await,
            }
        }
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

    #[tokio::test]
    async fn a_child_is_heard_as_long_as_it_speaks() {
        let ear = Ear::open().unwrap();
        let mut command = Command::new("true");
        ear.listen_to(&mut command, Duration::from_secs(1));
        let variable = |wanted: &str| {
            let found = command.get_envs().find(|(name, _)| *name == wanted);
            found.unwrap().1.map(std::ffi::OsStr::to_owned)
        };
        assert_eq!(variable(WATCHDOG_PID), None);
        let child = Notifier::to(variable(SOCKET), variable(WATCHDOG).unwrap().to_str(), None);
        assert_eq!(child.interval(), Some(Duration::from_secs(1)));
        child.ready();
        child.lives();
        let limit = Duration::from_secs(10);
        tokio::time::timeout(limit, ear.sign_of_life()).await.unwrap();
        child.ready();
        let silent = tokio::time::timeout(Duration::from_millis(50), ear.sign_of_life()).await;
        silent.unwrap_err();
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
