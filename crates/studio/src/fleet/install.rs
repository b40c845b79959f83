//! Apps on devices: what is wanted is stored first and then told to the device; when it is offline, it learns of it
//! from `get_requested_app_states` at its next connect.

use std::sync::Arc;

use protocol::{Privilege, Stage};
use wamp::Payload;

use super::app::find;
use super::{check_version, environment, install_view};
use crate::api::{MaybeDevice, OneInstall, RequestInstall, RequestRemoval, Requested};
use crate::delivery::deliver;
use crate::fault::Fault;
use crate::install::{NotInstalled, Wish, plan};
use crate::store::App;
use crate::studio::{Request, Studio, reply};

pub(super) async fn add(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let wanted: RequestInstall = request.kwargs()?;
    let app = find(&studio, &wanted.app).await?;
    let release = match &wanted.version {
        Some(version) => {
            check_version(version)?;
            app.releases.iter().find(|release| release.version == *version)
        }
        None => app.releases.last(),
    };
    let Some(release) = release.map(|release| release.key) else {
        return Err(Fault::NotFound(match wanted.version {
            Some(version) => format!(
                "app {:?} has no version {version:?}: 'studio app list' shows them",
                app.name
            ),
            None => format!(
                "app {:?} has no version yet: publish one with 'studio app push'",
                app.name
            ),
        }));
    };
    let environment = wanted
        .environment
        .map(|pairs| environment(pairs, "value"))
        .transpose()?;
    let wish = Wish::Install {
        release,
        start: wanted.start,
        environment,
    };
    change(&studio, &request, &wanted.device, app, wish).await
}

pub(super) async fn start(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let OneInstall { device, app } = request.kwargs()?;
    let app = find(&studio, &app).await?;
    change(&studio, &request, &device, app, Wish::Start).await
}

pub(super) async fn stop(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let OneInstall { device, app } = request.kwargs()?;
    let app = find(&studio, &app).await?;
    change(&studio, &request, &device, app, Wish::Stop).await
}

pub(super) async fn remove(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let RequestRemoval {
        device,
        app,
        keep_data,
    } = request.kwargs()?;
    let app = find(&studio, &app).await?;
    change(&studio, &request, &device, app, Wish::Remove { keep_data }).await
}

/// Stores the wish and tells the device.
async fn change(
    studio: &Studio,
    request: &Request,
    device: &str,
    app: App,
    wish: Wish,
) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let device = studio.device_for(account, device).await?;
    studio.require(account, &device, Privilege::Maintain).await?;
    let (app_key, app_name) = (app.key, app.name.clone());
    let changed = studio
        .store
        .change_install(device.key, app_key, account, move |before| {
            plan(&app, before, wish)
        })
        .await?;
    let install = changed.map_err(|NotInstalled| {
        Fault::NotFound(format!(
            "app {app_name:?} is not installed on device {:?}: 'studio ps' shows what is",
            device.name
        ))
    })?;
    tracing::info!(device = device.name, app = app_name, target = %install.target, account = %account, "requested");
    let delivery = deliver(&studio.store, &request.session, &install).await?;
    reply(&Requested {
        install: install_view(&install),
        delivery,
    })
}

pub(super) async fn list(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let MaybeDevice { device } = request.kwargs()?;
    let mut views = Vec::new();
    let devices = match device {
        Some(text) => vec![studio.device_for(account, &text).await?],
        None => studio.store.devices().await?,
    };
    for device in devices {
        if studio.sees(account, &device).await? {
            views.extend(
                studio
                    .store
                    .installs(Some(device.key))
                    .await?
                    .iter()
                    .map(install_view),
            );
        }
    }
    reply(&views)
}

/// What the device reported about one of its apps; it stays readable after the app was removed.
pub(super) async fn history(studio: Arc<Studio>, request: Request) -> Result<Payload, Fault> {
    let account = request.caller.account()?;
    let OneInstall { device, app } = request.kwargs()?;
    let device = studio.device_for(account, &device).await?;
    let app = find(&studio, &app).await?;
    reply(&studio.store.reports(device.key, app.key, Stage::Prod).await?)
}
