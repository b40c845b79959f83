//! Follows the log of one container for as long as it runs, across hiccups of the daemon, each line once.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{ContainerFacts, ContainerStatus, Engine, LogLine, LogRange};

use super::batch::{AHEAD, Chunk, Mark};
use super::cursor::{Cursor, Position, Walk};
use super::news::{Hearer, News};
use super::ring;
use super::rotation::LogFile;

/// Pause before looking again after a stream ended.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stream that is silent for so long after something happened to the container may be one that the daemon forgot to
/// end: it says nothing more, neither of this run of the container nor of the next.
const SILENCE: Duration = Duration::from_secs(3);
/// Attempts to read what a container has printed that does not run any more.
const LAST_READS: u32 = 5;
/// Text handed on at once, bytes; more only in a single line.
const PORTION: usize = 64 << 10;
/// How long a line waits for others before both are handed on. Far below what output waits to be published.
const COMPANY: Duration = Duration::from_millis(50);
/// Longest wait for some of it to leave; then the next one is handed on anyway, and the oldest lines make room.
const PATIENCE: Duration = Duration::from_secs(1);
/// Reading slower must not make a live log an old one: lines of the moment wait only while they are younger than this. What
/// the daemon has rotated away by then is lost, and said: at full speed a log of the usual 30 MB holds some seconds.
const FRESH: Duration = Duration::from_secs(5);

/// A line that was printed so long before the daemon was asked for the log is one that it found, not one that came later.
const WRITTEN: Duration = Duration::from_millis(100);
/// How often a silent log is looked at: whether it is silent, or the daemon has lost its place. Far longer than a daemon
/// takes to find the line that it was asked for.
const LOOK: Duration = Duration::from_secs(30);

/// What the pipeline receives.
#[derive(Debug)]
pub(super) enum Followed {
    Lines {
        topic: Arc<str>,
        chunk: Chunk,
        /// How far the history is with this container, and whether these lines belong into it.
        read: Option<Mark>,
        for_history: bool,
        /// Whether viewers have not seen them yet.
        for_viewers: bool,
    },
    /// The daemon has rotated away where reading was to go on: what it printed next may be lost, and how much of it.
    Rotated {
        topic: Arc<str>,
        for_history: bool,
        for_viewers: bool,
    },
    /// Nothing follows for this topic any more.
    Ended { topic: Arc<str> },
}

/// One container's log and who wants it.
pub(super) struct Follower {
    engine: Engine,
    /// Whom the lines are for.
    topic: Arc<str>,
    container: String,
    /// Goes before every line.
    prefix: String,
    /// How far the history has it.
    read: Option<Cursor>,
    /// How far viewers have it: less after a restart of the agent that lines waited for, more when the history was not
    /// saved before a kill.
    published: Option<Cursor>,
    /// When the history was cleared, just before the app was started: a log without cursor is read from there on.
    /// Otherwise the app ran before we did, and of its log only the end is wanted (L8).
    since: Option<Cursor>,
    began: u64,
    news: Hearer,
    /// When it is time to see whether the stream still has a container that runs.
    look_at: Option<Instant>,
    room: Arc<Semaphore>,
    /// Cancelled: what was printed until now is read, then it is over.
    finish: CancellationToken,
    /// Full: we stop reading, and the daemon keeps the rest.
    out: mpsc::Sender<Followed>,
}

/// What a stream still has to skip, because it begins before.
struct Skip {
    cursor: Option<Cursor>,
    /// The cursor is a line's, and none of that line's moment came yet. The daemon is asked for that moment, too, so one
    /// that is still there comes before all that is new.
    missing: bool,
}

impl Skip {
    fn to(cursor: Option<Cursor>) -> Skip {
        Skip {
            missing: cursor.as_ref().is_some_and(|cursor| !cursor.is_moment()),
            cursor,
        }
    }

    /// Whether the line at `position` is new; behind the last one that is not all are, whatever their timestamps say:
    /// the clock may have been set back.
    fn is_new(&mut self, position: Option<Position>) -> bool {
        let (Some(cursor), Some(position)) = (&self.cursor, position) else {
            (self.cursor, self.missing) = (None, false);
            return true;
        };
        let covered = cursor.covers(position);
        self.missing &= position.nanoseconds != cursor.nanoseconds;
        if !covered || cursor.is_at(position) {
            self.cursor = None;
        }
        !covered
    }

    /// Whether the first new line came without the last one that is not: it is not there any more. Says so once.
    fn has_lost_its_place(&mut self) -> bool {
        self.cursor.is_none() && std::mem::take(&mut self.missing)
    }
}

/// What became of one stream.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// A line came.
    came: bool,
    /// The daemon ended it, and all of it was handed on.
    whole: bool,
}

/// Lines on their way to the pipeline.
#[derive(Default)]
struct Portion {
    text: String,
    lines: u64,
    for_history: bool,
    for_viewers: bool,
    position: Option<Position>,
    /// They came after the daemon was asked for the log: they count only while its file is the same.
    late: bool,
}

/// One stream of the daemon's.
struct Stream<'a> {
    /// The container's.
    id: &'a str,
    file: LogFile,
    /// Lines printed from then on are late, nanoseconds since 1970.
    late_from: u64,
}

impl Follower {
    pub(super) fn new(
        engine: Engine,
        topic: Arc<str>,
        container: &str,
        news: &News,
        out: mpsc::Sender<Followed>,
    ) -> Follower {
        Follower {
            engine,
            topic,
            container: container.to_owned(),
            prefix: String::new(),
            read: None,
            published: None,
            since: None,
            began: now(),
            news: news.hearer(),
            look_at: None,
            room: Arc::new(Semaphore::new(AHEAD)),
            finish: CancellationToken::new(),
            out,
        }
    }

    /// Once `finish` is cancelled, reads what was printed until then and ends.
    pub(super) fn until(mut self, finish: CancellationToken) -> Follower {
        self.finish = finish;
        self
    }

    /// Puts `prefix` before every line.
    pub(super) fn with_prefix(mut self, prefix: String) -> Follower {
        self.prefix = prefix;
        self
    }

    /// Goes on where the history is, and where viewers are if that is another place.
    pub(super) fn from(
        mut self,
        read: Option<Cursor>,
        published: Option<Cursor>,
        since: Option<u64>,
    ) -> Follower {
        self.published = published.or_else(|| read.clone());
        self.read = read;
        self.since = since.map(Cursor::from_moment);
        self
    }

    /// Runs until the container is gone or does not run any more, or is to be finished with, and all it printed was
    /// handed on. A daemon that does not answer is waited for.
    pub(super) async fn run(mut self) {
        self.follow().await;
        let Follower { topic, out, .. } = self;
        // The pipeline is gone: shutdown.
        let _ = out.send(Followed::Ended { topic }).await;
    }

    /// The same without a last word. Gives back how far the history has the log.
    pub(super) async fn follow(&mut self) -> Option<Cursor> {
        let mut pause = FIRST_PAUSE;
        let mut last_reads = 0;
        loop {
            let finishing = self.finish.is_cancelled();
            match self.engine.inspect(&self.container).await {
                Ok(None) => break,
                Ok(Some(facts)) => {
                    let running = goes_on(facts.status) && !finishing;
                    // Also after the end: a daemon may close a followed log before the last words are in it.
                    let read = self.read(&facts, running).await;
                    if read.came {
                        pause = FIRST_PAUSE;
                    }
                    if !running {
                        last_reads += 1;
                        if read.whole || last_reads == LAST_READS {
                            break;
                        }
                    }
                }
                Err(error) => tracing::debug!(container = %self.container, %error, "log follower waits"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Somebody waits for that.
                () = self.finish.cancelled(), if !finishing => continue,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.read.clone()
    }

    /// Reads one stream to its end, or until it has outlived its container.
    async fn read(&mut self, facts: &ContainerFacts, follow: bool) -> Read {
        let id = &*facts.id;
        // Before the daemon is asked: what it does to the file from then on is seen.
        let file = LogFile::at(&facts.log_path).await;
        let now = now();
        let written = u64::try_from(WRITTEN.as_nanos()).unwrap_or(u64::MAX);
        let mut stream = Stream {
            id,
            file,
            late_from: match follow {
                true => now.saturating_sub(written),
                // It ends with what was there.
                false => u64::MAX,
            },
        };
        for cursor in [&mut self.read, &mut self.published] {
            if cursor.as_ref().is_none_or(|cursor| !cursor.is_of(id)) {
                // What took the place of a container that we know printed all of it later.
                let later = cursor
                    .as_ref()
                    .map(|before| Cursor::from_moment(before.nanoseconds));
                *cursor = self.since.clone().or(later);
            }
            // A moment that the clock, set back since, has not reached again says nothing.
            cursor.take_if(|cursor| cursor.is_moment() && cursor.nanoseconds > now);
        }
        let mut range = LogRange {
            follow,
            timestamps: true,
            ..LogRange::default()
        };
        let cursors = [&self.read, &self.published];
        match cursors
            .into_iter()
            .flatten()
            .map(|cursor| cursor.nanoseconds)
            .min()
        {
            // After the clock was set back, "since" would hide all that is printed until it gets there: the whole log,
            // of which the last line that we have is skipped with all before it.
            Some(nanoseconds) if nanoseconds > now => {}
            // That moment again, because further lines may have it.
            Some(nanoseconds) => range.since = Some(docker_time(nanoseconds)),
            None => range.tail = u32::try_from(ring::ENTRIES).ok(),
        }
        let (mut history, mut viewers) = (Skip::to(self.read.clone()), Skip::to(self.published.clone()));
        let mut walk = Walk::default();
        // By id: another container may take the name meanwhile.
        let mut receiver = self.engine.log_portions(id, range);
        let mut read = Read::default();
        let mut portion = Portion::default();
        let mut due = Instant::now();
        loop {
            // A daemon sends every line on its own: some company is worth waiting for.
            let next = match tokio::time::timeout_at(due, receiver.recv()).await {
                Ok(next) => next,
                Err(_) => {
                    if !self.hand_on(&mut stream, &mut portion).await {
                        return read;
                    }
                    let finish = self.finish.clone();
                    tokio::select! {
                        biased;
                        next = receiver.recv() => next,
                        () = finish.cancelled(), if follow => return read,
                        () = tokio::time::sleep(LOOK), if follow => {
                            if stream.file.is_replaced().await {
                                return read;
                            }
                            continue;
                        }
                        () = self.outlived(facts), if follow => {
                            tracing::info!(container = %self.container, "the daemon did not end a log stream");
                            return read;
                        }
                    }
                }
            };
            if let Some(at) = &mut self.look_at {
                *at = Instant::now() + SILENCE;
            }
            if portion.lines == 0 {
                due = Instant::now() + COMPANY;
            }
            let lines = match next {
                Some(Ok(lines)) => lines,
                Some(Err(error)) => {
                    tracing::debug!(container = %self.container, %error, "log stream broke");
                    self.hand_on(&mut stream, &mut portion).await;
                    return read;
                }
                None => {
                    read.whole = self.hand_on(&mut stream, &mut portion).await;
                    return read;
                }
            };
            for LogLine {
                nanoseconds, text, ..
            } in lines
            {
                let position = walk.next(nanoseconds);
                let new = (history.is_new(position), viewers.is_new(position));
                if new == (false, false) {
                    continue;
                }
                read.came = true;
                let lost = (history.has_lost_its_place(), viewers.has_lost_its_place());
                if lost != (false, false) && !self.hand_on_rotated(&mut stream, &mut portion, lost).await {
                    return read;
                }
                let full = portion.text.len() + self.prefix.len() + text.len() >= PORTION;
                let late = position.is_some_and(|position| position.nanoseconds >= stream.late_from);
                let other = new != (portion.for_history, portion.for_viewers) || late != portion.late;
                if (full || other) && !self.hand_on(&mut stream, &mut portion).await {
                    return read;
                }
                (portion.for_history, portion.for_viewers) = new;
                portion.late = late;
                portion.position = position;
                if portion.lines > 0 {
                    portion.text.push('\n');
                }
                portion.text.push_str(&self.prefix);
                portion.text.push_str(&text);
                portion.lines += 1;
            }
            if follow && self.finish.is_cancelled() {
                self.hand_on(&mut stream, &mut portion).await;
                return read;
            }
        }
    }

    /// Waits until the container of a silent stream has ended, was started anew or is another one. Asks the daemon only
    /// after news of it. Cancel-safe.
    async fn outlived(&mut self, facts: &ContainerFacts) {
        loop {
            let Some(at) = self.look_at else {
                self.news.of(&self.container).await;
                self.look_at = Some(Instant::now() + SILENCE);
                continue;
            };
            tokio::time::sleep_until(at).await;
            // Should it not answer: once more.
            self.look_at = Some(Instant::now() + SILENCE);
            let same = match self.engine.inspect(&self.container).await {
                Ok(Some(now)) => {
                    goes_on(now.status) && (&now.id, &now.started) == (&facts.id, &facts.started)
                }
                Ok(None) => false,
                Err(_) => continue,
            };
            self.look_at = None;
            if !same {
                return;
            }
        }
    }

    /// `false` when the stream is over: it cannot be relied on any more, and the next one begins before these lines; or
    /// the pipeline is gone.
    async fn hand_on(&mut self, stream: &mut Stream<'_>, portion: &mut Portion) -> bool {
        let portion = std::mem::take(portion);
        if portion.lines == 0 {
            return true;
        }
        if portion.late && stream.file.is_replaced().await {
            return false;
        }
        let cursor = portion.position.map(|position| Cursor {
            container_id: stream.id.to_owned(),
            nanoseconds: position.nanoseconds,
            count: position.count,
        });
        let room = match portion.for_viewers {
            true => self.wait_for_room(&portion).await,
            false => None,
        };
        if portion.for_history && cursor.is_some() {
            self.read.clone_from(&cursor);
        }
        if portion.for_viewers && cursor.is_some() {
            self.published.clone_from(&cursor);
        }
        let mark = |cursor: Option<Cursor>| {
            cursor.map(|cursor| Mark {
                container: self.container.clone(),
                cursor,
            })
        };
        let followed = Followed::Lines {
            topic: Arc::clone(&self.topic),
            chunk: Chunk {
                text: portion.text,
                lines: portion.lines,
                marks: mark(cursor.clone()).into_iter().collect(),
                room: room.into_iter().collect(),
            },
            read: mark(cursor).filter(|_| portion.for_history),
            for_history: portion.for_history,
            for_viewers: portion.for_viewers,
        };
        self.out.send(followed).await.is_ok()
    }

    /// What came before a place that is lost, then that it is. `false` as of [`Follower::hand_on`].
    async fn hand_on_rotated(
        &mut self,
        stream: &mut Stream<'_>,
        portion: &mut Portion,
        lost: (bool, bool),
    ) -> bool {
        if !self.hand_on(stream, portion).await {
            return false;
        }
        tracing::info!(container = %self.container, "its log was rotated before it was read");
        let (for_history, for_viewers) = lost;
        let rotated = Followed::Rotated {
            topic: Arc::clone(&self.topic),
            for_history,
            for_viewers,
        };
        self.out.send(rotated).await.is_ok()
    }

    async fn wait_for_room(&self, portion: &Portion) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room);
        let size = u32::try_from(portion.text.len().min(AHEAD)).ok()?;
        if let Ok(place) = Arc::clone(&room).try_acquire_many_owned(size) {
            return Some(place);
        }
        let printed = portion.position.map_or(0, |position| position.nanoseconds);
        let age = Duration::from_nanos(now().saturating_sub(printed));
        // What was printed before we came is read as fast as it can be published.
        if printed >= self.began && age > FRESH {
            return None;
        }
        let place = tokio::time::timeout(PATIENCE, room.acquire_many_owned(size)).await;
        place.ok()?.ok()
    }
}

/// Whether the container may print more.
fn goes_on(status: ContainerStatus) -> bool {
    match status {
        ContainerStatus::Running | ContainerStatus::Paused | ContainerStatus::Restarting => true,
        ContainerStatus::Created
        | ContainerStatus::Removing
        | ContainerStatus::Exited
        | ContainerStatus::Dead
        | ContainerStatus::Unknown => false,
    }
}

/// Now, in nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment as Docker wants it.
pub(super) fn docker_time(nanoseconds: u64) -> String {
    format!(
        "{}.{:09}",
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000
    )
}

#[cfg(test)]
mod tests;
