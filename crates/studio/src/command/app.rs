//! `studio app add|list|release|rm`

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::client::nothing;
use super::{Out, or_dash, pairs, with_client};
use crate::api::{AddApp, AddRelease, AppView, OneApp, uri};
use crate::cli::Place;
use crate::exit::{Exit, Failure};
use crate::table;

/// The first version of an app.
pub(super) struct Release {
    pub(super) version: Option<String>,
    /// A Compose file.
    pub(super) compose: Option<PathBuf>,
}

pub(super) async fn add(
    place: &Place,
    out: Out,
    name: String,
    release: Release,
    ports: &[String],
    environment: &[String],
) -> Result<(), Failure> {
    let request = AddApp {
        name,
        version: release.version,
        docker_compose: release.compose.as_deref().map(document).transpose()?,
        ports: rules(ports)?,
        environment: pairs(environment)?,
    };
    let app: AppView = with_client(place, async |client| client.ask(uri::APP_ADD, &request).await).await?;
    out.result(&app, || format!("app {} (key {}) added\n", app.name, app.app_key));
    Ok(())
}

/// `PORT[/PROTOCOL]` words as port rules; the first one is the main port.
fn rules(words: &[String]) -> Result<Vec<Value>, Failure> {
    words
        .iter()
        .enumerate()
        .map(|(index, word)| {
            let (port, protocol) = word.split_once('/').unwrap_or((word, "http"));
            let port = port.parse::<u16>().ok().filter(|port| *port > 0);
            match (port, protocol) {
                (Some(port), "http" | "https" | "tcp" | "udp") => Ok(json!({
                    "main": index == 0, "name": format!("{protocol}-{port}"), "active": false, "public": false,
                    "port": port, "protocol": protocol, "local_ip": "", "remote_port_environment": "",
                    "remote_port": 0,
                })),
                _ => Err(Failure::new(
                    Exit::Usage,
                    format!("{word:?} is not PORT/PROTOCOL with protocol http, https, tcp or udp"),
                )),
            }
        })
        .collect()
}

pub(super) async fn list(place: &Place, out: Out) -> Result<(), Failure> {
    let apps: Vec<AppView> =
        with_client(place, async |client| client.ask(uri::APP_LIST, &nothing()).await).await?;
    out.result(&apps, || {
        let rows: Vec<_> = apps
            .iter()
            .map(|app| {
                let versions: Vec<_> = app
                    .releases
                    .iter()
                    .map(|release| release.version.as_str())
                    .collect();
                let ports: Vec<_> = app.ports.iter().map(port).collect();
                [
                    app.app_key.to_string(),
                    app.name.clone(),
                    or_dash(&versions.join(" ")),
                    or_dash(&ports.join(" ")),
                ]
            })
            .collect();
        table::render(["KEY", "NAME", "VERSIONS", "PORTS"], &rows)
    });
    Ok(())
}

/// `8080/http`, or `8080→40000/http` when the device published it on another port.
pub(super) fn port(rule: &Value) -> String {
    let protocol = rule["protocol"].as_str().unwrap_or("http");
    match protocol::number::whole(&rule["host_port"]).filter(|port| *port > 0) {
        Some(host) => format!("{}→{host}/{protocol}", rule["port"]),
        None => format!("{}/{protocol}", rule["port"]),
    }
}

/// Reads a Compose file; YAML, of which JSON is a part.
pub(super) fn document(file: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::new(Exit::Usage, format!("reading {}: {error}", file.display())))?;
    serde_saphyr::from_str(&text).map_err(|error| {
        Failure::new(
            Exit::Usage,
            format!("{} is no Compose file: {error}", file.display()),
        )
    })
}

pub(super) async fn release(
    place: &Place,
    out: Out,
    app: String,
    version: String,
    compose: Option<PathBuf>,
) -> Result<(), Failure> {
    let request = AddRelease {
        app,
        version,
        docker_compose: compose.as_deref().map(document).transpose()?,
        exists_ok: false,
    };
    let app: AppView =
        with_client(place, async |client| client.ask(uri::RELEASE_ADD, &request).await).await?;
    out.result(&app, || {
        format!("app {} has version {} now\n", app.name, request.version)
    });
    Ok(())
}

pub(super) async fn remove(place: &Place, out: Out, app: String) -> Result<(), Failure> {
    let app: AppView = with_client(place, async |client| {
        client.ask(uri::APP_REMOVE, &OneApp { app }).await
    })
    .await?;
    out.result(&app, || format!("app {} removed\n", app.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_words_become_rules() {
        let rules = rules(&["8080".to_owned(), "53/udp".to_owned()]).unwrap();
        assert_eq!(
            (rules[0]["port"].clone(), rules[0]["protocol"].clone()),
            (json!(8080), json!("http"))
        );
        assert_eq!(
            (rules[0]["main"].clone(), rules[1]["main"].clone()),
            (json!(true), json!(false))
        );
        assert_eq!(rules[1]["protocol"], "udp");
        let (parsed, bad) = protocol::PortRule::parse_list(&rules);
        assert_eq!((parsed.len(), bad.len()), (2, 0));
    }

    #[test]
    fn a_compose_file_is_read_as_compose_reads_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("docker-compose.yml");
        let text = "services:\n  web: &web\n    image: r.example/web:1\n    ports: [\"8080:80\", 9000]\n    \
                    environment:\n      ON: \"yes\"\n  worker:\n    <<: *web\n    command: [sleep, '3600']\n";
        std::fs::write(&file, text).unwrap();
        let read = Value::Object(document(&file).unwrap());
        assert_eq!(read["services"]["web"]["ports"], json!(["8080:80", 9000]));
        assert_eq!(read["services"]["worker"]["image"], "r.example/web:1");
        assert_eq!(read["services"]["worker"]["environment"]["ON"], "yes");
        std::fs::write(&file, "services: [").unwrap();
        assert_eq!(document(&file).unwrap_err().exit, Exit::Usage);
        assert_eq!(document(&home.path().join("none")).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn bad_port_words_are_refused() {
        for word in ["", "0", "http", "8080/ftp", "65536", "-1", "80/"] {
            assert_eq!(
                rules(&[word.to_owned()]).unwrap_err().exit,
                Exit::Usage,
                "{word:?}"
            );
        }
    }

    #[test]
    fn a_published_port_shows_where() {
        assert_eq!(
            port(&json!({"port": 80, "protocol": "tcp", "host_port": 40000})),
            "80→40000/tcp"
        );
        assert_eq!(port(&json!({"port": 80})), "80/http");
    }
}
