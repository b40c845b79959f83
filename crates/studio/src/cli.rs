//! The command line: what can be typed. What it does is in [`crate::command`] and [`crate::serve`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use protocol::moment::Bound;

use crate::api::rollout;
use crate::exit::CODES;

/// Fleet server for reagent devices.
#[derive(Debug, Parser)]
#[command(name = "studio", version, after_help = CODES, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub place: Place,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the studio is, who we are, how to print.
#[derive(Debug, Args)]
pub struct Place {
    /// Data directory: state of 'serve', and where the other commands find their credentials
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "STUDIO_DATA",
        default_value = "studio-data"
    )]
    pub data: PathBuf,
    /// Router URL of the studio, instead of the one in the data directory
    #[arg(long, global = true, value_name = "URL", env = "STUDIO_URL")]
    pub url: Option<String>,
    /// Account key, instead of the one in the data directory
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "STUDIO_AUTHID",
        requires = "secret_file"
    )]
    pub authid: Option<String>,
    /// File that holds the account's secret
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STUDIO_SECRET_FILE",
        requires = "authid"
    )]
    pub secret_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on standard error
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the studio: router, store, backend procedures, optionally a registry
    #[command(
        after_help = "Example: studio serve --listen 0.0.0.0:8080 --public-url ws://studio.example:8080 --with-registry"
    )]
    Serve(Box<Serve>),
    /// Devices of the fleet
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Apps and their versions
    #[command(subcommand)]
    App(AppCommand),
    /// Build, try and publish an app on a device while it is developed
    #[command(subcommand)]
    Dev(DevCommand),
    /// Accounts and their privileges
    #[command(subcommand)]
    Account(AccountCommand),
    /// Put an app on a device and run it; another version than the present one is an update
    #[command(after_help = example("studio install press-07 dashboard --version 1.4.0 --wait"))]
    Install(Install),
    /// Start an installed app
    #[command(after_help = example("studio start press-07 dashboard --wait"))]
    Start(Target),
    /// Stop a running app; it stays installed
    #[command(after_help = example("studio stop press-07 dashboard --wait"))]
    Stop(Target),
    /// Take an app off a device, with its data
    #[command(after_help = example("studio remove press-07 dashboard --keep-data --wait"))]
    Remove(Remove),
    /// Show which apps are on which devices, and in which state
    #[command(after_help = example("studio ps press-07"))]
    Ps { device: Option<String> },
    /// Show which states a device reported of an app, and when
    #[command(after_help = example("studio history press-07 dashboard"))]
    History { device: String, app: String },
    /// Show an app's log: what the device still has, and with -f what comes
    #[command(after_help = example("studio logs press-07 dashboard -f"))]
    Logs(Logs),
    /// Bring a version of the agent to devices, in waves
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Call a procedure of a device; arguments are read as JSON where they are JSON, else as text
    #[command(after_help = example("studio call press-07 get_app_log_history '{\"containerName\":\"prod_6_dashboard\"}'"))]
    Call(Call),
}

fn example(line: &str) -> String {
    format!("Example: {line}\n{CODES}")
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Address that agents and command lines connect to
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "STUDIO_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// Take wss connections only: PEM file with the certificate chain, the studio's own first
    #[arg(
        long,
        value_name = "FILE",
        env = "STUDIO_TLS_CERTIFICATE",
        requires = "tls_key",
        requires = "public_url",
        conflicts_with = "router"
    )]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the private key of --tls-certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "STUDIO_TLS_KEY",
        requires = "tls_certificate"
    )]
    pub tls_key: Option<PathBuf>,
    /// Attach to a router that runs already (Crossbar.io) instead of opening one; see docs/crossbar.md
    #[arg(
        long,
        value_name = "URL",
        env = "STUDIO_ROUTER",
        requires = "router_secret_file"
    )]
    pub router: Option<String>,
    /// The studio's authid there
    #[arg(long, value_name = "AUTHID", default_value = "system", requires = "router")]
    pub router_authid: String,
    /// File that holds the studio's secret there
    #[arg(
        long,
        value_name = "FILE",
        env = "STUDIO_ROUTER_SECRET_FILE",
        requires = "router"
    )]
    pub router_secret_file: Option<PathBuf>,
    /// Router URL written into new .flock files; where the studio reaches its router by default
    #[arg(long, value_name = "URL", env = "STUDIO_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Run a Docker registry on this port of 127.0.0.1 (needs docker-registry and htpasswd; 0: any free port)
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "5000")]
    pub with_registry: Option<u16>,
    /// Registry that devices pull from, with a slash at its end; by default the one of --with-registry
    #[arg(long, value_name = "HOST:PORT/", env = "STUDIO_REGISTRY", value_parser = with_slash)]
    pub registry: Option<String>,
    /// Repository prefix of app images, with a slash at its end
    #[arg(long, value_name = "PREFIX/", env = "STUDIO_REPOSITORY", default_value = "apps/", value_parser = with_slash)]
    pub repository: String,
    /// Serve this directory to agents as their update bucket; 'make publish BUCKET=DIR' fills it
    #[arg(long, value_name = "DIR", env = "STUDIO_BUCKET")]
    pub bucket: Option<PathBuf>,
    /// Address of the update bucket (http)
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "STUDIO_BUCKET_LISTEN",
        default_value = "127.0.0.1:8081"
    )]
    pub bucket_listen: SocketAddr,
    /// Update URL written into new .flock files, without '/re-agent'; by default where --bucket-listen is reached
    #[arg(long, value_name = "URL", env = "STUDIO_BUCKET_URL", value_parser = update_url)]
    pub bucket_url: Option<String>,
    /// URL of this studio told to apps as RESWARM_URL
    #[arg(long, value_name = "URL", env = "STUDIO_BASE_URL")]
    pub base_url: Option<String>,
}

/// Devices concatenate registry and repository as they are, so both end in a slash.
fn with_slash(text: &str) -> Result<String, String> {
    if text.len() > 1 && text.ends_with('/') && !text.starts_with('/') && !text.contains("://") {
        return Ok(text.to_owned());
    }
    Err("write it like registry.example:5000/ (no scheme, a slash at the end)".to_owned())
}

/// Agents append `/re-agent/…` to it.
fn update_url(text: &str) -> Result<String, String> {
    let bare = text.trim_end_matches('/');
    let web = bare.starts_with("http://") || bare.starts_with("https://");
    if web && !bare.ends_with("/re-agent") {
        return Ok(bare.to_owned());
    }
    Err("write it like https://updates.example/dl (agents append /re-agent/…)".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Add a device and write its identity file
    #[command(after_help = example("studio device add press-07 --out press-07.flock"))]
    Add {
        name: String,
        /// Where to write the identity file; NAME.flock by default. An existing file is never overwritten
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the devices
    #[command(after_help = example("studio device list --json"))]
    List,
    /// Show one device
    #[command(after_help = example("studio device show press-07"))]
    Show { device: String },
    /// Remove a device: its identity file becomes worthless
    #[command(after_help = example("studio device rm press-07"))]
    Rm { device: String },
}

#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Add an app
    #[command(after_help = example("studio app add dashboard --version 1.0.0 --port 8080/http --env MODE=fast"))]
    Add {
        name: String,
        /// First version
        #[arg(long)]
        version: Option<String>,
        /// Compose file of the first version: several containers instead of one image of the app's own
        #[arg(long, value_name = "FILE", requires = "version")]
        compose: Option<PathBuf>,
        /// Port that the app serves; protocol http (default), https, tcp or udp
        #[arg(long = "port", value_name = "PORT[/PROTOCOL]")]
        ports: Vec<String>,
        /// Default of an environment variable
        #[arg(long = "env", value_name = "NAME=VALUE")]
        environment: Vec<String>,
    },
    /// List the apps
    #[command(after_help = example("studio app list"))]
    List,
    /// Add a version whose image is in the registry already, or whose Compose file is given
    #[command(after_help = example("studio app release dashboard 1.1.0"))]
    Release {
        app: String,
        version: String,
        /// Compose file of this version
        #[arg(long, value_name = "FILE")]
        compose: Option<PathBuf>,
    },
    /// Push a local Docker image to the registry as a version of the app
    #[command(after_help = example("studio app push dashboard my-image:latest --version 1.1.0"))]
    Push {
        app: String,
        /// Local image; its architecture decides which devices can run it
        image: String,
        /// Version to push as; the newest one by default
        #[arg(long)]
        version: Option<String>,
    },
    /// Remove an app that is installed nowhere
    #[command(after_help = example("studio app rm dashboard"))]
    Rm { app: String },
}

#[derive(Debug, Subcommand)]
pub enum DevCommand {
    /// Upload a directory and build it on the device
    #[command(after_help = example("studio dev build press-07 dashboard ./dashboard --run"))]
    Build {
        #[command(flatten)]
        on: Development,
        /// What to build: a directory with a Dockerfile, or with what the Compose file builds from
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// Run it when it is built
        #[arg(long)]
        run: bool,
    },
    /// Run what was built
    #[command(after_help = example("studio dev run press-07 dashboard"))]
    Run {
        #[command(flatten)]
        on: Development,
    },
    /// Stop it; what was built stays
    #[command(after_help = example("studio dev stop press-07 dashboard"))]
    Stop {
        #[command(flatten)]
        on: Development,
    },
    /// Take it off the device, with its data
    #[command(after_help = example("studio dev remove press-07 dashboard"))]
    Remove {
        #[command(flatten)]
        on: Development,
    },
    /// Upload a directory, build it on the device and push it to the registry as a version of the app
    #[command(after_help = example("studio dev publish press-07 dashboard ./dashboard --version 1.2.0"))]
    Publish {
        #[command(flatten)]
        on: Development,
        /// What to build
        #[arg(default_value = ".")]
        directory: PathBuf,
        /// The new version
        #[arg(long)]
        version: String,
    },
}

/// An app in development on a device.
#[derive(Debug, Args)]
pub struct Development {
    /// Name, key or serial number
    pub device: String,
    /// Name or key
    pub app: String,
    /// Compose file, of an app of several containers
    #[arg(long, value_name = "FILE")]
    pub compose: Option<PathBuf>,
    /// Give up waiting after this many seconds; what was asked for goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..=LONGEST_WAIT))]
    pub timeout: u64,
}

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Add an account and write its secret to a file
    #[command(after_help = example("studio account add alice --out alice.secret"))]
    Add {
        name: String,
        /// May do everything on every device
        #[arg(long)]
        admin: bool,
        /// Where to write the secret. An existing file is never overwritten
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// List the accounts
    #[command(after_help = example("studio account list"))]
    List,
    /// Grant an account a privilege on a device: READ, NETWORK, DEVELOP or MAINTAIN
    #[command(after_help = example("studio account grant 2 press-07 READ"))]
    Grant {
        account: u64,
        device: String,
        privilege: String,
    },
    /// Take a privilege back
    #[command(after_help = example("studio account revoke 2 press-07 READ"))]
    Revoke {
        account: u64,
        device: String,
        privilege: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Start: a canary group first, then wave after wave, as long as enough devices end well
    #[command(after_help = example("studio rollout start 1.4.0 --canary press-07 --waves 10,50,100 --follow"))]
    Start {
        /// Published in the bucket that the devices use
        version: String,
        /// Only this device; may be repeated. All that you may maintain when left out
        #[arg(long = "device", value_name = "DEVICE")]
        devices: Vec<String>,
        /// Goes first; may be repeated. One device, another for every version, when left out
        #[arg(long, value_name = "DEVICE")]
        canary: Vec<String>,
        /// Percentages of the other devices that the waves reach up to
        #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', default_values_t = rollout::default_waves())]
        waves: Vec<u8>,
        /// Pause when fewer than so many percent of the devices asked so far can still end well
        #[arg(long, value_name = "PERCENT", default_value_t = rollout::default_threshold())]
        threshold: u8,
        /// A device that has not said how it ended after so many seconds has failed
        #[arg(long, value_name = "SECONDS", default_value_t = rollout::default_patience())]
        patience: u32,
        /// Also a version that is not published in the bucket of 'studio serve --bucket': the devices have another one
        #[arg(long)]
        unchecked: bool,
        /// Show who runs what until it is over or pauses itself
        #[arg(long, short)]
        follow: bool,
    },
    /// Show how far the newest rollout is, and who runs what
    #[command(after_help = example("studio rollout status --follow"))]
    Status {
        /// Again whenever it has changed, until it is over or pauses itself
        #[arg(long, short)]
        follow: bool,
    },
    /// Ask no further device for now
    #[command(after_help = example("studio rollout pause"))]
    Pause,
    /// Go on with a paused rollout; the failures that it shows do not count any more
    #[command(after_help = example("studio rollout resume --retry"))]
    Resume {
        /// Ask the devices that failed again
        #[arg(long)]
        retry: bool,
        /// Show who runs what until it is over or pauses itself
        #[arg(long, short)]
        follow: bool,
    },
    /// End it: devices that were not asked keep their version
    #[command(after_help = example("studio rollout abort"))]
    Abort,
}

/// A year, in seconds.
const LONGEST_WAIT: u64 = 365 * 24 * 3600;

/// How long to stay with a request.
#[derive(Clone, Copy, Debug, Args)]
pub struct Waiting {
    /// Show download and state changes until the app is where it should be, or FAILED; Ctrl-C ends the waiting alone
    #[arg(long)]
    pub wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait",
          value_parser = clap::value_parser!(u64).range(1..=LONGEST_WAIT))]
    pub timeout: u64,
}

#[derive(Debug, Args)]
pub struct Install {
    /// Name, key or serial number
    pub device: String,
    /// Name or key
    pub app: String,
    /// The newest one by default
    #[arg(long)]
    pub version: Option<String>,
    /// Environment variable; given at all, these replace those of an earlier install
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub environment: Vec<String>,
    /// Download only
    #[arg(long)]
    pub no_start: bool,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Target {
    /// Name, key or serial number
    pub device: String,
    /// Name or key
    pub app: String,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Remove {
    /// Name, key or serial number
    pub device: String,
    /// Name or key
    pub app: String,
    /// Leave the app's data directory on the device
    #[arg(long)]
    pub keep_data: bool,
    #[command(flatten)]
    pub waiting: Waiting,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Name, key or serial number; every device when none is named. Without -f, one that cannot be asked is a failure
    /// (exit 5 when it is offline), and the others are shown
    pub device: Option<String>,
    /// Name or key; every app when none is named
    pub app: Option<String>,
    /// Of this device, too (may be repeated)
    #[arg(long = "device", value_name = "DEVICE", id = "devices")]
    pub devices: Vec<String>,
    /// Of this app, too (may be repeated)
    #[arg(long = "app", value_name = "APP", id = "apps")]
    pub apps: Vec<String>,
    /// Of the app in development, not of the installed one: device and app have to be said
    #[arg(long)]
    pub dev: bool,
    /// Begin at this time (RFC 3339, or Unix seconds) or so long ago (30m, 2h), not with what the device keeps
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<String>,
    /// Only lines with this text, and the gaps
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Go on with new lines until interrupted, also after a restart of the studio or the device
    #[arg(long, short)]
    pub follow: bool,
}

/// As the devices read it.
fn since(text: &str) -> Result<String, String> {
    match Bound::parse(text.trim(), Timestamp::now()) {
        Some(_) => Ok(text.to_owned()),
        None => {
            Err("say a time (2026-11-21T09:00:00Z), Unix seconds, or how long ago (90s, 30m, 2h)".to_owned())
        }
    }
}

#[derive(Debug, Args)]
pub struct Call {
    /// Name, key or serial number
    pub device: String,
    /// Name without the device's prefix, like get_images
    pub procedure: String,
    /// Positional arguments
    pub args: Vec<String>,
    /// Keyword arguments, a JSON object
    #[arg(long, value_name = "JSON")]
    pub kwargs: Option<String>,
    /// Give up after this many seconds, an hour at most
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_and_the_exit_codes() {
        fn check(command: &clap::Command) {
            let subcommands: Vec<_> = command.get_subcommands().collect();
            for subcommand in &subcommands {
                check(subcommand);
            }
            if subcommands.is_empty() {
                let help = command
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(help.contains("Example: studio "), "{}", command.get_name());
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn update_urls_are_what_agents_append_the_bucket_to() {
        for (text, expected) in [
            ("https://updates.example/dl/", Some("https://updates.example/dl")),
            ("http://192.0.2.1:8081", Some("http://192.0.2.1:8081")),
            ("https://updates.example/re-agent", None),
            ("updates.example", None),
        ] {
            assert_eq!(update_url(text).ok().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn registries_end_in_a_slash_and_have_no_scheme() {
        for (text, good) in [
            ("127.0.0.1:5000/", true),
            ("apps/", true),
            ("r:5000", false),
            ("http://r/", false),
            ("/", false),
        ] {
            assert_eq!(with_slash(text).is_ok(), good, "{text}");
        }
    }
}
