//! The command line (`session-and-api.md` 1): Go flag syntax in front of clap, which turns the canonical form into
//! [`Settings`]. Decides what is printed and the exit code; touches nothing. Must not know what follows.

pub(crate) mod go_flags;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::service;
use crate::settings::Settings;
use crate::system::platform;
use go_flags::{FlagError, Kind};

/// The version of this build: a bare semantic version that others compare as text (1.4).
pub const VERSION: &str = include_str!("../release/version.txt").trim_ascii();

const CONFIG_HINT: &str = "'-config' argument is required. -help for usage";
const SERVICE_REFUSAL: &str = "the 'service' subcommand is only supported on Windows";

/// What a command line asks for.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the agent. The warning is for stderr.
    Run {
        settings: Box<Settings>,
        warning: Option<String>,
    },
    /// Install, remove or ask about the service.
    Service(service::Order),
    /// Print, then exit.
    Answer(Answer),
}

/// Something to print and the exit code after it. Texts end with a newline or are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub stdout: String,
    pub stderr: String,
    pub code: u8,
}

/// The flags of 1.3. The names are the contract's; the help texts are the usage text. Sorted as the usage shows them.
#[derive(Debug, clap::Parser)]
#[command(
    name = "reagent",
    disable_help_flag = true,
    disable_version_flag = true,
    args_override_self = true
)]
#[command(next_line_help = false)]
struct Flags {
    /// directory for the tunnel client, downloaded agent binaries and downloads
    #[arg(long = "agentDir", default_value = DEFAULTS.agent_dir.as_str())]
    agent_dir: String,
    /// root directory of app data (the default does not follow -agentDir)
    #[arg(long = "appsDir", default_value = DEFAULTS.apps_dir.as_str())]
    apps_dir: String,
    /// prints the architecture this binary was built for and exits
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false)]
    arch: bool,
    /// file extension of uploaded build archives
    #[arg(long = "compressedBuildExtension", default_value = "tgz")]
    compressed_build_extension: String,
    /// path of the .flock file of this device
    #[arg(long, default_value = "")]
    config: String,
    /// milliseconds for DNS, TCP, TLS and the WebSocket upgrade of one connection attempt, 0 for no bound
    #[arg(long = "connTimeout", default_value_t = 1250)]
    conn_timeout: u64,
    /// SQLite database file, relative to the working directory (the default does not follow -agentDir)
    #[arg(long = "dbFileName", default_value = DEFAULTS.database.as_str())]
    db_file_name: String,
    /// logs at debug level, else at info level
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    debug: bool,
    /// logs WAMP messages too, at debug level
    #[arg(long = "debugMessaging", action = clap::ArgAction::Set, default_value_t = false)]
    debug_messaging: bool,
    /// accepted for compatibility, the environment is the one of the .flock file
    #[arg(long, default_value = "production")]
    env: String,
    /// JSON log file, 100 MiB and two backups
    #[arg(long = "logFile", default_value = DEFAULTS.log_file.as_str())]
    log_file: String,
    /// manages networks through NetworkManager on the system D-Bus (Linux)
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    nmw: bool,
    /// never connects, only keeps the apps running
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false)]
    offline: bool,
    /// milliseconds between WebSocket pings, 0 for none
    #[arg(long = "ppTimeout", default_value_t = 5000)]
    pp_timeout: u64,
    /// prints log lines for people on stdout too
    #[arg(long = "prettyLogging", action = clap::ArgAction::Set, default_value_t = false)]
    pretty_logging: bool,
    /// accepted for compatibility, there is no profiling server
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false)]
    profiling: bool,
    /// accepted for compatibility, there is no profiling server
    #[arg(long = "profilingPort", default_value_t = 80)]
    profiling_port: u64,
    /// base URL for agent updates, unless the .flock file names one
    #[arg(long = "remoteUpdateURL", default_value = "https://storage.googleapis.com")]
    remote_update_url: String,
    /// milliseconds to wait for replies of the router, 0 for 5000
    #[arg(long = "respTimeout", default_value_t = 7000)]
    resp_timeout: u64,
    /// downloads a newer agent in the background at start
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    update: bool,
    /// prints the version and exits
    #[arg(long, action = clap::ArgAction::Set, default_value_t = false)]
    version: bool,
}

/// Paths that depend on the system. Without a home directory, where one is needed, all are empty.
struct Defaults {
    agent_dir: String,
    apps_dir: String,
    database: String,
    log_file: String,
}

static DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| {
    let (base, log_file) = if cfg!(target_os = "linux") {
        ("/opt/reagent".to_owned(), "/var/log/reagent.log".to_owned())
    } else {
        match std::env::home_dir().filter(|home| !home.as_os_str().is_empty()) {
            Some(home) => {
                let base = format!("{}/reagent", home.to_string_lossy());
                let log_file = format!("{base}/reagent.log");
                (base, log_file)
            }
            None => (String::new(), String::new()),
        }
    };
    let beneath = |name| {
        if base.is_empty() {
            String::new()
        } else {
            format!("{base}/{name}")
        }
    };
    Defaults {
        apps_dir: beneath("apps"),
        database: beneath("reagent.db"),
        log_file,
        agent_dir: base,
    }
});

/// Response timeout that 0 stands for (1.3).
const DEFAULT_RESPONSE: Duration = Duration::from_millis(5000);

/// Understands `arguments`, the first of which is the program's name. Pure but for the home directory.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Invocation {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().map_or_else(
        || "reagent".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut words = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(word) => words.push(word),
            Err(bytes) => {
                return refuse(
                    &program,
                    &format!("argument is not UTF-8: {}", bytes.to_string_lossy()),
                );
            }
        }
    }
    // Only as the very first word, and before any flag is looked at.
    if words.first().is_some_and(|word| word == "service") {
        if !cfg!(any(target_os = "linux", windows)) {
            return answer(String::new(), format!("{SERVICE_REFUSAL}\n"), 1);
        }
        return match service::Order::parse(words.split_off(1)) {
            Ok(order) => Invocation::Service(order),
            Err(refused) => answer(String::new(), format!("error: {refused}\n"), refused.code()),
        };
    }
    if DEFAULTS.agent_dir.is_empty() {
        return answer(
            String::new(),
            "reagent: the home directory is unknown, set HOME\n".to_owned(),
            1,
        );
    }
    let (flags, ignored) = match read(words) {
        Ok(read) => read,
        Err(FlagError::Help) => return answer(String::new(), usage(&program), 0),
        Err(error) => return refuse(&program, &error.to_string()),
    };
    // Versions and architecture win over everything: nobody starts an agent with them (weakness R7).
    if flags.version {
        return answer(format!("{VERSION}\n"), String::new(), 0);
    }
    if flags.arch {
        return answer(format!("{}\n", platform::build_arch()), String::new(), 0);
    }
    let warning = (!ignored.is_empty()).then(|| {
        format!(
            "ignoring everything from {:?} on: {}",
            ignored[0],
            ignored.join(" ")
        )
    });
    if flags.config.is_empty() {
        let warning = warning
            .map(|warning| format!("reagent: {warning}\n"))
            .unwrap_or_default();
        return answer(format!("{CONFIG_HINT}\n"), format!("{warning}{CONFIG_HINT}\n"), 0);
    }
    Invocation::Run {
        settings: Box::new(flags.into_settings()),
        warning,
    }
}

/// The settings that `words` (without the program's name) decide; the text of the error is for people.
pub fn settings(words: impl IntoIterator<Item = String>) -> Result<Settings, String> {
    read(words.into_iter().collect())
        .map(|(flags, _)| flags.into_settings())
        .map_err(|error| error.to_string())
}

/// The flags, and the words after the end of flags.
fn read(words: Vec<String>) -> Result<(Flags, Vec<String>), FlagError> {
    let command = Flags::command();
    let normal = go_flags::normalise(words, |name| kind(&command, name))?;
    let names_environment = normal.flags.iter().any(|flag| flag.starts_with("--env="));
    let given = std::iter::once("reagent".to_owned()).chain(normal.flags);
    // The normaliser lets only through what clap takes; should they ever disagree, it is a flag error as any other.
    let mut flags = command
        .try_get_matches_from(given)
        .and_then(|matches| Flags::from_arg_matches(&matches))
        .map_err(|error| FlagError::Other(error.to_string().trim().to_owned()))?;
    if flags.db_file_name.is_empty() {
        return Err(FlagError::Other(
            "invalid value \"\" for flag -dbFileName: a file name is needed".to_owned(),
        ));
    }
    if !names_environment {
        flags.env.clear();
    }
    Ok((flags, normal.ignored))
}

fn kind(command: &clap::Command, name: &str) -> Option<Kind> {
    let argument = command
        .get_arguments()
        .find(|argument| argument.get_long() == Some(name))?;
    let parser = argument.get_value_parser().type_id();
    Some(if parser == std::any::TypeId::of::<bool>() {
        Kind::Bool
    } else if parser == std::any::TypeId::of::<u64>() {
        Kind::Unsigned
    } else {
        Kind::Text
    })
}

impl Flags {
    fn into_settings(self) -> Settings {
        let response = Duration::from_millis(self.resp_timeout);
        let agent_dir = PathBuf::from(self.agent_dir);
        Settings {
            config: PathBuf::from(self.config),
            // Paths below it are remembered, and the next start may have another working directory.
            agent_dir: std::path::absolute(&agent_dir).unwrap_or(agent_dir),
            apps_dir: PathBuf::from(self.apps_dir),
            database: PathBuf::from(self.db_file_name),
            log_file: PathBuf::from(self.log_file),
            compressed_build_extension: self.compressed_build_extension,
            debug: self.debug,
            debug_messaging: self.debug_messaging,
            pretty_logging: self.pretty_logging,
            offline: self.offline,
            network_manager: self.nmw,
            update: self.update,
            environment: self.env,
            remote_update_url: self.remote_update_url,
            connect_timeout: Duration::from_millis(self.conn_timeout),
            response_timeout: if response.is_zero() {
                DEFAULT_RESPONSE
            } else {
                response
            },
            ping_interval: Duration::from_millis(self.pp_timeout),
        }
    }
}

fn answer(stdout: String, stderr: String, code: u8) -> Invocation {
    Invocation::Answer(Answer { stdout, stderr, code })
}

fn refuse(program: &str, error: &str) -> Invocation {
    answer(String::new(), format!("{error}\n{}", usage(program)), 2)
}

/// The usage text in the layout of Go's `flag` package (1.2).
fn usage(program: &str) -> String {
    let command = Flags::command();
    let mut arguments: Vec<&clap::Arg> = command.get_arguments().collect();
    arguments.sort_by_key(|argument| argument.get_long());
    let mut text = format!("Usage of {program}:\n");
    for argument in arguments {
        let name = argument.get_long().unwrap_or_default();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let default = argument
            .get_default_values()
            .first()
            .map(|value| value.to_string_lossy())
            .unwrap_or_default();
        let (word, default) = match kind(&command, name) {
            Some(Kind::Bool) => ("", (default == "true").then(|| default.to_string())),
            Some(Kind::Unsigned) => (" uint", (default != "0").then(|| default.to_string())),
            Some(Kind::Text) | None => (" string", (!default.is_empty()).then(|| format!("{default:?}"))),
        };
        let default = default
            .map(|value| format!(" (default {value})"))
            .unwrap_or_default();
        let _ = writeln!(text, "  -{name}{word}\n    \t{help}{default}");
    }
    text
}

#[cfg(test)]
mod tests;
