//! `studio serve` as a process: log, signals, the line that says ready.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use super::Out;
use super::client::read_secret;
use crate::cli::{Place, Serve};
use crate::exit::{Exit, Failure};
use crate::plane::TlsFiles;
use crate::serve::{BucketConfig, ExternalRouter, Ready, ServeConfig, ServeError, serve};

pub(super) async fn run(place: &Place, options: Serve) -> Result<(), Failure> {
    let level = if place.verbose {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let stop = CancellationToken::new();
    watch_signals(stop.clone()).map_err(|error| failure(&ServeError::Signals(error)))?;
    let router = match (options.router, options.router_secret_file) {
        (Some(url), Some(file)) => Some(ExternalRouter {
            url,
            authid: options.router_authid,
            secret: read_secret(&file)?,
        }),
        _ => None,
    };
    let config = ServeConfig {
        router,
        data: place.data.clone(),
        listen: options.listen,
        tls: match (options.tls_certificate, options.tls_key) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            _ => None,
        },
        public_url: options.public_url,
        registry: options.registry,
        with_registry: options.with_registry,
        repository: options.repository,
        base_url: options.base_url,
        bucket: options.bucket.map(|directory| BucketConfig {
            directory,
            listen: options.bucket_listen,
        }),
        update_url: options.bucket_url,
    };
    let out = Out { json: place.json };
    serve(config, stop, |ready| announce(out, ready))
        .await
        .map_err(|error| failure(&error))
}

fn announce(out: Out, ready: &Ready) {
    let value = serde_json::json!({
        "url": ready.url, "realm": ready.realm, "registry": ready.registry, "update_url": ready.update_url,
        "operator_file": ready.operator_file,
    });
    out.step(&value, || {
        let registry = ready.registry.as_deref().unwrap_or("none");
        let updates = ready.update_url.as_ref();
        let updates = updates.map_or_else(String::new, |url| format!(", updates from {url}"));
        format!(
            "studio is ready: {} (realm {}), registry {registry}{updates}, credentials in {}\n",
            ready.url,
            ready.realm,
            ready.operator_file.display()
        )
    });
}

/// The first SIGINT or SIGTERM stops the studio in order.
fn watch_signals(stop: CancellationToken) -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Ends with the process: it waits for nothing but the signal that ends it.
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}

fn failure(error: &ServeError) -> Failure {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    Failure::new(Exit::Failed, text)
}
