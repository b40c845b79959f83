//! One log: a look at what there is, then live events, each line once. Knows devices and subscriptions; what it shows
//! goes to its [`Stream`].

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use wamp::client::{Event, Subscription};

use super::dated::{self, Found, PAGE};
use super::lines::{Heard, Repeats, continuation, heard, is_gap, lines, missed};
use super::seam::{self, Expected, Seam, take_expected};
use super::source::Source;
use super::{Ended, RETRY, Stream, ask, passes, text_of};
use crate::cli::Logs;
use crate::command::Out;
use crate::command::client::Client;
use crate::exit::{Exit, Failure};

/// Most pages that are read back after an interruption, and with `--since`.
const PAGES: usize = 10;
const SINCE_PAGES: usize = 40;
/// Lines asked for at first, to know where live lines stand: more than a history has.
const NEWEST: usize = 1000;
/// After an interruption we ask for what is so much older than the last that was shown: live lines come late.
const MARGIN: Duration = Duration::from_secs(10);
/// Shortest time between two looks while it is uncertain where the live lines stand.
const PAUSE: Duration = Duration::from_secs(1);
/// Questions without an answer after which live lines are shown as they come.
const PATIENCE: u32 = 3;
/// After a look there is another one, whether or not live lines come: a device may learn a little late that somebody
/// listens, and says nothing of the lines until then.
const DEAF: Duration = Duration::from_secs(2);

/// What a look at a log has found.
#[derive(Default)]
pub(super) struct Look {
    pub(super) lines: Vec<String>,
    /// Something that whoever reads them has to know.
    pub(super) note: Option<String>,
    pub(super) phase: Phase,
}

/// How live lines are understood.
#[derive(Default)]
pub(super) enum Phase {
    /// What was missed is not known yet.
    #[default]
    Behind,
    /// They only say that there is something to ask for. With those that have come.
    Uncertain(Seam, Vec<Heard>),
    /// Some of them were shown. With where to ask again, while all that came were among them.
    Expected(Option<Seam>, Expected),
    /// The device has no timestamps; some of them may have been shown.
    Repeats(Repeats),
    Live,
}

impl Phase {
    /// The moment of the newest line that was found.
    pub(super) fn dated(&self) -> Option<String> {
        match self {
            Phase::Uncertain(seam, _) | Phase::Expected(Some(seam), _) => seam.since(),
            Phase::Behind | Phase::Expected(None, _) | Phase::Repeats(_) | Phase::Live => None,
        }
    }
}

/// Whom to ask about which app.
pub(super) struct Device<'a> {
    pub(super) client: &'a Client,
    pub(super) source: &'a Source,
    /// So many questions at once.
    pub(super) questions: &'a Semaphore,
}

impl Device<'_> {
    /// What there is of a log before its live lines: at first since the moment that was asked for or what the device
    /// keeps, later what comes after what was shown.
    pub(super) async fn look(&self, options: &Logs, stream: &Stream) -> Result<Look, Failure> {
        match (stream.begun, &options.since) {
            (true, _) => self.resume(stream).await,
            (false, Some(since)) => self.since(since).await,
            (false, None) => self.begin(options.follow).await,
        }
    }

    async fn since(&self, since: &str) -> Result<Look, Failure> {
        // First the history, so that its lines are among those that are found.
        let history = self.history().await.unwrap_or_default();
        let found = match self.found(Some(since), PAGE, SINCE_PAGES).await {
            // Agents before 0.20 cannot be asked, and of a container that is gone nobody knows more.
            Err(failure) if failure.exit == Exit::NotFound => None,
            found => Some(found?).filter(|found| found.dated),
        };
        let Some(found) = found else {
            let mut look = self.begin(false).await?;
            look.note = Some("only what the device keeps is shown: it does not know since when".to_owned());
            return Ok(look);
        };
        let note = format!(
            "only the newest {} lines since {since} are shown",
            found.lines.len()
        );
        Ok(Look {
            note: (!found.whole).then_some(note),
            lines: seam::since(&found, &history),
            phase: Phase::Uncertain(Seam::after(&found), Vec::new()),
        })
    }

    async fn begin(&self, follow: bool) -> Result<Look, Failure> {
        let mut lines = self.history().await?;
        let mut phase = Phase::Repeats(Repeats::new(lines.clone()));
        let mut note = None;
        if follow && let Some(found) = self.dated(None, NEWEST, 1).await? {
            let (seam, step) = Seam::begin(lines.clone(), &found);
            note = step.unsure.then(unsure);
            lines.extend(step.show);
            phase = Phase::Uncertain(seam, Vec::new());
        }
        Ok(Look { lines, note, phase })
    }

    async fn resume(&self, stream: &Stream) -> Result<Look, Failure> {
        // How long ago by the time of the question, as the device's clock is that of its answer.
        let (shown, ago) = stream.shown();
        let since = dated::ago(ago + MARGIN);
        // First the history, so that its lines are among those that are found.
        let history = self.history().await;
        let (history, found) = match self.dated(Some(&since), PAGE, PAGES).await? {
            None => (history?, None),
            found => (history.unwrap_or_default(), found),
        };
        let found = match (found, &stream.dated) {
            // What was shown last was printed long before: a device that was away tells all of it, and was not done.
            (Some(found), Some(moment)) if !seam::meets(&shown, &found) => {
                let earlier = self.dated(Some(moment), PAGE, PAGES).await?;
                let earlier = earlier.filter(|earlier| seam::meets(&shown, earlier));
                Some(earlier.unwrap_or(found))
            }
            (found, _) => found,
        };
        let (lines, sure, phase) = match found {
            Some(found) => {
                let (seam, step) = Seam::resume(&shown, ago, &found, &history);
                (step.show, !step.unsure, Phase::Uncertain(seam, Vec::new()))
            }
            None => {
                let (from, sure) = continuation(&shown, &history);
                let lines = history[from..].to_vec();
                (lines, sure, Phase::Repeats(Repeats::new(history)))
            }
        };
        Ok(Look {
            note: (!sure).then(unsure),
            lines,
            phase,
        })
    }

    async fn history(&self) -> Result<Vec<String>, Failure> {
        let arguments = json!({"containerName": self.source.container()});
        let answer = self.ask("get_app_log_history", arguments).await?;
        Ok(match answer {
            Value::Array(lines) => lines.iter().map(text_of).collect(),
            _ => Vec::new(),
        })
    }

    /// Lines with timestamps; `None` from a device that has none, for whatever reason.
    async fn dated(&self, since: Option<&str>, page: usize, pages: usize) -> Result<Option<Found>, Failure> {
        match self.found(since, page, pages).await {
            Ok(found) => Ok(Some(found).filter(|found| found.dated)),
            Err(failure) if matches!(failure.exit, Exit::NotFound | Exit::Failed) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn found(&self, since: Option<&str>, page: usize, pages: usize) -> Result<Found, Failure> {
        let question = async |query| self.ask("query_app_logs", query).await;
        dated::read(question, &self.source.container(), since, page, pages).await
    }

    async fn ask(&self, procedure: &str, arguments: Value) -> Result<Value, Failure> {
        // Never closed.
        let _turn = self.questions.acquire().await;
        ask(self.client, &self.source.device, procedure, arguments).await
    }
}

fn unsure() -> String {
    "lines may be missing here, or shown twice".to_owned()
}

/// Shows live lines until nobody reads, the connection is lost, or the account may not read them any more.
pub(super) async fn watch(
    device: Device<'_>,
    out: Out,
    options: &Logs,
    stream: &mut Stream,
    live: Subscription,
    mut phase: Phase,
) -> Result<Ended, Failure> {
    let session = &device.client.session;
    let mut watch = Watch {
        device,
        live,
        pause: RETRY.0,
        next: Instant::now(),
        look_at: Some(Instant::now() + DEAF),
        failures: 0,
    };
    loop {
        let (lines, next) = match phase {
            Phase::Behind => match watch.catch_up(options, stream).await? {
                Some(look) => {
                    watch.look_at = Some(Instant::now() + DEAF);
                    match stream.take(out, options, look) {
                        Some(phase) => (Vec::new(), phase),
                        None => return Ok(Ended::Unread),
                    }
                }
                None if session.is_open() => (Vec::new(), Phase::Behind),
                None => return Ok(Ended::Lost),
            },
            Phase::Uncertain(seam, lines) => match watch.ask_behind(seam, lines).await? {
                Some((lines, note, phase)) => {
                    if !note.is_none_or(|note| stream.note(out, &note)) {
                        return Ok(Ended::Unread);
                    }
                    stream.found(&phase);
                    (lines, phase)
                }
                None => return watch.ended(),
            },
            Phase::Expected(seam, expected) => match watch.live.events.recv().await {
                Some(event) if event.missed > 0 && seam.is_none() => behind(&event),
                Some(event) => {
                    watch.notice(&event);
                    after_expected(seam, expected, &event)
                }
                None => return watch.ended(),
            },
            Phase::Repeats(mut repeats) => {
                let event = tokio::select! {
                    event = watch.live.events.recv() => event.map(Some),
                    () = tokio::time::sleep_until(repeats.until), if !repeats.is_over() => Some(None),
                };
                let Some(event) = event else {
                    return watch.ended();
                };
                if let Some(note) = event.as_ref().and_then(missed)
                    && !stream.note(out, &note)
                {
                    return Ok(Ended::Unread);
                }
                let lines = event.map(|event| lines(&event)).unwrap_or_default();
                let lines = repeats.fresh(lines);
                match repeats.is_over() {
                    true => (lines, Phase::Live),
                    false => (lines, Phase::Repeats(repeats)),
                }
            }
            Phase::Live => match watch.live.events.recv().await {
                Some(event) if event.missed > 0 => behind(&event),
                Some(event) => (lines(&event), Phase::Live),
                None => return watch.ended(),
            },
        };
        if !stream.show(out, options, &lines) {
            return Ok(Ended::Unread);
        }
        phase = next;
    }
}

struct Watch<'a> {
    device: Device<'a>,
    live: Subscription,
    pause: Duration,
    /// Not asked again before.
    next: Instant,
    /// Asked again then in any case, but not before `next`.
    look_at: Option<Instant>,
    /// Questions without an answer since the last one that had one.
    failures: u32,
}

impl Watch<'_> {
    /// Messages found no place: whether or not others come, the device has their lines.
    fn notice(&mut self, event: &Event) {
        if event.missed > 0 {
            self.look_at = Some(Instant::now());
        }
    }

    /// There are no more events: why.
    fn ended(&self) -> Result<Ended, Failure> {
        match self.device.client.session.is_open() {
            true => Err(Failure::new(
                Exit::Denied,
                "your account may not read this log any more",
            )),
            false => Ok(Ended::Lost),
        }
    }

    /// Tries once more after a pause. `None`: not yet, or the connection is lost. Meanwhile live lines wait in their
    /// queue; of those that find no place there, the look knows.
    async fn catch_up(&mut self, options: &Logs, stream: &Stream) -> Result<Option<Look>, Failure> {
        tokio::select! {
            () = tokio::time::sleep(self.pause) => {}
            _ = self.device.client.session.closed() => return Ok(None),
        }
        self.pause = (self.pause * 2).min(RETRY.1);
        match self.device.look(options, stream).await {
            Ok(look) => {
                self.pause = RETRY.0;
                Ok(Some(look))
            }
            Err(failure) if passes(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Waits for live lines or the time of [`DEAF`], then asks what there is since the last time. While there is no
    /// answer live lines are shown as they come. `None` when the connection is lost.
    async fn ask_behind(
        &mut self,
        mut seam: Seam,
        mut lines: Vec<Heard>,
    ) -> Result<Option<(Vec<String>, Option<String>, Phase)>, Failure> {
        loop {
            let due = match lines.is_empty() && self.failures == 0 {
                true => self.look_at.map(|at| at.max(self.next)),
                false => Some(self.next),
            };
            tokio::select! {
                event = self.live.events.recv() => match event {
                    Some(event) => {
                        self.notice(&event);
                        lines.extend(heard(&event));
                    }
                    None => {
                        // The app's words will be asked for, its agent's perhaps not.
                        lines.retain(|line| line.by_agent);
                        let show = seam.ahead(&lines);
                        let last = (show, None, Phase::Uncertain(seam, Vec::new()));
                        return Ok(Some(last).filter(|(show, ..)| !show.is_empty()));
                    }
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => break,
            }
            if self.failures >= PATIENCE {
                let show = seam.ahead(&lines);
                return Ok(Some((show, None, Phase::Uncertain(seam, Vec::new()))));
            }
        }
        self.look_at = None;
        let found = self.device.found(seam.since().as_deref(), PAGE, PAGES).await;
        self.next = Instant::now() + PAUSE;
        let found = match found {
            Ok(found) => found,
            Err(failure) if !passes(&failure) => return Err(failure),
            Err(failure) => {
                self.failures += 1;
                self.next = Instant::now() + (RETRY.0 * self.failures).min(RETRY.1);
                if self.failures < PATIENCE || !self.device.client.session.is_open() {
                    return Ok(Some((Vec::new(), None, Phase::Uncertain(seam, lines))));
                }
                let first = self.failures == PATIENCE;
                let note = first.then(|| format!("{}; {}", failure.text, unsure()));
                let show = seam.ahead(&lines);
                let phase = match failure.exit {
                    // It has no such procedure.
                    Exit::NotFound => Phase::Live,
                    _ => Phase::Uncertain(seam, Vec::new()),
                };
                return Ok(Some((show, note, phase)));
            }
        };
        self.failures = 0;
        // The container is gone: these are all that there is of it.
        let found = match found.dated {
            true => found,
            false => Found {
                whole: true,
                ..Found::default()
            },
        };
        let step = seam.look(&lines, found);
        let phase = match step.over {
            Some(expected) if expected.is_empty() => Phase::Live,
            Some(expected) => Phase::Expected(Some(seam), expected),
            None => Phase::Uncertain(seam, Vec::new()),
        };
        Ok(Some((step.show, step.unsure.then(unsure), phase)))
    }
}

/// Messages found no place in the queue, but the device still has their lines. What the agent says in this one it may
/// not have.
fn behind(event: &Event) -> (Vec<String>, Phase) {
    let mut lines = heard(event);
    lines.retain(|line| line.by_agent || is_gap(&line.text));
    (lines.into_iter().map(|line| line.text).collect(), Phase::Behind)
}

/// Live lines while some of them were shown already.
fn after_expected(seam: Option<Seam>, mut expected: Expected, event: &Event) -> (Vec<String>, Phase) {
    let lines = heard(event);
    let gap = lines.iter().any(|line| is_gap(&line.text)) || event.missed > 0;
    let seam = match seam {
        // Which ones are missing, the device can be asked.
        Some(seam) if gap => return (Vec::new(), Phase::Uncertain(seam, lines)),
        seam => seam,
    };
    let (rest, go_on) = take_expected(&mut expected, lines);
    let seam = seam.filter(|_| rest.iter().all(|line| line.by_agent));
    let phase = match go_on && !expected.is_empty() {
        true => Phase::Expected(seam, expected),
        false => Phase::Live,
    };
    (rest.into_iter().map(|line| line.text).collect(), phase)
}
