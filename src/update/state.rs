//! What the device remembers about updates: `update-state.json` in the agent directory (`update-and-system.md` 1.14,
//! 9.3.1), with additions that other agents ignore. Written as a whole, durable before anything builds on it.
//!
//! One writer at a time: before a version runs its launcher writes, while it runs only the version itself does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{litter, spare, version};
use crate::{durable, journal};

/// File name below the agent directory. Without `reagent-`, which the manager script would take for a binary.
const FILE: &str = "update-state.json";
/// Versions that are remembered as failed; the oldest is forgotten.
const BLOCKED: usize = 16;
/// Outcomes that wait for the studio beside the last one; the oldest is forgotten.
const UNTOLD: usize = 7;
/// Bytes that are remembered of a reason: the room that is kept for the state holds a full one.
const REASON: usize = 400;

/// Where an update stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// The new version is complete on disk and has not been started.
    Staged,
    /// It is about to take the place of the running one: Windows alone.
    Swapping,
    /// It was started and has to prove itself.
    Probation,
    /// It failed; the old version runs.
    Rolledback,
    /// No update is under way. Phases of other agents count as this.
    #[default]
    #[serde(rename = "", other)]
    None,
}

/// A binary in the agent directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Binary {
    pub version: String,
    pub sha256: String,
    pub size: u64,
    /// The version of the launcher that took it into use: another launcher means a new installation.
    pub launcher: String,
}

/// A version that failed here. Another build of the same number has another digest and is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blocked {
    pub version: String,
    pub sha256: String,
    pub reason: String,
}

/// How the last update ended, for the studio.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub from: String,
    pub to: String,
    /// `updated`, `rolledback` or `failed`.
    pub result: String,
    /// For people; empty when updated.
    pub reason: String,
    /// What whoever asked for that update calls it; empty: nobody asked, or gave it no name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
}

/// The whole memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub phase: Phase,
    pub new_version: String,
    pub old_version: String,
    /// Starts of the new version without proof of its health.
    pub attempts: u32,
    /// The present start of the new version is not one of them: what kept it from proving itself is not its own fault.
    pub excused: bool,
    /// The router says that nobody is there who could answer the new version. Its time stands still.
    pub backend_away: bool,
    /// RFC 3339.
    pub updated_at: String,
    /// RFC 3339.
    pub staged_at: String,
    /// Starts of the old version since staging.
    pub old_starts: u32,
    pub new_sha256: String,
    pub new_size: u64,
    /// Absolute path of the new binary.
    pub new_file: PathBuf,
    /// Absolute path of the binary that the way back leads to.
    pub old_file: PathBuf,
    /// The version that staged the new one. It is the old one, unless it had not proven itself.
    pub staged_by: String,
    /// The old version was connected shortly before: the new one can be expected to.
    pub was_connected: bool,
    /// The old version reached Docker: the new one has to.
    pub had_docker: bool,
    /// The backend accepted CONNECTED less than an hour ago, or less than an hour before the last process ended.
    pub connected: bool,
    pub blocked: Vec<Blocked>,
    /// Without an external manager: what the launcher starts.
    pub active: Option<Binary>,
    /// When the newest manifest seen was issued.
    pub newest_manifest: Option<jiff::Timestamp>,
    /// The version of that manifest, and what was the newest before it: a version that fails here takes its date along.
    pub newest_manifest_of: String,
    pub newest_manifest_before: Option<jiff::Timestamp>,
    pub newest_manifest_before_of: String,
    /// When the newest schedule of rollouts seen was issued, and until when it is in force.
    pub newest_schedule: Option<jiff::Timestamp>,
    pub schedule_expires: Option<jiff::Timestamp>,
    /// The highest version that somebody had this device leave for an older one; empty: none.
    pub left: String,
    /// [`Outcome::id`] of the update that is under way, or of the last one.
    pub id: String,
    pub outcome: Option<Outcome>,
    /// The studio knows the outcome.
    pub reported: bool,
    /// Outcomes before that one which the studio does not know, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Outcome>,
}

impl State {
    /// What is remembered in `agent_dir`. An unreadable file counts as none, loudly (1.14).
    pub(crate) fn load(agent_dir: &Path) -> State {
        let path = agent_dir.join(FILE);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return State::default(),
            Err(error) => {
                journal::complain(&format!(
                    "{} cannot be read and counts as empty: {error}",
                    path.display()
                ));
                return State::default();
            }
        };
        serde_json::from_slice(&content).unwrap_or_else(|error| {
            journal::complain(&format!(
                "{} is damaged and counts as empty, what failed here before is forgotten: {error}",
                path.display()
            ));
            State::default()
        })
    }

    /// Remembers it for good, on a full disk too: at the price of unfinished downloads, then in the room that was kept
    /// for it. Blocks until it is on disk.
    pub(crate) fn save(&mut self, agent_dir: &Path) -> io::Result<()> {
        self.updated_at = now();
        let content = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let padded = spare::padded(agent_dir, content.clone());
        let path = agent_dir.join(FILE);
        let full = match durable::replace(&path, &padded, 0o600) {
            Err(error) if spare::is_full(&error) => error,
            written => return written,
        };
        // The one that is being staged may not have its name yet.
        if litter::sweep_parts(agent_dir, &self.new_sha256) && durable::replace(&path, &padded, 0o600).is_ok()
        {
            return Ok(());
        }
        spare::replace(agent_dir, &path, &content).map_err(|_| full)
    }

    /// Whether a version waits to be started or is being tried.
    pub(crate) fn is_trial(&self) -> bool {
        matches!(self.phase, Phase::Staged | Phase::Probation)
    }

    /// The reason for which this very build failed here before, or any of its number when another agent remembered no
    /// more.
    pub(crate) fn blocked(&self, version: &str, sha256: &str) -> Option<&Blocked> {
        self.blocked.iter().find(|blocked| {
            blocked.version == version && (blocked.sha256 == sha256 || blocked.sha256.is_empty())
        })
    }

    /// Somebody wants this very build tried again, although it failed here.
    pub(crate) fn unblock(&mut self, version: &str, sha256: &str) {
        self.blocked
            .retain(|blocked| blocked.version != version || blocked.sha256 != sha256);
    }

    /// A start of the new version begins.
    pub(crate) fn count_start(&mut self) {
        self.phase = Phase::Probation;
        self.attempts = self.attempts.saturating_add(1);
        self.excused = false;
        self.backend_away = false;
    }

    /// The present start says nothing about the new version and does not count.
    pub(crate) fn excuse_start(&mut self) {
        if self.phase == Phase::Probation && !self.excused {
            self.attempts = self.attempts.saturating_sub(1);
            self.excused = true;
        }
    }

    /// `wanted` is about to be staged in place of `running`. Where a person names an older version, what is left that
    /// way stays left, until somebody brings a version back that is not older.
    pub(crate) fn leave(&mut self, running: &str, wanted: &str, explicit: bool) {
        if explicit && version::is_after(running, wanted) && version::is_after(running, &self.left) {
            running.clone_into(&mut self.left);
        }
        if !version::is_after(&self.left, wanted) {
            self.left.clear();
        }
    }

    /// Whether somebody had this device leave `version` or one after it: it does not go there by itself.
    pub(crate) fn has_left(&self, version: &str) -> bool {
        !self.left.is_empty() && !version::is_after(version, &self.left)
    }

    /// A manifest of `version`, proven to be ours, was seen (U6).
    pub(crate) fn saw_manifest(&mut self, version: &str, issued: jiff::Timestamp) {
        if self.newest_manifest >= Some(issued) {
            return;
        }
        // The same version issued again does not outdate itself.
        if self.newest_manifest_of != version {
            self.newest_manifest_before = self.newest_manifest;
            self.newest_manifest_before_of =
                std::mem::replace(&mut self.newest_manifest_of, version.to_owned());
        }
        self.newest_manifest = Some(issued);
    }

    /// The trial failed: the version is blocked and the outcome is to be told.
    pub(crate) fn roll_back(&mut self, reason: &str) {
        self.phase = Phase::Rolledback;
        if self.newest_manifest_of == self.new_version {
            // What was issued before a version that does not work is not outdated by it.
            self.newest_manifest = self.newest_manifest_before;
            self.newest_manifest_of
                .clone_from(&self.newest_manifest_before_of);
        }
        let failed = Blocked {
            version: self.new_version.clone(),
            sha256: self.new_sha256.clone(),
            reason: shortened(reason),
        };
        self.blocked.retain(|blocked| *blocked != failed);
        self.blocked.push(failed);
        if self.blocked.len() > BLOCKED {
            self.blocked.remove(0);
        }
        self.conclude("rolledback", reason);
    }

    /// The version that was rolled back goes on all the same: it could not be taken out of use.
    pub(crate) fn stay(&mut self, reason: &str) {
        if let Some(outcome) = self.outcome.take_if(|outcome| outcome.result == "rolledback") {
            // Both are told, whatever has to be cut.
            let first = cut(&outcome.reason, REASON.saturating_sub(reason.len() + 2));
            self.conclude("failed", &format!("{first}; {reason}"));
        }
    }

    /// The trial cannot go on for a reason that is not the new version's: it may be tried again.
    pub(crate) fn abandon(&mut self, reason: &str) {
        self.phase = Phase::None;
        self.conclude("failed", reason);
    }

    /// The trial succeeded.
    pub(crate) fn prove(&mut self) {
        self.phase = Phase::None;
        self.attempts = 0;
        self.old_starts = 0;
        // It may have failed once, and somebody has put it here all the same.
        let (version, sha256) = (self.new_version.clone(), self.new_sha256.clone());
        self.unblock(&version, &sha256);
        self.conclude("updated", "");
    }

    fn conclude(&mut self, result: &str, reason: &str) {
        self.end(Outcome {
            from: self.old_version.clone(),
            to: self.new_version.clone(),
            result: result.to_owned(),
            reason: shortened(reason),
            id: self.id.clone(),
        });
    }

    /// An update failed before it was staged: remembered once per reason, so that a bucket that stays broken does not
    /// fill logs and flash. `id`: of whoever asked.
    pub(crate) fn fail(&mut self, from: &str, to: &str, reason: &str, id: &str) -> bool {
        let last = self.outcome.as_ref().filter(|last| last.to == to);
        // What the agent tries again by itself, and what is wrong with that, still belongs to whoever asked.
        let id = match (id, last) {
            ("", Some(last)) => &last.id,
            _ => id,
        };
        let outcome = Outcome {
            from: from.to_owned(),
            to: to.to_owned(),
            result: "failed".to_owned(),
            reason: shortened(reason),
            id: id.to_owned(),
        };
        if self.outcome.as_ref() == Some(&outcome) {
            return false;
        }
        self.end(outcome);
        true
    }

    /// An update has ended. How those before it ended waits until the studio knows; only a failure gives way to what
    /// became of the same wish afterwards.
    fn end(&mut self, outcome: Outcome) {
        if !self.reported {
            self.untold.extend(self.outcome.take());
        }
        let is_outdated = |before: &Outcome| {
            before.result == "failed"
                && (&before.from, &before.to, &before.id) == (&outcome.from, &outcome.to, &outcome.id)
        };
        self.untold.retain(|before| !is_outdated(before));
        if self.untold.len() > UNTOLD {
            self.untold.remove(0);
        }
        self.outcome = Some(outcome);
        self.reported = false;
    }

    /// The oldest outcome that the studio does not know.
    pub(crate) fn to_tell(&self) -> Option<&Outcome> {
        let last = self.outcome.as_ref().filter(|_| !self.reported);
        self.untold.first().or(last)
    }

    /// The studio knows `outcome`. Another update may have ended meanwhile.
    pub(crate) fn told(&mut self, outcome: &Outcome) {
        match self.untold.iter().position(|untold| untold == outcome) {
            Some(place) => drop(self.untold.remove(place)),
            None => self.reported |= self.outcome.as_ref() == Some(outcome),
        }
    }
}

/// Without what JSON writes six bytes for.
fn shortened(reason: &str) -> String {
    cut(&reason.replace(char::is_control, " "), REASON).to_owned()
}

fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// RFC 3339, UTC, seconds.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
