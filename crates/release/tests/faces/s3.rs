//! The same to a bucket behind the S3 protocol, by Amazon's own command. That starts slowly: few words, each of which
//! takes another way.

use testkit::fleet::CommandOutput;
use testkit::s3::S3Server;

use super::workshop::Workshop;

const PLACE: &str = "s3://updates/dl/re-agent";

/// An empty bucket, and somebody who makes releases.
fn place() -> (S3Server, Workshop) {
    let server = S3Server::start();
    server.create("updates");
    let workshop = Workshop::new().with(server.environment());
    (server, workshop)
}

#[test]
fn a_release_goes_to_a_bucket_behind_the_s3_protocol() {
    let (_server, workshop) = place();
    let bucket = format!("BUCKET={PLACE}");
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

/// Stands before `aws`: just before the schedule is written for the first time, another operator stops a version.
const MEANWHILE: &str = r#"#!/bin/sh
PATH=${PATH#*:}
case "$*" in
  *put-object*rollouts.json\ *)
    if mkdir "$0.done" 2>/dev/null; then scripts/publish schedule "$PLACE" 0.1.0 --stop >/dev/null || exit 70; fi ;;
esac
exec aws "$@"
"#;

#[test]
fn what_another_operator_changes_meanwhile_behind_the_s3_protocol_is_not_lost() {
    let (_server, workshop) = place();
    let tools = workshop.program("aws", MEANWHILE);
    let schedule = || -> CommandOutput {
        let mut command = workshop.publish(&["schedule", PLACE, "0.1.1", "--percent", "5"]);
        let path = command
            .get_envs()
            .find_map(|(name, value)| value.filter(|_| name == "PATH"));
        let path = format!("{tools}:{}", path.unwrap().to_str().unwrap());
        command.env("PATH", path).env("PLACE", PLACE);
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
