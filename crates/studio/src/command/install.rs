//! `studio install|start|stop|remove|ps`, and waiting for what was asked.

use std::time::Duration;

use protocol::AppState;
use tokio::time::Instant;
use wamp::Dict;
use wamp::client::{Event, Subscription};

use super::app::port;
use super::client::{Client, unless_away};
use super::logs;
use super::progress::{Download, percent};
use super::{Out, or_dash, pairs, with_client};
use crate::api::{
    Delivery, InstallView, MaybeDevice, OneInstall, ReportView, RequestInstall, RequestRemoval, Requested,
    StateEvent, uri,
};
use crate::cli::{Install, Place, Remove, Target, Waiting};
use crate::exit::{Exit, Failure};
use crate::table;

const STANDS: &str = "the request stands: look again with 'studio ps'";

/// Events may get lost; looking at the list this often repairs it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

pub(super) async fn add(place: &Place, out: Out, options: Install) -> Result<(), Failure> {
    let environment = if options.environment.is_empty() {
        None
    } else {
        Some(pairs(&options.environment)?)
    };
    let request = RequestInstall {
        device: options.device,
        app: options.app,
        version: options.version,
        start: !options.no_start,
        environment,
    };
    change(place, out, uri::INSTALL_ADD, &request, options.waiting).await
}

pub(super) async fn start(place: &Place, out: Out, target: Target) -> Result<(), Failure> {
    let request = OneInstall {
        device: target.device,
        app: target.app,
    };
    change(place, out, uri::INSTALL_START, &request, target.waiting).await
}

pub(super) async fn stop(place: &Place, out: Out, target: Target) -> Result<(), Failure> {
    let request = OneInstall {
        device: target.device,
        app: target.app,
    };
    change(place, out, uri::INSTALL_STOP, &request, target.waiting).await
}

pub(super) async fn remove(place: &Place, out: Out, options: Remove) -> Result<(), Failure> {
    let request = RequestRemoval {
        device: options.device,
        app: options.app,
        keep_data: options.keep_data,
    };
    change(place, out, uri::INSTALL_REMOVE, &request, options.waiting).await
}

async fn change<Q: serde::Serialize>(
    place: &Place,
    out: Out,
    procedure: &str,
    request: &Q,
    waiting: Waiting,
) -> Result<(), Failure> {
    with_client(place, async |client: &Client| {
        // Subscribed before asking, so that no state is missed in between.
        let events = match waiting.wait {
            true => Some(client.session.subscribe(uri::STATE_EVENTS, Dict::new()).await?),
            false => None,
        };
        let requested: Requested = client.ask(procedure, request).await?;
        out.step(&requested, || told(&requested));
        match events {
            Some(events) => {
                let deadline = Instant::now() + Duration::from_secs(waiting.timeout);
                wait(client, out, requested.install, events, deadline).await
            }
            None => Ok(()),
        }
    })
    .await
}

fn told(requested: &Requested) -> String {
    let install = &requested.install;
    let goal = format!(
        "{} on {}: {} wanted",
        install.app, install.device, install.target_state
    );
    match &requested.delivery {
        Delivery::Accepted => format!("{goal}, the device has the request\n"),
        Delivery::Offline => {
            format!("{goal}; the device is offline, the request is stored and delivered when it connects\n")
        }
        Delivery::Failed { reason } => format!(
            "{goal}; the request is stored, but the device did not take it now ({reason}): delivered when it connects again\n"
        ),
    }
}

/// What a look at an install means for who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Reached,
    Failed,
    NotYet,
}

/// Judges an install. A FAILED from before the request says nothing yet: the device has to report it anew.
fn look(install: &InstallView, reports_before: u64) -> Look {
    if install.current_state == install.target_state && !install.request_update {
        return Look::Reached;
    }
    if install.current_state == AppState::Failed && install.reports > reports_before {
        return Look::Failed;
    }
    Look::NotYet
}

/// Shows states until the goal is reached, the app failed, or time is up.
async fn wait(
    client: &Client,
    out: Out,
    asked: InstallView,
    mut events: Subscription,
    deadline: Instant,
) -> Result<(), Failure> {
    // Watching the download is a convenience: an account that may not read the log waits without.
    let topic = logs::topic(&asked);
    let mut log = client.session.subscribe(&topic, Dict::new()).await.ok();
    let mut download = Download::default();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut shown = asked.reports;
    let mut now = asked.clone();
    let mut gone = false;
    let mut reader = true;
    loop {
        if now.reports > shown {
            shown = now.reports;
            reader = out.step(&now, || format!("  {}\n", now.current_state));
        }
        if gone {
            return Ok(());
        }
        if !reader {
            // Nobody sees what happens, so nobody waits for it.
            return Ok(());
        }
        match look(&now, asked.reports) {
            Look::Reached => return Ok(()),
            Look::Failed => {
                return Err(
                    Failure::new(Exit::Failed, format!("{} on {} FAILED", now.app, now.device)).hint(
                        format!("the reason is in its log: studio logs {} {}", now.device, now.app),
                    ),
                );
            }
            Look::NotYet => {}
        }
        let pause = (Instant::now() + LOOK_AGAIN).min(deadline);
        tokio::select! {
            event = events.events.recv() => {
                let Some(event) = event else {
                    let failure = Failure::new(Exit::Unreachable, "lost the connection to the studio");
                    return Err(failure.hint(STANDS));
                };
                if let Ok(Some(StateEvent { install, removed })) = event.payload.first::<StateEvent>()
                    && (install.device_key, install.app_key, install.stage) == (asked.device_key, asked.app_key, asked.stage) {
                        now = install;
                        gone = removed;
                    }
            }
            Some(event) = next(&mut log) => {
                if let Some((current, total)) = download.heard(&event) {
                    let value = serde_json::json!({"download": {"current": current, "total": total}});
                    reader = out.step(&value, || {
                        let (percent, mebibytes) = (percent(current, total), total as f64 / f64::from(1 << 20));
                        format!("  downloaded {percent} % of {mebibytes:.1} MiB\n")
                    });
                }
            }
            _ = &mut interrupted => {
                return Err(Failure::new(Exit::Interrupted, "interrupted").hint(STANDS));
            }
            () = tokio::time::sleep_until(pause) => match unless_away(current(client, &asked).await)? {
                Some(Some(install)) => now = install,
                Some(None) => gone = true,
                None => {}
            },
        }
        if Instant::now() >= deadline && !gone && look(&now, asked.reports) == Look::NotYet {
            return Err(out_of_time(&now));
        }
    }
}

/// The next event of a subscription; never comes without one.
async fn next(subscription: &mut Option<Subscription>) -> Option<Event> {
    match subscription {
        Some(subscription) => subscription.events.recv().await,
        None => std::future::pending().await,
    }
}

fn out_of_time(now: &InstallView) -> Failure {
    if now.device_online {
        Failure::new(
            Exit::Failed,
            format!(
                "{} on {} is still {}, not {}",
                now.app, now.device, now.current_state, now.target_state
            ),
        )
        .hint(STANDS)
    } else {
        Failure::new(Exit::Offline, format!("device {:?} is offline", now.device))
            .hint("the request is stored and delivered when the device connects")
    }
}

async fn current(client: &Client, asked: &InstallView) -> Result<Option<InstallView>, Failure> {
    let request = MaybeDevice {
        device: Some(asked.device.clone()),
    };
    let installs: Vec<InstallView> = client.ask(uri::INSTALL_LIST, &request).await?;
    Ok(installs
        .into_iter()
        .find(|install| install.app_key == asked.app_key && install.stage == asked.stage))
}

pub(super) async fn list(place: &Place, out: Out, device: Option<String>) -> Result<(), Failure> {
    let installs: Vec<InstallView> = with_client(place, async |client| {
        client.ask(uri::INSTALL_LIST, &MaybeDevice { device }).await
    })
    .await?;
    out.result(&installs, || {
        let rows: Vec<_> = installs
            .iter()
            .map(|install| {
                let version = if install.request_update {
                    format!("{} → {}", install.version, install.newest_version)
                } else {
                    install.version.clone()
                };
                let ports: Vec<_> = install.ports.iter().map(port).collect();
                [
                    install.device.clone(),
                    install.app.clone(),
                    version,
                    install.current_state.to_string(),
                    install.target_state.to_string(),
                    or_dash(&ports.join(" ")),
                    if install.device_online {
                        "online"
                    } else {
                        "offline"
                    }
                    .to_owned(),
                ]
            })
            .collect();
        table::render(
            ["DEVICE", "APP", "VERSION", "STATE", "WANTED", "PORTS", "LINK"],
            &rows,
        )
    });
    Ok(())
}

pub(super) async fn history(place: &Place, out: Out, device: String, app: String) -> Result<(), Failure> {
    let request = OneInstall { device, app };
    let reports: Vec<ReportView> = with_client(place, async |client| {
        client.ask(uri::INSTALL_HISTORY, &request).await
    })
    .await?;
    out.result(&reports, || {
        let rows: Vec<_> = reports
            .iter()
            .map(|report| [report.at.clone(), report.state.clone(), or_dash(&report.version)])
            .collect();
        table::render(["TIME", "STATE", "VERSION"], &rows)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::example;
    use crate::fleet::install_view;

    fn view(current: AppState, request_update: bool, reports: u64) -> InstallView {
        InstallView {
            current_state: current,
            request_update,
            reports,
            ..install_view(&example())
        }
    }

    #[test]
    fn the_goal_is_reached_when_no_update_is_pending_either() {
        assert_eq!(look(&view(AppState::Running, false, 5), 5), Look::Reached);
        assert_eq!(look(&view(AppState::Running, true, 5), 5), Look::NotYet);
        assert_eq!(look(&view(AppState::Starting, false, 6), 5), Look::NotYet);
    }

    #[test]
    fn only_a_fresh_failure_counts() {
        assert_eq!(look(&view(AppState::Failed, false, 5), 5), Look::NotYet);
        assert_eq!(look(&view(AppState::Failed, false, 6), 5), Look::Failed);
    }

    #[test]
    fn running_out_of_time_says_whether_the_device_is_there() {
        assert_eq!(
            out_of_time(&view(AppState::Starting, false, 6)).exit,
            Exit::Failed
        );
        let offline = InstallView {
            device_online: false,
            ..view(AppState::Removed, false, 0)
        };
        assert_eq!(out_of_time(&offline).exit, Exit::Offline);
    }
}
