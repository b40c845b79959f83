//! `release`: the command behind `make keys`, `make publish` and their like. docs/releasing.md tells the story.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use release::bucket::{Bucket, Created};
use release::keys::{PublicKeys, Signer};
use release::layout::{self, Platform};
use release::manifest::{Changes, Terms};
use release::publish::{self, Release, Renewal};
use release::schedule::{self, Pace, Rollout};
use release::{Unproven, built, keys, lists, verify};

/// Signs releases of the agent and publishes them to update buckets.
#[derive(Debug, Parser)]
#[command(name = "release", version, disable_help_subcommand = true)]
struct Cli {
    /// Directory with version.txt, availableVersions.json and the public keys that devices carry
    #[arg(long, global = true, value_name = "DIR", default_value = "release")]
    release: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key pair: SECRET is for you alone, PUBLIC goes into the repository
    Keys { secret: PathBuf, public: PathBuf },
    /// Sign what was built and bring it into the bucket; nothing is offered to any device yet
    Publish {
        bucket: String,
        /// Where the builds are
        #[arg(long, value_name = "DIR", default_value = "build")]
        build: PathBuf,
        /// The platforms that a release is made for
        #[arg(long, value_name = "FILE", default_value = "targets")]
        targets: PathBuf,
        /// Make patches from so many versions before
        #[arg(long, value_name = "N", default_value_t = 3)]
        deltas: usize,
        /// Only for devices of this environment; may be repeated. All when left out
        #[arg(long = "channel", value_name = "NAME")]
        channels: Vec<String>,
        /// Older agents have to go through another version first
        #[arg(long, value_name = "X.Y.Z")]
        minimum_version: Option<String>,
        /// May replace a newer version
        #[arg(long)]
        allow_downgrade: bool,
        #[command(flatten)]
        validity: Validity,
    },
    /// Issue the manifests of a published version again before they expire; what is not said stays as it is
    Renew {
        bucket: String,
        version: String,
        #[command(flatten)]
        changes: ChangeArgs,
        /// Issue again, too, what is not signed by a key that devices know: say all its terms, and look at the digests
        #[arg(long)]
        replace_unproven: bool,
        #[command(flatten)]
        validity: Validity,
    },
    /// Read back everything about a version and prove it: the one of version.txt, or another
    Verify { bucket: String, version: Option<String> },
    /// Make live what availableVersions.json names, after proving that it is there
    Versions {
        bucket: String,
        /// A platform that has a version now and shall have none; may be repeated
        #[arg(long = "without", value_name = "OS/ARCH")]
        without: Vec<String>,
        /// Only prove and say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Publish version.txt, for people
    Version { bucket: String },
    /// Copy the production version to 'latest', for people
    Latest { bucket: String },
    /// Say which devices take a version by themselves, and when
    Schedule {
        bucket: String,
        version: String,
        /// production, test, local, or all for every other
        #[arg(long, value_name = "NAME", default_value = "all")]
        channel: String,
        /// Begin a new schedule if the one there is not signed by a key that devices know; say its other versions again
        #[arg(long)]
        replace_unproven: bool,
        /// Say nothing of this version any more, for no channel; may be repeated. Nothing holds it back then
        #[arg(long = "forget", value_name = "X.Y.Z", value_parser = strict)]
        forget: Vec<String>,
        #[command(flatten)]
        pace: PaceArgs,
        #[command(flatten)]
        validity: Validity,
    },
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// From now on only for devices of this environment; may be repeated
    #[arg(long = "channel", value_name = "NAME")]
    channels: Vec<String>,
    /// From now on for devices of all environments
    #[arg(long, conflicts_with = "channels")]
    all_channels: bool,
    /// Older agents have to go through another version first
    #[arg(long, value_name = "X.Y.Z", value_parser = strict)]
    minimum_version: Option<String>,
    /// From now on for agents of every version
    #[arg(long, conflicts_with = "minimum_version")]
    no_minimum_version: bool,
    /// May replace a newer version; =false: not any more
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_downgrade: Option<bool>,
}

impl From<ChangeArgs> for Changes {
    fn from(args: ChangeArgs) -> Changes {
        let are_said = args.all_channels || !args.channels.is_empty();
        Changes {
            channels: are_said.then_some(args.channels),
            minimum_version: match args.no_minimum_version {
                true => Some(None),
                false => args.minimum_version.map(Some),
            },
            allow_downgrade: args.allow_downgrade,
        }
    }
}

/// A version that agents read.
fn strict(text: &str) -> Result<String, String> {
    match layout::is_strict(text) {
        true => Ok(text.to_owned()),
        false => Err("write it like 1.4.0".to_owned()),
    }
}

#[derive(Debug, Args)]
struct Validity {
    /// Days until the signature has to be made again
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PaceArgs {
    /// So many hundredths of the devices
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    percent: Option<u8>,
    /// All devices, evenly over so many hours from now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=8760))]
    hours: Option<u64>,
    /// No device
    #[arg(long)]
    stop: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("release: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let public = || PublicKeys::in_directory(&cli.release);
    let version = || -> Result<String> {
        let path = cli.release.join("version.txt");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    };
    let list = || {
        let path = cli.release.join(layout::VERSIONS);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    match cli.command {
        Command::Keys { secret, public } => {
            keys::generate(&secret, &public)?;
            println!(
                "release: secret key in {}: keep it out of every repository",
                secret.display()
            );
            println!(
                "release: public key in {}: devices carry it from their next version on",
                public.display()
            );
        }
        Command::Publish {
            bucket,
            build,
            targets,
            deltas,
            channels,
            minimum_version,
            allow_downgrade,
            validity,
        } => {
            if let Some(odd) = minimum_version
                .as_ref()
                .filter(|version| !layout::is_strict(version))
            {
                bail!("{odd:?} is no version X.Y.Z");
            }
            let bucket = Bucket::open(&bucket)?;
            let version = version()?;
            let builds = built::collect(&build, &targets)?;
            for platform in &builds.missing {
                println!("release: {platform} was not built and is not published");
            }
            let release = Release {
                version: &version,
                agents: &builds.agents,
                signer: &Signer::from_environment()?,
                keys: &public()?,
                terms: &Terms {
                    channels,
                    minimum_version,
                    allow_downgrade,
                },
                days: validity.days,
                deltas,
            };
            publish::publish(&bucket, &release, report)?;
            println!(
                "release: version {version} is published and proven; 'make publish-latestVersions' makes it live"
            );
        }
        Command::Renew {
            bucket,
            version,
            changes,
            replace_unproven,
            validity,
        } => {
            let renewal = Renewal {
                version: &version,
                signer: &Signer::from_environment()?,
                keys: &public()?,
                days: validity.days,
                changes: &changes.into(),
                unproven: unproven(replace_unproven),
            };
            for (platform, manifest) in publish::renew(&Bucket::open(&bucket)?, &renewal)? {
                println!(
                    "release: {platform} has {} and {}",
                    manifest.sha256,
                    manifest.terms()
                );
            }
            println!(
                "release: version {version} is good for {} more days",
                validity.days
            );
        }
        Command::Verify {
            bucket,
            version: asked,
        } => {
            let bucket = Bucket::open(&bucket)?;
            let version = asked.map_or_else(version, Ok)?;
            let platforms = verify::version(&bucket, &bucket.list("")?, &public()?, &version)?;
            println!(
                "release: version {version} is whole and signed for {}",
                join(&platforms)
            );
        }
        Command::Versions {
            bucket,
            without,
            dry_run,
        } => {
            let bucket = Bucket::open(&bucket)?;
            let dropped = without
                .iter()
                .map(|text| Platform::parse(text).with_context(|| format!("{text:?} is not OS/ARCH")))
                .collect::<Result<Vec<_>>>()?;
            let text = list()?;
            let before = lists::current(&bucket)?.unwrap_or_default();
            let versions = if dry_run {
                let versions = lists::read(&text)?;
                lists::check(&bucket, &public()?, &versions, &dropped)?;
                versions
            } else {
                lists::publish(&bucket, &public()?, &text, &dropped)?
            };
            for (channel, version) in &versions {
                let before = before.get(channel).map_or("nothing", String::as_str);
                let word = if dry_run { "would take" } else { "take" };
                println!("release: devices of {channel} {word} {version} (before: {before})");
            }
        }
        Command::Version { bucket } => {
            let version = version()?;
            lists::publish_version(&Bucket::open(&bucket)?, &version)?;
            println!("release: version.txt says {version}");
        }
        Command::Latest { bucket } => {
            let versions = lists::read(&list()?)?;
            for name in lists::publish_latest(&Bucket::open(&bucket)?, &public()?, &versions)? {
                println!("release: {name}");
            }
        }
        Command::Schedule {
            bucket,
            version,
            channel,
            replace_unproven,
            forget,
            pace,
            validity,
        } => {
            if !layout::is_strict(&version) {
                bail!("{version:?} is no version X.Y.Z");
            }
            let pace = match (pace.percent, pace.hours) {
                (Some(percent), _) => Pace::Percent(percent),
                (None, Some(hours)) => Pace::Over {
                    start: Timestamp::from_second(Timestamp::now().as_second())?,
                    seconds: hours * 3600,
                },
                (None, None) => Pace::Stopped {},
            };
            let rollout = Rollout {
                version,
                channel,
                pace,
            };
            let signer = Signer::from_environment()?;
            let bucket = Bucket::open(&bucket)?;
            let public = public()?;
            if replace_unproven
                && let Err(error) = schedule::read(&bucket, &public)
                && let Some(text) = bucket.read(layout::ROLLOUTS)?
            {
                let text = legible(&text);
                eprintln!("release: {error:#}\nrelease: what is replaced, for you to read:\n{text}");
            }
            let schedule = schedule::set(
                &bucket,
                &signer,
                &public,
                rollout,
                &forget,
                validity.days,
                unproven(replace_unproven),
            )?;
            println!("{}", serde_json::to_string_pretty(&schedule)?);
        }
    }
    Ok(())
}

fn unproven(replace: bool) -> Unproven {
    match replace {
        true => Unproven::Replace,
        false => Unproven::Refuse,
    }
}

/// What somebody else wrote, perhaps for a terminal.
fn legible(text: &[u8]) -> String {
    let lines = serde_json::from_slice::<serde_json::Value>(text)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned());
    lines.replace(|c: char| c.is_control() && c != '\n', " ")
}

fn report(published: &publish::Published) {
    let word = match published.created {
        Created::New => "published",
        Created::Same => "was there already",
    };
    println!(
        "release: {} {word} ({} bytes)",
        published.platform, published.size
    );
    for (from, size) in &published.patches {
        println!("release:   patch from {from} ({size} bytes)");
    }
}

fn join(platforms: &[Platform]) -> String {
    let names: Vec<_> = platforms.iter().map(ToString::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(words: &[&str]) -> Option<Changes> {
        let words = [&["release", "renew", "bucket", "1.4.0"], words].concat();
        match Cli::try_parse_from(words).ok()?.command {
            Command::Renew { changes, .. } => Some(changes.into()),
            _ => None,
        }
    }

    #[test]
    fn renewing_changes_what_is_said_and_nothing_else() {
        assert_eq!(changes(&[]), Some(Changes::default()));
        let told = changes(&["--channel", "test", "--allow-downgrade"]).unwrap();
        assert_eq!(told.channels, Some(vec!["test".to_owned()]));
        assert_eq!(told.allow_downgrade, Some(true));
        let told = changes(&["--all-channels", "--allow-downgrade=false"]).unwrap();
        assert_eq!(told.channels, Some(Vec::new()));
        assert_eq!(told.allow_downgrade, Some(false));
        assert_eq!(told.minimum_version, None);
        let told = changes(&["--minimum-version", "1.3.0"]).unwrap();
        assert_eq!(told.minimum_version, Some(Some("1.3.0".to_owned())));
        let told = changes(&["--no-minimum-version"]).unwrap();
        assert_eq!(told.minimum_version, Some(None));
        for wrong in [
            &["--all-channels", "--channel", "test"][..],
            &["--minimum-version", "1.0"],
            &["--minimum-version", "1.3.0", "--no-minimum-version"],
        ] {
            assert_eq!(changes(wrong), None, "{wrong:?}");
        }
    }
}
