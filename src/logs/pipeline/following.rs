//! Followers of containers and projects, and what they read.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{MAX_CURSORS, Pipeline};
use crate::logs::Source;
use crate::logs::cursor::Cursor;
use crate::logs::entry::Following;
use crate::logs::follower::{Followed, Follower};
use crate::logs::ledger;
use crate::logs::project::Project;

impl Pipeline {
    pub(super) fn on_followed(&mut self, followed: Followed) {
        match followed {
            Followed::Lines {
                topic,
                chunk,
                read,
                for_history,
                for_viewers,
            } => {
                if let Some(entry) = self.entries.get_mut(&*topic) {
                    for mark in &chunk.marks {
                        if !entry.sources.contains(&mark.container) {
                            entry.sources.insert(mark.container.clone());
                        }
                    }
                }
                self.output(&topic, chunk, for_history, for_viewers);
                if let Some(mark) = read {
                    self.hold_cursor(&topic, &mark.container);
                    self.remember(mark.container, mark.cursor);
                }
            }
            Followed::Ended { topic } => {
                let Some(entry) = self.entries.get_mut(&*topic) else {
                    return;
                };
                // What the app said last is worth most.
                if entry.save_at.is_some() {
                    entry.save_at = Some(Instant::now());
                }
                entry.read_out();
                if let Following::Again(source) = std::mem::replace(&mut entry.following, Following::No) {
                    self.follow_or_later(&topic, source);
                }
            }
        }
    }

    pub(super) fn remember(&mut self, container: String, cursor: Cursor) {
        self.cursors.insert(container, cursor);
        if self.cursors.len() > MAX_CURSORS {
            let oldest = self.cursors.iter().min_by_key(|(_, cursor)| cursor.nanoseconds);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.cursors.remove(&name);
            }
        }
    }

    pub(super) fn follow_or_later(&mut self, name: &str, source: Source) {
        let Some(entry) = self.entries.get_mut(name) else {
            return;
        };
        if entry.following != Following::No {
            entry.following = Following::Again(source);
            return;
        }
        entry.following = Following::Yes;
        entry.finish = CancellationToken::new();
        if self.cursors_by.is_some() {
            self.wanted.push((name.to_owned(), source));
        } else {
            self.begin_to_follow(name, source);
        }
    }

    /// Lets whoever follows come to an end; begins to follow for that when nobody does.
    pub(super) fn read_out(&mut self, name: &str, source: Source, done: oneshot::Sender<()>) {
        let following = |pipeline: &Pipeline| {
            let entry = pipeline.entries.get(name);
            entry.is_some_and(|entry| entry.following != Following::No)
        };
        if !following(self) {
            self.follow_or_later(name, source);
        }
        if let Some(entry) = self.entries.get_mut(name) {
            entry.waiting_for_end.push(done);
            entry.finish.cancel();
        }
    }

    /// Begins what had to wait for the cursors.
    pub(super) fn begin_all_to_follow(&mut self) {
        self.cursors_by = None;
        for (name, source) in std::mem::take(&mut self.wanted) {
            self.begin_to_follow(&name, source);
        }
    }

    fn begin_to_follow(&mut self, name: &str, source: Source) {
        let Some(entry) = self.entries.get(name) else {
            return;
        };
        self.news.begin(&self.engine, &mut self.watches);
        let topic: Arc<str> = Arc::from(name);
        let (engine, out) = (self.engine.clone(), self.followed.clone());
        let mut published = self.before.remove(name).unwrap_or_default();
        match source {
            Source::Container => {
                let follower = Follower::new(engine, topic, name, &self.news, out)
                    .until(entry.finish.clone())
                    .from(
                        self.cursors.get(name).cloned(),
                        published.remove(name).or_else(|| published.remove(ledger::SINCE)),
                        entry.cleared,
                    );
                self.followers.spawn(follower.run());
            }
            Source::Project(project) => {
                // Of a run before ours, when it had not read anything since.
                let cleared = self.cursors.get(name).map(|cursor| cursor.nanoseconds);
                let project = Project {
                    engine,
                    project,
                    topic,
                    cursors: self.cursors.clone(),
                    published,
                    since: entry.cleared.or(cleared),
                    news: self.news.clone(),
                    finish: entry.finish.clone(),
                    out,
                };
                self.followers.spawn(project.run());
            }
        }
    }
}
