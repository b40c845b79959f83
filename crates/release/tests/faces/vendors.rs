//! The same to a bucket behind a vendor's own command. Those start slowly: few words, each of which takes another way.

use testkit::fleet::CommandOutput;
use testkit::gcs::GcsServer;
use testkit::s3::S3Server;

use super::workshop::Workshop;

const S3: &str = "s3://updates/dl/re-agent";
const GCS: &str = "gs://updates/dl/re-agent";

/// An empty bucket, and somebody who makes releases.
fn s3() -> (S3Server, Workshop) {
    let server = S3Server::start();
    server.create("updates");
    let workshop = Workshop::new().with(server.environment());
    (server, workshop)
}

/// An empty bucket, and somebody who makes releases.
fn gcs() -> (GcsServer, Workshop) {
    let server = GcsServer::start("updates");
    let workshop = Workshop::new().with(server.environment());
    (server, workshop)
}

#[test]
fn a_release_goes_to_a_bucket_behind_the_s3_protocol() {
    let (_server, workshop) = s3();
    release(&workshop, S3);
}

/// Stands before `gsutil`, which would try for minutes and say nothing when there is no network.
const IMPATIENT: &str = r#"#!/bin/sh
PATH=${PATH#*:}
case "$*" in
  '-o Boto:num_retries=5 '*) exec gsutil "$@" ;;
esac
echo "gsutil $* would try too long" >&2
exit 70
"#;

#[test]
fn a_release_goes_to_a_bucket_of_google_cloud_storage() {
    let (_server, workshop) = gcs();
    let tools = workshop.program("gsutil", IMPATIENT);
    let workshop = workshop.with_tools(&tools);
    release(&workshop, GCS);
    let mut other = std::fs::read(workshop.path("build/reagent-linux-armv7")).unwrap();
    // The second is uploaded in parts.
    for size in [other.len() + 1, 9 << 20] {
        other.resize(size, 0);
        workshop.write("build/reagent-linux-armv7", &other);
        let refused = workshop.make(&["publish", &format!("BUCKET={GCS}")]);
        assert!(
            refused.code != 0 && refused.stderr.contains("is published with other bytes"),
            "{refused:?}"
        );
    }
}

fn release(workshop: &Workshop, place: &str) {
    let bucket = format!("BUCKET={place}");
    workshop.build("0.1.0");
    let done = workshop
        .make(&["publish", "publish-latestVersions", &bucket])
        .ok();
    for said in [
        "linux/armv7 published",
        "version 0.1.0 is published and proven",
        "take 0.1.0",
    ] {
        assert!(done.stdout.contains(said), "{done:?}");
    }
}

/// Stands before the vendor's command: just before the schedule is written for the first time, another operator stops a
/// version.
const MEANWHILE: &str = r#"#!/bin/sh
PATH=${PATH#*:}
case "$*" in
  $WRITING)
    if mkdir "$0.done" 2>/dev/null; then scripts/publish schedule "$PLACE" 0.1.0 --stop >/dev/null || exit 70; fi ;;
esac
exec "${0##*/}" "$@"
"#;

#[test]
fn what_another_operator_changes_meanwhile_behind_the_s3_protocol_is_not_lost() {
    let (_server, workshop) = s3();
    change_meanwhile(workshop, S3, "aws", "*put-object*rollouts.json *");
}

#[test]
fn what_another_operator_changes_meanwhile_in_google_cloud_storage_is_not_lost() {
    let (_server, workshop) = gcs();
    change_meanwhile(workshop, GCS, "gsutil", "*cp*gs://*rollouts.json");
}

/// `writing`: how the words of the command look that writes the schedule.
fn change_meanwhile(workshop: Workshop, place: &str, tool: &str, writing: &str) {
    let tools = workshop.program(tool, MEANWHILE);
    let workshop = workshop.with_tools(&tools);
    let schedule = || -> CommandOutput {
        let mut command = workshop.publish(&["schedule", place, "0.1.1", "--percent", "5"]);
        command.env("PLACE", place).env("WRITING", writing);
        command.output().unwrap().into()
    };
    let refused = schedule();
    assert!(
        refused.code != 0 && refused.stderr.contains("somebody else has changed"),
        "{refused:?}"
    );
    let both = schedule().ok().json();
    let versions = both["rollouts"].as_array().unwrap().iter();
    let versions: Vec<_> = versions.map(|rollout| rollout["version"].as_str()).collect();
    assert_eq!(versions, [Some("0.1.0"), Some("0.1.1")], "{both}");
}
