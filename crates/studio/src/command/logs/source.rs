//! Which logs the options name: those of installs, or of apps in development.

use protocol::{AppId, Stage};

use crate::api::{AppView, DeviceView, InstallView, MaybeDevice, OneDevice, uri};
use crate::cli::Logs;
use crate::command::client::{Client, nothing};
use crate::exit::{Exit, Failure};
use crate::keys::AppKey;

/// The log of one app on one device.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) device: String,
    serial_number: String,
    pub(super) app: String,
    app_key: AppKey,
    stage: Stage,
}

impl Source {
    pub(super) fn of(install: &InstallView) -> Source {
        Source {
            device: install.device.clone(),
            serial_number: install.serial_number.clone(),
            app: install.app.clone(),
            app_key: install.app_key,
            stage: install.stage,
        }
    }

    fn in_development(device: &DeviceView, app: &AppView) -> Source {
        Source {
            device: device.name.clone(),
            serial_number: device.serial_number.clone(),
            app: app.name.clone(),
            app_key: app.app_key,
            stage: Stage::Dev,
        }
    }

    /// What the device calls it.
    pub(super) fn container(&self) -> String {
        let app = AppId {
            key: self.app_key.0,
            stage: self.stage,
        };
        protocol::naming::container(app, &self.app)
    }

    /// Where it is published.
    pub(super) fn topic(&self) -> String {
        protocol::uri::logs(&self.serial_number, &self.container())
    }

    pub(super) fn is_of(&self, app: &str) -> bool {
        is(&self.app, self.app_key, app)
    }
}

fn is(name: &str, key: AppKey, app: &str) -> bool {
    name.eq_ignore_ascii_case(app) || key.to_string() == app
}

/// Devices and apps that the options name.
pub(super) fn named(options: &Logs) -> (Vec<&String>, Vec<&String>) {
    (
        options.device.iter().chain(&options.devices).collect(),
        options.app.iter().chain(&options.apps).collect(),
    )
}

/// What the options name: every app of the devices and every device of the apps, where one of both is not said.
pub(super) async fn select(client: &Client, options: &Logs) -> Result<Vec<Source>, Failure> {
    let (devices, apps) = named(options);
    let mut sources = match options.dev {
        true => in_development(client, &devices, &apps).await?,
        false => installed(client, &devices).await?,
    };
    sources.retain(|source| apps.is_empty() || apps.iter().any(|app| source.is_of(app)));
    sources.sort_by_key(Source::topic);
    sources.dedup_by_key(|source| source.topic());
    if !sources.is_empty() {
        return Ok(sources);
    }
    Err(match (&devices[..], &apps[..]) {
        (_, [app]) if options.dev => Failure::new(Exit::NotFound, format!("no app {app:?}"))
            .hint("'studio app list' shows what there is"),
        ([device], [app]) => Failure::new(
            Exit::NotFound,
            format!("app {app:?} is not installed on device {device:?}"),
        )
        .hint(format!(
            "'studio ps {device}' shows what is; add --dev for an app in development"
        )),
        _ => Failure::new(Exit::NotFound, "no such app is installed there").hint("'studio ps' shows what is"),
    })
}

async fn installed(client: &Client, devices: &[&String]) -> Result<Vec<Source>, Failure> {
    let mut installs: Vec<InstallView> = Vec::new();
    if devices.is_empty() {
        installs = client
            .ask(uri::INSTALL_LIST, &MaybeDevice { device: None })
            .await?;
    }
    for device in devices {
        let device = Some((*device).clone());
        let of_device: Vec<InstallView> = client.ask(uri::INSTALL_LIST, &MaybeDevice { device }).await?;
        installs.extend(of_device);
    }
    Ok(installs.iter().map(Source::of).collect())
}

/// The studio keeps no record of what is developed where, so both have to be said.
async fn in_development(
    client: &Client,
    devices: &[&String],
    apps: &[&String],
) -> Result<Vec<Source>, Failure> {
    if devices.is_empty() || apps.is_empty() {
        let text = "say device and app: the studio keeps no record of apps in development";
        return Err(Failure::new(Exit::Usage, text));
    }
    let known: Vec<AppView> = client.ask(uri::APP_LIST, &nothing()).await?;
    let mut sources = Vec::new();
    for device in devices {
        let device = OneDevice {
            device: (*device).clone(),
        };
        let device: DeviceView = client.ask(uri::DEVICE_SHOW, &device).await?;
        let wanted = |app: &&AppView| apps.iter().any(|name| is(&app.name, app.app_key, name));
        let of_device = known.iter().filter(wanted);
        sources.extend(of_device.map(|app| Source::in_development(&device, app)));
    }
    Ok(sources)
}
