//! One update from the version list to a staged file. Every step leaves nothing behind that anybody would start, until
//! the last one. Must not know when it is run and what happens to a staged version.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use protocol::rollout::MAX_SCHEDULE;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

mod bring;

use super::bucket::{self, Bucket};
use super::check::{self, Unfit};
use super::clock::Clock;
use super::download::DownloadError;
use super::http::{Client, HttpError};
use super::manifest::{self, Manifest, Refused, Wish};
use super::memory::Memory;
use super::order::{Cause, Ended, Order};
use super::progress::Meter;
use super::rollout::{Schedule, Turn};
use super::state::{Phase, State};
use super::version::NotAVersion;
use super::{
    Custody, Health, RECENTLY, UpdateContext, custody, disk, file_name, litter, spare, state, version,
};
use crate::cli::VERSION;
use crate::journal::Chain;

/// A version list is a few lines.
const LIST_SIZE: usize = 64 * 1024;
/// A signature is four lines.
const SIGNATURE_SIZE: usize = 4 * 1024;

/// Why an update came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    #[error("{what} could not be fetched")]
    Fetch {
        what: &'static str,
        #[source]
        source: HttpError,
    },
    #[error("the version list is unusable: {0}")]
    List(&'static str),
    #[error("the offered version cannot be compared with the running one")]
    Version(#[source] NotAVersion),
    #[error("the release was refused")]
    Refused(#[source] Refused),
    #[error(
        "version {version} previously failed on this device and is blocked: {reason}; update_agent with \"force\": true tries it again"
    )]
    Blocked { version: String, reason: String },
    #[error("the new version was not downloaded")]
    Download(#[source] DownloadError),
    #[error("the new version is not fit to run here")]
    Unfit(#[source] Unfit),
    #[error("the new version could not be put in place: {doing}")]
    Disk {
        doing: &'static str,
        #[source]
        source: std::io::Error,
    },
}

/// Fetches, proves and stages.
#[derive(Debug)]
pub(crate) struct Installer {
    context: UpdateContext,
    client: Client,
    memory: Memory,
    health: Health,
    since: Instant,
    /// When this process staged a version.
    staged: Mutex<Option<Instant>>,
    /// Since when an update waits for the end of other work.
    postponed: Mutex<Option<Instant>>,
}

impl Installer {
    pub(crate) fn new(context: UpdateContext, memory: Memory, health: Health) -> Installer {
        let client = Client::new(context.footing.setup.limits);
        Installer {
            context,
            client,
            memory,
            health,
            since: Instant::now(),
            staged: Mutex::default(),
            postponed: Mutex::default(),
        }
    }

    /// Whether any release can be accepted.
    pub(crate) fn has_keys(&self) -> bool {
        !self.context.footing.setup.keys.is_empty()
    }

    fn bucket(&self) -> Bucket {
        let flock = self.context.device.current();
        Bucket::of(&flock.update_url, &self.context.settings.remote_update_url)
    }

    /// The version that the list offers this device.
    pub(crate) async fn offered(&self) -> Result<String, InstallError> {
        let list = self
            .get("the version list", &self.bucket().versions(), LIST_SIZE)
            .await?;
        let device = self.context.device.current();
        bucket::offered(&list, device.effective_environment()).map_err(InstallError::List)
    }

    async fn get(&self, what: &'static str, url: &str, limit: usize) -> Result<Bytes, InstallError> {
        let fetched = self.client.get(url, limit).await;
        fetched.map_err(|source| InstallError::Fetch { what, source })
    }

    /// What is remembered about updates.
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Installs what is wished for. One call at a time.
    pub(crate) async fn run(&self, order: Order, mut meter: Meter) -> Ended {
        let mut offered = order.cause.version().map(str::to_owned);
        match self.attempt(&order, &mut offered, &mut meter).await {
            Ok(ended) => ended,
            Err(failure) => {
                let reason = Chain(&failure).to_string();
                tracing::warn!(from = VERSION, to = offered, error = reason, "no update");
                // A bucket that cannot be reached says nothing about an update.
                if let (Some(to), true) = (offered.clone(), failure.is_about_the_release()) {
                    let told = self.memory.change(move |state| {
                        state.fail(VERSION, &to, &reason, &order.id);
                    });
                    if let Err(error) = told.await {
                        tracing::warn!(%error, "the failed update cannot be remembered");
                    }
                }
                Ended::Failed { offered, failure }
            }
        }
    }

    async fn attempt(
        &self,
        order: &Order,
        offered: &mut Option<String>,
        meter: &mut Meter,
    ) -> Result<Ended, InstallError> {
        let Order { cause, force, .. } = order;
        let remembered = self.memory.current();
        let isolated =
            remembered.new_version == VERSION && self.since.elapsed() >= self.context.footing.setup.isolation;
        let settled = isolated || self.is_ignored(&remembered);
        if remembered.is_trial() && !settled && is_complete(&remembered).await {
            return self.wait(&remembered.new_version, order).await;
        }
        let explicit = cause.version().is_some();
        let wanted = match cause.version() {
            Some(version) => version.to_owned(),
            None => self.offered().await?,
        };
        *offered = Some(wanted.clone());
        if wanted == VERSION && remembered.is_trial() && remembered.new_version == VERSION {
            // However long it has lasted.
            return self.wait(VERSION, order).await;
        }
        let newer = version::is_update(VERSION, &wanted).map_err(InstallError::Version)?;
        if wanted == VERSION || !(newer || explicit) {
            let message = format!("version {VERSION} is up to date");
            return Ok(Ended::nothing(&wanted, message));
        }
        if self.context.footing.custody == Custody::Nobody {
            let message = "no other version is ever started here, so none is fetched; the service of Windows is updated";
            return Ok(Ended::nothing(&wanted, message.to_owned()));
        }
        if *cause == Cause::Automatic {
            if remembered.has_left(&wanted) {
                let message = format!("somebody had this device leave version {}", remembered.left);
                return Ok(Ended::nothing(&wanted, message));
            }
            match self.turn(&wanted).await? {
                Turn::Now => {}
                Turn::Later => {
                    let message = format!("version {wanted} comes to this device later");
                    return Ok(Ended::nothing(&wanted, message));
                }
                Turn::Stopped => {
                    let message = format!("the rollout of version {wanted} is stopped");
                    return Ok(Ended::nothing(&wanted, message));
                }
            }
        }
        let manifest = self.prove(&wanted, explicit).await?;
        if let Some(blocked) = remembered.blocked(&wanted, &manifest.sha256) {
            if !*force {
                return Err(InstallError::Blocked {
                    version: wanted,
                    reason: blocked.reason.clone(),
                });
            }
            tracing::info!(
                version = wanted,
                reason = blocked.reason,
                "somebody wants it tried again"
            );
            let (version, sha256) = (wanted.clone(), manifest.sha256.clone());
            let free = self.memory.change(move |state| state.unblock(&version, &sha256));
            free.await.map_err(disk_error("remembering that it is free"))?;
        }
        if *cause == Cause::Automatic && self.is_inconvenient() {
            return Ok(Ended::Postponed { offered: wanted });
        }
        let (version, issued) = (manifest.version.clone(), manifest.issued);
        let seen = self
            .memory
            .change(move |state| state.saw_manifest(&version, issued));
        seen.await.map_err(disk_error("remembering its manifest"))?;
        let target = self.context.settings.agent_dir.join(file_name(&wanted));
        let sealed = match has_digest(&target, &manifest.sha256).await {
            // Brought here by whom ever: it is what was signed.
            true => {
                meter.there(manifest.size);
                target.clone()
            }
            false => self.bring(&manifest, meter).await?,
        };
        if let Err(unfit) = self.check(&sealed, &manifest).await {
            if sealed != target {
                let _ = disk::remove(&sealed);
            }
            return Err(InstallError::Unfit(unfit));
        }
        if *cause == Cause::Automatic && self.is_inconvenient() {
            return Ok(Ended::Postponed { offered: wanted });
        }
        self.stage(&manifest, &sealed, &target, order).await?;
        Ok(Ended::Staged {
            version: wanted,
            size: manifest.size,
        })
    }

    /// A version waits to prove itself. Its outcome belongs to whoever asks for it.
    async fn wait(&self, waiting: &str, order: &Order) -> Result<Ended, InstallError> {
        let is_wanted = order.cause.version().is_none_or(|wanted| wanted == waiting);
        let (theirs, id) = (waiting.to_owned(), order.id.clone());
        let adopted = self.memory.change(move |state| {
            // It may have ended in the meantime.
            if is_wanted && !id.is_empty() && state.is_trial() && state.new_version == theirs {
                state.id = id;
            }
        });
        adopted
            .await
            .map_err(disk_error("remembering who asked for it"))?;
        let message = format!("version {waiting} waits to prove itself");
        Ok(Ended::nothing(waiting, message))
    }

    /// Whether an update that nobody asked for would break off long work of the device (R4). Not for longer than an hour.
    fn is_inconvenient(&self) -> bool {
        let mut postponed = self.postponed.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.context.engine.works().are_under_way() {
            *postponed = None;
            return false;
        }
        let since = *postponed.get_or_insert_with(Instant::now);
        since.elapsed() < self.context.footing.setup.idle_limit
    }

    /// Whether a version was staged and nobody has started it for so long that nobody will: it must not keep others
    /// out.
    fn is_ignored(&self, remembered: &State) -> bool {
        let staged = *self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = staged.unwrap_or(self.since).elapsed();
        remembered.phase == Phase::Staged
            && remembered.new_version != VERSION
            && waits >= self.context.footing.setup.ignored
    }

    /// Whether it is this device's turn to take `wanted` by itself. Without a schedule everybody does at once.
    async fn turn(&self, wanted: &str) -> Result<Turn, InstallError> {
        let url = self.bucket().rollouts();
        let what = "the schedule of rollouts";
        let content = match self.client.get(&url, MAX_SCHEDULE).await {
            Ok(content) => content,
            Err(absence) if absence.is_absence() => {
                // Whoever can take a file away must not let go of what a signed one holds.
                let remembered = self.memory.current();
                let now = Clock::read().now(remembered.newest_schedule);
                return match remembered.schedule_expires.filter(|expires| now <= *expires) {
                    None => Ok(Turn::Now),
                    Some(expires) => Err(InstallError::Refused(Refused::Gone(expires))),
                };
            }
            Err(source) => return Err(InstallError::Fetch { what, source }),
        };
        let schedule: Schedule = self.open(what, &url, MAX_SCHEDULE, Some(content)).await?;
        let (issued, expires) = (schedule.issued, schedule.expires);
        let clock = Clock::read();
        clock
            .admits(issued)
            .map_err(|ahead| InstallError::Refused(ahead.into()))?;
        if self
            .memory
            .current()
            .newest_schedule
            .is_some_and(|seen| issued < seen)
        {
            return Err(InstallError::Refused(Refused::Replayed));
        }
        // Written only when it is another one.
        let seen = self.memory.change(move |state| {
            state.newest_schedule = Some(issued);
            state.schedule_expires = Some(expires);
        });
        seen.await
            .map_err(disk_error("remembering the schedule of rollouts"))?;
        let device = self.context.device.current();
        let place = super::position(&device.serial_number, wanted);
        Ok(schedule.turn(
            device.effective_environment(),
            wanted,
            place,
            clock.now(Some(issued)),
        ))
    }

    /// What the signed object at `url` says; `content`: it was fetched already. Publishers write the object and its
    /// signature one after the other, so two that do not fit together are both fetched once more.
    async fn open<T: DeserializeOwned>(
        &self,
        what: &'static str,
        url: &str,
        limit: usize,
        content: Option<Bytes>,
    ) -> Result<T, InstallError> {
        let keys = &self.context.footing.setup.keys;
        let content = match content {
            Some(content) => content,
            None => self.get(what, url, limit).await?,
        };
        let beside = bucket::signature(url);
        let signature = self.get("the signature", &beside, SIGNATURE_SIZE).await?;
        match keys.open(&content, &signature) {
            Err(Refused::Signature) => {}
            opened => return opened.map_err(InstallError::Refused),
        }
        tokio::time::sleep(self.context.footing.setup.patience.pauses.first).await;
        let content = self.get(what, url, limit).await?;
        let signature = self.get("the signature", &beside, SIGNATURE_SIZE).await?;
        keys.open(&content, &signature).map_err(InstallError::Refused)
    }

    /// The manifest of `wanted`, proven and found to allow it.
    async fn prove(&self, wanted: &str, explicit: bool) -> Result<Manifest, InstallError> {
        let bucket = self.bucket();
        if !version::is_plain(wanted) {
            return Err(InstallError::Refused(Refused::Values("version")));
        }
        if !self.has_keys() {
            return Err(InstallError::Refused(Refused::NoKeys));
        }
        let url = bucket.manifest(wanted);
        let manifest: Manifest = self.open("the manifest", &url, manifest::MAX_SIZE, None).await?;
        let device = self.context.device.current();
        let remembered = self.memory.current();
        let wish = Wish {
            version: wanted,
            os: bucket.os(),
            arch: bucket.arch(),
            environment: device.effective_environment(),
            running: VERSION,
            explicit,
            newest_seen: remembered
                .newest_manifest
                .map(|seen| (seen, remembered.newest_manifest_of.as_str())),
            clock: Clock::read(),
        };
        manifest.admits(&wish).map_err(InstallError::Refused)?;
        Ok(manifest)
    }

    async fn check(&self, sealed: &Path, manifest: &Manifest) -> Result<(), Unfit> {
        check::header(sealed)?;
        let path = sealed.to_owned();
        spawn_blocking(move || disk::seal(&path))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(Unfit::Unreadable)?;
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let limit = self.context.footing.setup.version_run;
        check::prints_version(sealed, &manifest.version, &arguments, limit).await
    }

    /// Remembers what is about to be tried, then gives the file its name.
    async fn stage(
        &self,
        manifest: &Manifest,
        sealed: &Path,
        target: &Path,
        order: &Order,
    ) -> Result<(), InstallError> {
        let own = custody::myself().map_err(disk_error("finding the running binary"))?;
        if self.context.footing.custody == Custody::Managed && !own.is_file() {
            // Somebody replaced it: the script could not come back to it.
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(disk_error("finding the way back to the running binary")(gone));
        }
        // The process may have been started since, or be a version under test that follows one which was.
        let was_connected = self.health.was_connected(RECENTLY) || self.memory.current().connected;
        let had_docker = self.health.has_docker();
        let (signed, new_file) = (manifest.clone(), target.to_owned());
        let (explicit, id) = (order.cause.version().is_some(), order.id.clone());
        // Whatever fills the disk later, the starts of the new version are counted.
        let room = self.context.settings.agent_dir.clone();
        spawn_blocking(move || spare::keep(&room))
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(disk_error("keeping room for the update state"))?;
        let before = self.memory.current();
        let remembered = self.memory.change(move |state| {
            // Out of a version that never proved itself the way back leads to the one before.
            let unproven = state.new_version == VERSION || state.staged_by == VERSION;
            if !(state.is_trial() && unproven) {
                state.old_version = VERSION.to_owned();
                state.old_file = own;
            }
            VERSION.clone_into(&mut state.staged_by);
            state.leave(VERSION, &signed.version, explicit);
            state.phase = Phase::Staged;
            state.new_version = signed.version;
            state.id = id;
            state.new_sha256 = signed.sha256;
            state.new_size = signed.size;
            state.new_file = new_file;
            state.attempts = 0;
            state.old_starts = 0;
            state.staged_at = state::now();
            state.was_connected = was_connected;
            state.had_docker = had_docker;
        });
        remembered.await.map_err(disk_error("remembering it"))?;
        *self.staged.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let (sealed, target) = (sealed.to_owned(), target.to_owned());
        let agent_dir = self.context.settings.agent_dir.clone();
        let managed = self.context.footing.custody == Custody::Managed;
        let publish = move || {
            disk::publish(&sealed, &target, &litter::binaries(&agent_dir))?;
            match managed {
                true => custody::make_way(&agent_dir, &target),
                false => Ok(()),
            }
        };
        let published = spawn_blocking(publish)
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        if published.is_err() {
            // Nobody can start what has no name, so it must keep nobody out; this version may be on trial itself.
            let unstaged = self.memory.change(move |state| {
                if state.phase == Phase::Staged && !state.new_file.is_file() {
                    *state = before;
                }
            });
            if let Err(error) = unstaged.await {
                tracing::warn!(%error, "the failed update cannot be remembered");
            }
        }
        published.map_err(disk_error("giving it its name"))
    }
}

impl InstallError {
    /// Whether the bucket could not be reached, and may be soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            InstallError::Fetch { source, .. } | InstallError::Download(DownloadError::Http(_, source)) => {
                source.is_transient()
            }
            // What came so far is kept.
            InstallError::Download(DownloadError::Late { .. }) => true,
            _ => false,
        }
    }

    /// Whether the operator of the release has something to mend, as opposed to the network.
    fn is_about_the_release(&self) -> bool {
        match self {
            InstallError::Fetch { .. } | InstallError::Download(DownloadError::Http(..)) => {
                !self.is_transient()
            }
            InstallError::List(_)
            | InstallError::Version(_)
            | InstallError::Download(DownloadError::Late { .. }) => false,
            InstallError::Refused(_)
            | InstallError::Blocked { .. }
            | InstallError::Download(_)
            | InstallError::Unfit(_)
            | InstallError::Disk { .. } => true,
        }
    }
}

fn disk_error(doing: &'static str) -> impl FnOnce(std::io::Error) -> InstallError {
    move |source| InstallError::Disk { doing, source }
}

async fn is_complete(remembered: &State) -> bool {
    let remembered = remembered.clone();
    let complete = spawn_blocking(move || super::candidate_is_complete(&remembered));
    complete.await.unwrap_or(false)
}

async fn has_digest(path: &Path, sha256: &str) -> bool {
    let (path, sha256) = (path.to_owned(), sha256.to_owned());
    let same = spawn_blocking(move || disk::digest(&path).is_ok_and(|digest| digest == sha256));
    same.await.unwrap_or(false)
}
