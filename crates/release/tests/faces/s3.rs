//! The same to a bucket behind the S3 protocol, by Amazon's own command. That starts slowly: few words, each of which
//! takes another way.

use testkit::fleet::CommandOutput;
use testkit::s3::S3Server;

use super::workshop::Workshop;

#[test]
fn a_release_goes_to_a_bucket_behind_the_s3_protocol() {
    let server = S3Server::start();
    server.create("updates");
    let workshop = Workshop::new().with(server.environment());
    let place = "s3://updates/dl/re-agent";
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

    // Two operators at the same moment: there is no schedule yet.
    let schedule = |version: &str| {
        let mut command = workshop.publish(&["schedule", place, version, "--stop"]);
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let both = ["0.1.0", "0.1.1"].map(|version| (version, schedule(version)));
    let ended = both.map(|(version, child)| {
        let output: CommandOutput = child.wait_with_output().unwrap().into();
        (version, output)
    });
    assert!(ended.iter().any(|(_, output)| output.code == 0), "{ended:?}");
    // There is one now.
    let mut last = workshop.publish(&["schedule", place, "0.1.2", "--percent", "5"]);
    let last = CommandOutput::from(last.output().unwrap()).ok().json();
    let is_there = |version: &str| {
        let rollouts = last["rollouts"].as_array().unwrap();
        rollouts.iter().any(|rollout| rollout["version"] == version)
    };
    for (version, output) in &ended {
        match output.code {
            0 => assert!(is_there(version), "{version} is lost: {last}"),
            _ => assert!(output.stderr.contains("run this again"), "{output:?}"),
        }
    }
    assert!(is_there("0.1.2"), "{last}");
}
