//! `studio device …`

use std::io::Write;
use std::path::{Path, PathBuf};

use super::client::nothing;
use super::{Out, or_dash, with_client};
use crate::api::{AddDevice, DeviceAdded, DeviceView, OneDevice, uri};
use crate::cli::Place;
use crate::exit::{Exit, Failure};
use crate::{secret, table};

pub(super) async fn add(place: &Place, out: Out, name: String, file: Option<PathBuf>) -> Result<(), Failure> {
    let file = file.unwrap_or_else(|| PathBuf::from(format!("{name}.flock")));
    // Made before the device is: a device whose identity could not be written would be useless.
    let mut flock = new_file(&file)?;
    let added: Result<DeviceAdded, Failure> = with_client(place, async |client| {
        client.ask(uri::DEVICE_ADD, &AddDevice { name }).await
    })
    .await;
    let added = added.inspect_err(|_| {
        // Still empty and ours: nobody misses it.
        let _ = std::fs::remove_file(&file);
    })?;
    flock
        .write_all(added.flock.as_bytes())
        .and_then(|()| flock.sync_all())
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display())).hint(format!(
                "the device exists: remove it with 'studio device rm {}' and try again",
                added.device.name
            ))
        })?;
    let value = serde_json::json!({"device": added.device, "file": file});
    out.result(&value, || {
        format!(
            "device {} (key {}, serial {}) added; identity in {}\n  on the device: reagent -config {}\n",
            added.device.name,
            added.device.device_key,
            added.device.serial_number,
            file.display(),
            file.display()
        )
    });
    Ok(())
}

/// Creates a private file that does not exist yet.
pub(super) fn new_file(path: &Path) -> Result<std::fs::File, Failure> {
    secret::create_private(path).map_err(|error| {
        let failure = Failure::new(Exit::Usage, format!("cannot create {}: {error}", path.display()));
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => failure.hint("name another file with --out"),
            _ => failure,
        }
    })
}

pub(super) async fn list(place: &Place, out: Out) -> Result<(), Failure> {
    let devices: Vec<DeviceView> = with_client(place, async |client| {
        client.ask(uri::DEVICE_LIST, &nothing()).await
    })
    .await?;
    out.result(&devices, || {
        let rows: Vec<_> = devices
            .iter()
            .map(|device| {
                [
                    device.device_key.to_string(),
                    device.name.clone(),
                    device.status.clone(),
                    or_dash(&device.architecture),
                    or_dash(&device.agent_version),
                    device.last_seen.clone().unwrap_or_else(|| "never".to_owned()),
                    device.serial_number.clone(),
                ]
            })
            .collect();
        table::render(
            ["KEY", "NAME", "STATUS", "ARCH", "AGENT", "LAST SEEN", "SERIAL"],
            &rows,
        )
    });
    Ok(())
}

pub(super) async fn show(place: &Place, out: Out, device: String) -> Result<(), Failure> {
    let device: DeviceView = with_client(place, async |client| {
        client.ask(uri::DEVICE_SHOW, &OneDevice { device }).await
    })
    .await?;
    out.result(&device, || describe(&device));
    Ok(())
}

fn describe(device: &DeviceView) -> String {
    let mut lines = vec![
        ("name", device.name.clone()),
        ("key", device.device_key.to_string()),
        ("serial", device.serial_number.clone()),
        ("status", device.status.clone()),
        (
            "last seen",
            device.last_seen.clone().unwrap_or_else(|| "never".to_owned()),
        ),
        ("owner", device.owner.clone()),
        ("architecture", or_dash(&device.architecture)),
        ("os", or_dash(&device.os)),
        ("agent", or_dash(&device.agent_version)),
        ("created", device.created.clone()),
    ];
    if let Some(stats) = &device.stats {
        let mebibytes = |bytes: u64| bytes >> 20;
        lines.push(("cpu", format!("{} × {:.1} %", stats.cpu_count, stats.cpu_usage)));
        lines.push((
            "memory",
            format!(
                "{} of {} MiB used",
                mebibytes(stats.memory_used),
                mebibytes(stats.memory_total)
            ),
        ));
        lines.push((
            "storage",
            format!(
                "{} of {} MiB used",
                mebibytes(stats.storage_used),
                mebibytes(stats.storage_total)
            ),
        ));
    }
    let rows: Vec<_> = lines
        .into_iter()
        .map(|(name, value)| [name.to_owned(), value])
        .collect();
    table::render(["DEVICE", ""], &rows)
}

pub(super) async fn remove(place: &Place, out: Out, device: String) -> Result<(), Failure> {
    let device: DeviceView = with_client(place, async |client| {
        client.ask(uri::DEVICE_REMOVE, &OneDevice { device }).await
    })
    .await?;
    out.result(&device, || {
        format!(
            "device {} removed; its apps keep running there until they are removed by hand\n",
            device.name
        )
    });
    Ok(())
}
