//! One child program in a process group of its own: heard line by line, ended with everything it started (weakness
//! W34), always reaped. Must not know what the program is.

use std::collections::VecDeque;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::lines::Lines;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::kill_marked;
#[cfg(unix)]
use unix::{Group, Output};
#[cfg(windows)]
pub(super) use windows::kill_marked;
#[cfg(windows)]
use windows::{Group, Output};

/// Lines kept for the error text.
const TAIL: usize = 25;
/// How long a program may take to end after TERM; then KILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long what a program left behind may hold its output open, and how long a killed one may take to be gone.
const LINGER: Duration = Duration::from_secs(2);

/// How it ended, and the last lines that it printed, joined with `; `.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) ended: Ended,
    pub(super) tail: String,
}

impl Outcome {
    pub(super) fn is_success(&self) -> bool {
        matches!(self.ended, Ended::Exited(status) if status.success())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(ExitStatus),
    Canceled,
    /// Nothing was heard of it for too long.
    Stalled,
}

/// Runs `command` to its end. Standard output and error are one stream, in the order in which they were written; every
/// line goes to `out`, which is read while this goes on, or dropped. Fails only when the program cannot be started or heard.
pub(super) async fn run(
    mut command: Command,
    stall: Duration,
    cancel: &CancellationToken,
    out: mpsc::Sender<String>,
) -> io::Result<Outcome> {
    let (reader, writer) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // Reaped by the runtime when this future is dropped.
        .kill_on_drop(true);
    Group::prepare(&mut command);
    let mut child = command.spawn()?;
    // It holds the other end of the pipe.
    drop(command);
    let mut group = Group::of(&child);
    let mut output = Output::of(reader)?;
    let mut lines = Lines::plain();
    let mut tail = VecDeque::with_capacity(TAIL);
    let mut heard = Vec::new();
    let mut buffer = vec![0; 8 << 10];
    let mut open = true;
    let mut exited = None;
    let mut ended_by = None;
    let mut killed = false;
    let mut deadline = Instant::now() + stall;
    while open || exited.is_none() {
        tokio::select! {
            read = output.read(&mut buffer), if open => match read? {
                0 => open = false,
                count => {
                    lines.feed(&buffer[..count], &mut |line| heard.push(line.text));
                    hand_on(&mut heard, &mut tail, &out).await;
                    if ended_by.is_none() && exited.is_none() {
                        deadline = Instant::now() + stall;
                    }
                }
            },
            status = child.wait(), if exited.is_none() => {
                exited = Some(status?);
                deadline = Instant::now() + LINGER;
            }
            () = cancel.cancelled(), if ended_by.is_none() && exited.is_none() => {
                ended_by = Some(Ended::Canceled);
                group.ask_to_end();
                deadline = Instant::now() + GRACE;
            }
            () = tokio::time::sleep_until(deadline) => {
                if ended_by.is_none() && exited.is_none() {
                    ended_by = Some(Ended::Stalled);
                    group.ask_to_end();
                    deadline = Instant::now() + GRACE;
                } else if killed {
                    // Not even KILL helps against a process that the kernel holds. The runtime reaps it some day.
                    break;
                } else {
                    group.kill();
                    killed = true;
                    deadline = Instant::now() + LINGER;
                }
            }
        }
    }
    lines.finish(&mut |line| heard.push(line.text));
    hand_on(&mut heard, &mut tail, &out).await;
    if exited.is_some() && !open {
        // Nobody is left in it: the number may soon be another's.
        group.forget();
    }
    let ended = match (ended_by, exited) {
        (Some(ended), _) => ended,
        (None, Some(status)) => Ended::Exited(status),
        (None, None) => Ended::Stalled,
    };
    let tail: Vec<String> = tail.into_iter().filter(|line| !line.trim().is_empty()).collect();
    Ok(Outcome {
        ended,
        tail: tail.join("; "),
    })
}

async fn hand_on(heard: &mut Vec<String>, tail: &mut VecDeque<String>, out: &mpsc::Sender<String>) {
    for line in heard.drain(..) {
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.clone());
        // Nobody may want to hear it.
        let _ = out.send(line).await;
    }
}

#[cfg(test)]
mod tests {
    use testkit::wait;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn unheard() -> mpsc::Sender<String> {
        mpsc::channel(1).0
    }

    async fn heard(script: &str) -> (Ended, Vec<String>, String) {
        let cancel = CancellationToken::new();
        let (out, mut heard) = mpsc::channel(1);
        let reading = tokio::spawn(async move {
            let mut lines = Vec::new();
            while let Some(line) = heard.recv().await {
                lines.push(line);
            }
            lines
        });
        let outcome = run(shell(script), SOON, &cancel, out).await.unwrap();
        (outcome.ended, reading.await.unwrap(), outcome.tail)
    }

    #[tokio::test]
    async fn both_streams_are_heard_in_order_and_the_last_lines_are_kept() {
        let (ended, lines, tail) =
            heard("echo one; echo two >&2; echo; echo three; printf four; exit 3").await;
        assert!(
            matches!(ended, Ended::Exited(status) if status.code() == Some(3)),
            "{ended:?}"
        );
        assert_eq!(lines, ["one", "two", "", "three", "four"]);
        assert_eq!(tail, "one; two; three; four");
        let (_, lines, tail) = heard("i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); done").await;
        assert_eq!(lines.len(), 30);
        assert!(tail.starts_with("5; 6; ") && tail.ends_with("; 29"), "{tail}");
    }

    #[tokio::test]
    async fn a_cancel_ends_the_program_and_its_children_even_those_that_do_not_listen() {
        let home = tempfile::tempdir().unwrap();
        let pid = home.path().join("pid");
        let script = format!(
            "trap '' TERM; (trap '' TERM; echo $$; while :; do sleep 1; done) & echo $! > {}; wait",
            pid.display()
        );
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let (out, mut heard) = mpsc::channel(1);
        tokio::spawn(async move { heard.recv().await.map(|_| stop.cancel()) });
        let outcome = run(shell(&script), SOON, &cancel, out).await.unwrap();
        assert_eq!(outcome.ended, Ended::Canceled);
        let child = std::fs::read_to_string(&pid).unwrap();
        let stat = format!("/proc/{}/stat", child.trim());
        wait::until("the child is gone", SOON, || {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(())
        });
    }

    #[tokio::test]
    async fn a_program_whose_child_keeps_the_output_open_is_not_waited_for() {
        let (ended, lines, _) = heard("sleep 600 & echo done").await;
        assert!(matches!(ended, Ended::Exited(status) if status.success()));
        assert_eq!(lines, ["done"]);
    }

    #[tokio::test]
    async fn silence_is_not_waited_out() {
        let cancel = CancellationToken::new();
        let stall = Duration::from_millis(100);
        let outcome = run(shell("sleep 600"), stall, &cancel, unheard()).await.unwrap();
        assert_eq!(outcome.ended, Ended::Stalled);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_any_more_is_killed() {
        let home = tempfile::tempdir().unwrap();
        let pid = home.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid.display());
        let cancel = CancellationToken::new();
        let call = run(shell(&script), SOON, &cancel, unheard());
        let written = wait::until_async("it runs", SOON, || async {
            std::fs::read_to_string(&pid).ok().filter(|text| !text.is_empty())
        });
        let process = tokio::select! {
            _ = call => unreachable!("it sleeps"),
            process = written => process,
        };
        let stat = format!("/proc/{}/stat", process.trim());
        wait::until("it is gone", SOON, || {
            let state = std::fs::read_to_string(&stat).unwrap_or_default();
            (state.is_empty() || state.contains(") Z ")).then_some(())
        });
    }

    #[test]
    fn what_a_killed_agent_left_behind_is_found_by_its_mark() {
        let mark = format!("REAGENT_TEST_MARK={}", std::process::id());
        let (name, value) = mark.split_once('=').unwrap();
        let mut marked = std::process::Command::new("sleep")
            .arg("600")
            .env(name, value)
            .spawn()
            .unwrap();
        let mut other = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        kill_marked(&mark);
        wait::until("the marked one ends", SOON, || marked.try_wait().unwrap());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
