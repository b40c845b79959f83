//! What people type when they release: `make build-all`, `make publish`, `make promote`, `make rollout` and the others, in
//! a copy of what they work on, to a bucket in a directory, behind the S3 protocol and of Google Cloud Storage.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

#[path = "faces/platforms.rs"]
mod platforms;
#[path = "faces/vendors.rs"]
mod vendors;
#[path = "faces/workshop.rs"]
mod workshop;

use workshop::Workshop;

#[test]
fn a_release_is_raised_published_and_made_live_by_make() {
    let workshop = Workshop::new();
    let bucket = workshop.bucket();
    let bucket = bucket.to_str().unwrap();
    workshop.make(&["bump-minor"]).ok();
    assert_eq!(workshop.read("release/version.txt"), "0.2.0\n");
    workshop.build("0.2.0");

    let nowhere = workshop.make(&["publish"]);
    assert!(
        nowhere.code != 0 && nowhere.stderr.contains("name the bucket"),
        "{nowhere:?}"
    );
    let done = workshop
        .make(&["publish", "promote", &format!("BUCKET={bucket}")])
        .ok();
    assert!(done.stdout.contains("linux/armv7 published"), "{done:?}");
    let live = |name: &str| workshop.read(&format!("bucket/{name}"));
    assert_eq!(
        live("availableVersions.json"),
        workshop.read("release/availableVersions.json")
    );
    assert_eq!(live("version.txt").trim(), "0.2.0");
    assert_eq!(
        live("linux/armv7/latest/reagent"),
        live("linux/armv7/0.2.0/reagent")
    );

    // What is published is offered to nobody, until the other two words.
    workshop.make(&["bump-patch"]).ok();
    workshop.build("0.2.1");
    workshop.make(&["publish", &format!("BUCKET={bucket}")]).ok();
    assert!(live("linux/armv7/0.2.1/reagent.manifest.json").contains("0.2.1"));
    assert!(!live("availableVersions.json").contains("0.2.1"));
    assert_eq!(live("version.txt").trim(), "0.2.0");
    workshop.make(&["release", &format!("BUCKET={bucket}")]).ok();
    assert!(live("availableVersions.json").contains("0.2.1"));
    assert_eq!(live("version.txt").trim(), "0.2.1");
    assert_eq!(
        live("linux/armv7/latest/reagent"),
        live("linux/armv7/0.2.0/reagent")
    );
    workshop
        .make(&["publish-latest-alias", &format!("BUCKET={bucket}")])
        .ok();
    assert_eq!(
        live("linux/armv7/latest/reagent"),
        live("linux/armv7/0.2.1/reagent")
    );
}

#[test]
fn a_version_is_raised_with_and_without_the_end_of_its_line_and_nothing_else_is() {
    let workshop = Workshop::new();
    for (before, kind, after) in [
        ("0.1.9", "bump-patch", "0.1.10\n"),
        ("0.1.9\n", "bump-minor", "0.2.0\n"),
        ("0.1.9", "bump-major", "1.0.0\n"),
    ] {
        workshop.write("release/version.txt", before.as_bytes());
        workshop.make(&[kind]).ok();
        assert_eq!(workshop.read("release/version.txt"), after, "{kind}");
    }
    let list = workshop.read("release/availableVersions.json");
    for odd in [
        "",
        "1.0",
        "1.0.0.0",
        "1.0.x",
        "1.0.08",
        "1.0.0\r\n",
        "1.0.0\n1.0.1\n",
    ] {
        workshop.write("release/version.txt", odd.as_bytes());
        let refused = workshop.make(&["bump-patch"]);
        assert!(
            refused.code != 0
                && refused
                    .stderr
                    .contains("bump: release/version.txt holds no version"),
            "{odd:?}: {refused:?}"
        );
        assert_eq!(workshop.read("release/version.txt"), odd);
        assert_eq!(workshop.read("release/availableVersions.json"), list);
    }
}

#[test]
fn what_the_list_may_not_name_is_not_promoted_by_half() {
    let workshop = Workshop::new();
    let bucket = format!("BUCKET={}", workshop.bucket().display());
    workshop.build("0.1.0");
    workshop.make(&["publish", "promote", &bucket]).ok();
    // Another platform has the version that is live, too.
    let other = workshop.bucket().join("linux/armv6/0.1.0");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("reagent"), "an agent").unwrap();
    workshop.make(&["bump-patch"]).ok();
    workshop.build("0.1.1");
    workshop.make(&["publish", &bucket]).ok();
    for target in ["promote", "release"] {
        let refused = workshop.make(&[target, &bucket]);
        assert!(
            refused.code != 0 && refused.stderr.contains("is not published for linux/armv6"),
            "{refused:?}"
        );
        let live = |name: &str| workshop.read(&format!("bucket/{name}"));
        assert!(!live("availableVersions.json").contains("0.1.1"), "{target}");
        assert_eq!(live("version.txt").trim(), "0.1.0", "{target}");
        assert_eq!(
            live("linux/armv7/latest/reagent"),
            live("linux/armv7/0.1.0/reagent"),
            "{target}"
        );
    }
}

#[test]
fn nothing_goes_live_by_make_rollout_that_is_not_committed_tagged_and_wanted() {
    let workshop = Workshop::new();
    let bucket = format!("BUCKET={}", workshop.bucket().display());
    workshop.build("0.1.0");
    // What it builds with is no matter here.
    let rollout = |yes: &str| workshop.make_with(&["rollout", &bucket, "BUILDER=help"], &[("YES", yes)]);
    let refused = |yes: &str, why: &str| {
        let done = rollout(yes);
        assert!(done.code != 0 && done.stderr.contains(why), "{done:?}");
    };
    let live = || workshop.bucket().join("availableVersions.json").exists();
    workshop.git(&["init", "--quiet"]);
    refused("0.1.0", "the tree is not clean");
    workshop.git(&["add", "."]);
    workshop.git(&["commit", "--quiet", "--message", "a release"]);
    refused("0.1.0", "this commit is not v0.1.0");
    workshop.git(&["tag", "v0.1.0"]);
    assert!(!workshop.bucket().exists(), "nothing was published so far");
    refused("", "answer on a terminal");
    refused("0.0.9", "answer on a terminal");
    assert!(workshop.bucket().join("linux/armv7/0.1.0/reagent").exists() && !live());
    rollout("0.1.0").ok();
    assert!(live());
}

#[test]
fn a_secret_key_is_made_in_no_repository_whatever_make_is_told() {
    let workshop = Workshop::new();
    workshop.git(&["init", "--quiet"]);
    let refused = workshop.make(&["keys", "SECRET=release/next.key", "PUBLIC=release/next.pub"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("name a file outside of it"),
        "{refused:?}"
    );
    assert!(!workshop.has("release/next.key") && !workshop.has("release/next.pub"));
}
