//! `studio rollout …`

use std::time::Duration;

use super::client::{Client, nothing};
use super::{Out, or_dash, with_client};
use crate::api::rollout::{ResumeRollout, RolloutView, StartRollout};
use crate::api::uri;
use crate::cli::{Place, RolloutCommand};
use crate::exit::{Exit, Failure};
use crate::table;

/// Between looks at a rollout that is followed.
const LOOK: Duration = Duration::from_secs(1);

pub(super) async fn run(place: &Place, out: Out, command: RolloutCommand) -> Result<(), Failure> {
    let follow = match &command {
        RolloutCommand::Start { follow, .. }
        | RolloutCommand::Status { follow }
        | RolloutCommand::Resume { follow, .. } => *follow,
        RolloutCommand::Pause | RolloutCommand::Abort => false,
    };
    with_client(place, async |client| {
        let rollout: RolloutView = match command {
            RolloutCommand::Start {
                version,
                devices,
                canary,
                waves,
                threshold,
                patience,
                unchecked,
                follow: _,
            } => {
                let wanted = StartRollout {
                    version,
                    devices,
                    canary,
                    waves,
                    threshold,
                    patience,
                    unchecked,
                };
                client.ask(uri::ROLLOUT_START, &wanted).await?
            }
            RolloutCommand::Status { follow: _ } => client.ask(uri::ROLLOUT_STATUS, &nothing()).await?,
            RolloutCommand::Pause => client.ask(uri::ROLLOUT_PAUSE, &nothing()).await?,
            RolloutCommand::Resume { retry, follow: _ } => {
                client.ask(uri::ROLLOUT_RESUME, &ResumeRollout { retry }).await?
            }
            RolloutCommand::Abort => client.ask(uri::ROLLOUT_ABORT, &nothing()).await?,
        };
        if follow {
            return watch(client, out, rollout).await;
        }
        out.result(&rollout, || describe(&rollout));
        Ok(())
    })
    .await
}

/// Shows the table again whenever it has changed, until the rollout is over or waits for a person.
async fn watch(client: &Client, out: Out, mut rollout: RolloutView) -> Result<(), Failure> {
    loop {
        if !out.step(&rollout, || describe(&rollout) + "\n") {
            return Ok(());
        }
        let shown = rollout.clone();
        while rollout == shown {
            match rollout.state.as_str() {
                "running" => {}
                "done" => return Ok(()),
                _ => {
                    let text = format!("the rollout is {}: {}", rollout.state, rollout.reason);
                    return Err(Failure::new(Exit::Failed, text)
                        .hint("'studio rollout resume' goes on, 'studio rollout abort' ends it"));
                }
            }
            tokio::time::sleep(LOOK).await;
            rollout = client.ask(uri::ROLLOUT_STATUS, &nothing()).await?;
        }
    }
}

fn describe(rollout: &RolloutView) -> String {
    let count = |state: &str| {
        rollout
            .devices
            .iter()
            .filter(|device| device.state == state)
            .count()
    };
    let mut text = format!(
        "version {} is {}, wave {} of {}: {} of {} devices updated, {} failed\n",
        rollout.version,
        rollout.state,
        rollout.wave + 1,
        rollout.waves,
        count("updated"),
        rollout.devices.len(),
        count("failed"),
    );
    if !rollout.reason.is_empty() {
        text.push_str(&format!("  {}\n", rollout.reason));
    }
    let rows: Vec<_> = rollout
        .devices
        .iter()
        .map(|device| {
            [
                (device.wave + 1).to_string(),
                device.device.clone(),
                device.state.clone(),
                or_dash(&device.from_version),
                or_dash(&device.agent_version),
                device.status.clone(),
                device.reason.clone(),
            ]
        })
        .collect();
    text + &table::render(
        ["WAVE", "DEVICE", "STATE", "FROM", "RUNS", "STATUS", "REASON"],
        &rows,
    )
}
