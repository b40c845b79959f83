use super::*;
use crate::built::sham;
use crate::lists::{self, ListError};
use std::fs;
use std::path::PathBuf;

struct Shop {
    folder: tempfile::TempDir,
    bucket: Bucket,
    signer: Signer,
    keys: PublicKeys,
    terms: Terms,
    days: u32,
}

impl Shop {
    fn new() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        crate::keys::generate(&path("release.key"), &path("current.pub")).unwrap();
        Shop {
            bucket: Bucket::open(path("bucket").to_str().unwrap()).unwrap(),
            signer: Signer::from_file(&path("release.key")).unwrap(),
            keys: PublicKeys::in_directory(folder.path()).unwrap(),
            terms: Terms::default(),
            days: 30,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("bucket").join(name)
    }

    /// Agents of a version for two platforms; `salt` makes other bytes of the same version.
    fn agents(&self, version: &str, salt: &str) -> Vec<Built> {
        let key = fs::read_to_string(self.folder.path().join("current.pub")).unwrap();
        ["armv7", "armv6"]
            .map(|arch| {
                let mut random = fastrand::Rng::with_seed(7);
                let mut text: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(20_000).collect();
                text.extend_from_slice(format!("{version} {salt} {key}").as_bytes());
                Built {
                    platform: Platform::parse(&format!("linux/{arch}")).unwrap(),
                    content: sham(arch, &text),
                }
            })
            .into()
    }

    fn publish(&self, version: &str, salt: &str) -> Result<Vec<Published>, PublishError> {
        let agents = self.agents(version, salt);
        let release = Release {
            version,
            agents: &agents,
            signer: &self.signer,
            keys: &self.keys,
            terms: &self.terms,
            days: self.days,
            deltas: 2,
        };
        publish(&self.bucket, &release, |_| {})
    }

    fn list(version: &str) -> Vec<u8> {
        format!(
            r#"{{"production": "{version}", "test": "{version}", "local": "{version}", "all": "{version}"}}"#
        )
        .into()
    }

    fn renew(
        &self,
        changes: &Changes,
        unproven: Unproven,
    ) -> Result<Vec<(Platform, Manifest)>, PublishError> {
        let renewal = Renewal {
            version: "1.0.0",
            signer: &self.signer,
            keys: &self.keys,
            days: 30,
            changes,
            unproven,
        };
        renew(&self.bucket, &renewal)
    }

    /// Every file of the bucket with its content.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.bucket.list("").unwrap();
        names
            .into_iter()
            .map(|name| (name.clone(), fs::read(self.path(&name)).unwrap()))
            .collect()
    }
}

#[test]
fn a_version_is_published_once_and_publishing_it_again_changes_nothing() {
    let shop = Shop::new();
    let first = shop.publish("1.0.0", "").unwrap();
    assert!(first.iter().all(|published| published.created == Created::New));
    let before = shop.contents();
    assert_eq!(
        before
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.contains("armv7"))
            .collect::<Vec<_>>(),
        [
            "linux/armv7/1.0.0/reagent",
            "linux/armv7/1.0.0/reagent.manifest.json",
            "linux/armv7/1.0.0/reagent.manifest.json.minisig",
            "linux/armv7/1.0.0/reagent.sha256",
        ]
    );
    let second = shop.publish("1.0.0", "").unwrap();
    assert!(second.iter().all(|published| published.created == Created::Same));
    assert!(shop.contents() == before);
    let refused = shop.publish("1.0.0", "rebuilt").unwrap_err();
    assert!(
        matches!(refused, PublishError::Bucket(BucketError::Published { .. })),
        "{refused}"
    );
    assert!(shop.contents() == before);
}

#[test]
fn a_publication_that_was_broken_off_anywhere_goes_on_where_it_was() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    let whole = shop.bucket.list("").unwrap();
    for lost in &whole {
        fs::remove_file(shop.path(lost)).unwrap();
        shop.publish("1.0.0", "").unwrap();
        assert_eq!(shop.bucket.list("").unwrap(), whole, "{lost}");
    }
}

#[test]
fn manifests_come_when_everything_that_they_name_is_there() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    let agents = shop.agents("1.1.0", "");
    let release = Release {
        version: "1.1.0",
        agents: &agents,
        signer: &shop.signer,
        keys: &shop.keys,
        terms: &shop.terms,
        days: shop.days,
        deltas: 2,
    };
    let names = || {
        let mut names = shop.bucket.list("").unwrap();
        names.retain(|name| name.contains("/1.1.0/"));
        names
    };
    let mut seen = Vec::new();
    publish(&shop.bucket, &release, |_| seen.push(names())).unwrap();
    assert!(
        seen.iter().flatten().all(|name| !name.contains("manifest")),
        "{seen:?}"
    );
    let mut whole = names();
    whole.retain(|name| !name.contains("manifest"));
    assert_eq!(seen.last(), Some(&whole));
    assert_eq!((whole.len(), names().len()), (6, 10), "of two platforms");
}

#[test]
fn nothing_is_issued_before_what_devices_have_seen() {
    let shop = Shop::new();
    let platform = shop.publish("1.0.0", "").unwrap()[0].platform.clone();
    // The clock of whoever published it was wrong.
    let mut manifest = verify::manifest(&shop.bucket, &shop.keys, &platform, "1.0.0").unwrap();
    manifest.issued = crate::manifest::later(manifest.issued, 300);
    manifest.expires = crate::manifest::later(manifest.issued, 30);
    put_manifest(&shop.bucket, &shop.signer, &platform, &manifest).unwrap();
    shop.publish("1.1.0", "").unwrap();
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.0.0"), &[]).unwrap();
    let refused = shop.publish("1.2.0", "").unwrap_err();
    assert!(matches!(refused, PublishError::Clock { .. }), "{refused}");
    shop.renew(&Changes::default(), Unproven::Refuse).unwrap();
    shop.publish("1.2.0", "").unwrap();
}

#[test]
fn patches_are_made_from_the_newest_versions_before() {
    let shop = Shop::new();
    for version in ["1.0.0", "1.9.0", "1.10.0"] {
        shop.publish(version, "").unwrap();
    }
    let published = shop.publish("1.11.0", "").unwrap();
    let from: Vec<_> = published[0]
        .patches
        .iter()
        .map(|(from, _)| from.as_str())
        .collect();
    assert_eq!(from, ["1.10.0", "1.9.0"]);
    let manifest = verify::manifest(&shop.bucket, &shop.keys, &published[0].platform, "1.11.0").unwrap();
    assert_eq!(manifest.deltas.len(), 2);
    assert_eq!(
        manifest.deltas[0].from_sha256,
        crate::digest(&shop.agents("1.10.0", "")[0].content)
    );
}

#[test]
fn whatever_somebody_changes_in_the_bucket_is_noticed_before_it_is_offered() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    shop.publish("1.1.0", "").unwrap();
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.0.0"), &[]).unwrap();
    for name in shop.bucket.list("linux/armv6/1.1.0/").unwrap() {
        let good = fs::read(shop.path(&name)).unwrap();
        let mut bad = good.clone();
        // In the middle of the second line of a signature is the signature itself.
        let place = bad.len() / 3;
        bad[place] = if bad[place] == b'A' { b'B' } else { b'A' };
        fs::write(shop.path(&name), &bad).unwrap();
        let refused = lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.1.0"), &[]).unwrap_err();
        assert!(matches!(refused, ListError::Verify(_)), "{name}: {refused}");
        fs::write(shop.path(&name), &good).unwrap();
    }
    assert_eq!(lists::current(&shop.bucket).unwrap().unwrap()["all"], "1.0.0");
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.1.0"), &[]).unwrap();
    assert_eq!(
        fs::read(shop.path("availableVersions.json")).unwrap(),
        Shop::list("1.1.0")
    );
}

#[test]
fn no_platform_loses_its_version_unless_somebody_says_so() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.0.0"), &[]).unwrap();
    let agents = &shop.agents("1.1.0", "")[..1];
    let release = Release {
        version: "1.1.0",
        agents,
        signer: &shop.signer,
        keys: &shop.keys,
        terms: &shop.terms,
        days: shop.days,
        deltas: 0,
    };
    publish(&shop.bucket, &release, |_| {}).unwrap();
    let refused = lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.1.0"), &[]).unwrap_err();
    assert!(matches!(refused, ListError::Lost { .. }), "{refused}");
    let dropped = [Platform::parse("linux/armv6").unwrap()];
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.1.0"), &dropped).unwrap();
}

#[test]
fn a_channel_may_stay_on_a_go_version_while_another_goes_on() {
    let shop = Shop::new();
    // As Go releases lie in the bucket: no manifest, and for more platforms.
    for arch in ["armv7", "armv6", "amd64"] {
        let binary = format!("linux/{arch}/0.20.20/reagent");
        shop.bucket.create(&binary, arch.as_bytes()).unwrap();
        let sha256 = crate::digest(arch.as_bytes());
        shop.bucket
            .create(&format!("{binary}.sha256"), sha256.as_bytes())
            .unwrap();
    }
    let list = |production: &str, test: &str| {
        format!(r#"{{"production": "{production}", "test": "{test}", "local": "0.20.20", "all": "0.20.20"}}"#)
            .into_bytes()
    };
    let publish = |list: &[u8]| lists::publish(&shop.bucket, &shop.keys, list, &[]);
    let go = list("0.20.20", "0.20.20");
    // Whoever names it first has to prove it: with the tool of its time.
    publish(&go).unwrap_err();
    shop.bucket.replace("availableVersions.json", &go).unwrap();
    shop.publish("1.0.0", "").unwrap();
    // linux/amd64 would lose its version.
    let refused = publish(&list("0.20.20", "1.0.0")).unwrap_err();
    assert!(matches!(refused, ListError::Lost { .. }), "{refused}");
    let dropped = [Platform::parse("linux/amd64").unwrap()];
    lists::publish(&shop.bucket, &shop.keys, &list("0.20.20", "1.0.0"), &dropped).unwrap();
    // Back by the list is what agents do not do, and it is not proven.
    publish(&list("0.20.20", "0.20.20")).unwrap_err();
    // The alias goes with it.
    let versions = lists::current(&shop.bucket).unwrap().unwrap();
    let copies = lists::publish_latest(&shop.bucket, &shop.keys, &versions).unwrap();
    assert_eq!(copies.len(), 6);

    // What a Go agent would trip over is noticed all the same.
    fs::remove_file(shop.path("linux/armv6/0.20.20/reagent.sha256")).unwrap();
    let refused = lists::publish(&shop.bucket, &shop.keys, &list("0.20.20", "1.0.0"), &dropped).unwrap_err();
    assert!(
        matches!(refused, ListError::Verify(VerifyError::Missing { .. })),
        "{refused}"
    );
}

#[test]
fn a_version_whose_manifest_has_expired_stays_where_it_is_offered_and_goes_nowhere_else() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    shop.publish("1.1.0", "").unwrap();
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.0.0"), &[]).unwrap();
    for platform in verify::platforms(&shop.bucket.list("").unwrap(), "1.0.0") {
        let mut manifest = verify::manifest(&shop.bucket, &shop.keys, &platform, "1.0.0").unwrap();
        manifest.renew(0, &Changes::default());
        put_manifest(&shop.bucket, &shop.signer, &platform, &manifest).unwrap();
    }
    let list = |test: &str, more: &str| {
        format!(r#"{{"production": "1.0.0", "test": "{test}", "local": "1.0.0", "all": "1.0.0"{more}}}"#)
    };
    let publish = |list: String| lists::publish(&shop.bucket, &shop.keys, list.as_bytes(), &[]);
    publish(list("1.1.0", "")).unwrap();
    let refused = publish(list("1.1.0", r#", "beta": "1.0.0""#)).unwrap_err();
    assert!(
        matches!(refused, ListError::Verify(VerifyError::Expired { .. })),
        "{refused}"
    );
}

#[test]
fn a_list_that_agents_could_not_use_is_refused() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    for list in [
        b"<html>".to_vec(),
        br#"{"all": "1.0.0"}"#.to_vec(),
        Shop::list("latest"),
        Shop::list("1.0"),
        Shop::list("9.9.9"),
    ] {
        lists::publish(&shop.bucket, &shop.keys, &list, &[]).unwrap_err();
    }
    assert_eq!(shop.bucket.read("availableVersions.json").unwrap(), None);
}

#[test]
fn the_alias_is_a_copy_of_the_production_version() {
    let shop = Shop::new();
    shop.publish("1.0.0", "").unwrap();
    let versions = lists::read(&Shop::list("1.0.0")).unwrap();
    let copies = lists::publish_latest(&shop.bucket, &shop.keys, &versions).unwrap();
    assert_eq!(copies.len(), 4);
    let file = |version: &str| fs::read(shop.path(&format!("linux/armv7/{version}/reagent"))).unwrap();
    assert!(file("latest") == file("1.0.0"));
    // The alias is no version: the next one makes no patch from it.
    assert_eq!(shop.publish("1.0.1", "").unwrap()[0].patches.len(), 1);
}

#[test]
fn an_expired_manifest_keeps_its_version_from_being_offered_until_it_is_renewed() {
    let mut shop = Shop::new();
    shop.days = 0;
    let expired = shop.publish("1.0.0", "").unwrap_err();
    assert!(
        matches!(expired, PublishError::Verify(VerifyError::Expired { .. })),
        "{expired}"
    );
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.0.0"), &[]).unwrap_err();
    assert_eq!(
        shop.renew(&Changes::default(), Unproven::Refuse).unwrap().len(),
        2
    );
    lists::publish(&shop.bucket, &shop.keys, &Shop::list("1.0.0"), &[]).unwrap();
}

#[test]
fn terms_of_a_published_version_are_changed_by_renewing_it_and_not_by_publishing_it_again() {
    let mut shop = Shop::new();
    shop.terms.channels = vec!["test".to_owned()];
    shop.publish("1.0.0", "").unwrap();
    let before = shop.contents();
    shop.terms.allow_downgrade = true;
    let refused = shop.publish("1.0.0", "").unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("with --channel test, not with --channel test --allow-downgrade"),
        "{text}"
    );
    assert!(shop.contents() == before);
    let manifest = |shop: &Shop| {
        let platform = Platform::parse("linux/armv7").unwrap();
        verify::manifest(&shop.bucket, &shop.keys, &platform, "1.0.0").unwrap()
    };
    let renew = |changes| shop.renew(&changes, Unproven::Refuse).unwrap();
    renew(Changes {
        allow_downgrade: Some(true),
        ..Changes::default()
    });
    assert_eq!(manifest(&shop).terms(), shop.terms);
    shop.publish("1.0.0", "").unwrap();
    renew(Changes {
        channels: Some(Vec::new()),
        minimum_version: Some(Some("0.9.0".to_owned())),
        allow_downgrade: None,
    });
    let text = manifest(&shop).terms().to_string();
    assert_eq!(text, "--minimum-version 0.9.0 --allow-downgrade");
    renew(Changes {
        minimum_version: Some(None),
        ..Changes::default()
    });
    let text = manifest(&shop).terms().to_string();
    assert_eq!(text, "--allow-downgrade");
    assert!(
        !String::from_utf8(manifest(&shop).to_text())
            .unwrap()
            .contains("minimum_version")
    );
}

#[test]
fn a_manifest_whose_signature_was_not_written_any_more_is_replaced_by_somebody_who_says_its_terms() {
    let mut shop = Shop::new();
    shop.terms.channels = vec!["test".to_owned()];
    shop.publish("1.0.0", "").unwrap();
    let platform = Platform::parse("linux/armv7").unwrap();
    let proven = |shop: &Shop| verify::manifest(&shop.bucket, &shop.keys, &platform, "1.0.0");
    let signature = shop.bucket.read(&platform.signature("1.0.0")).unwrap().unwrap();
    let downgrade = Changes {
        allow_downgrade: Some(true),
        ..Changes::default()
    };
    shop.renew(&downgrade, Unproven::Refuse).unwrap();
    shop.bucket
        .replace(&platform.signature("1.0.0"), &signature)
        .unwrap();

    let refused = shop.renew(&downgrade, Unproven::Refuse).unwrap_err();
    assert!(refused.to_string().contains("--replace-unproven"), "{refused}");
    // Not every term is said.
    let refused = shop.renew(&downgrade, Unproven::Replace).unwrap_err();
    assert!(
        refused.to_string().ends_with("--channel test --allow-downgrade"),
        "{refused}"
    );
    proven(&shop).unwrap_err();
    let both = Changes {
        channels: Some(shop.terms.channels.clone()),
        ..downgrade
    };
    let renewed = shop.renew(&both, Unproven::Replace).unwrap();
    assert_eq!(renewed.len(), 2);
    assert_eq!(proven(&shop).unwrap(), renewed[1].1);
    let names = shop.bucket.list("").unwrap();
    verify::version(&shop.bucket, &names, &shop.keys, "1.0.0").unwrap();

    // What it names has to be there as it says.
    let mut forged = proven(&shop).unwrap();
    forged.sha256 = crate::digest(b"something else");
    shop.bucket
        .replace(&platform.manifest("1.0.0"), &forged.to_text())
        .unwrap();
    let refused = shop.renew(&both, Unproven::Replace).unwrap_err();
    assert!(
        matches!(refused, PublishError::Verify(VerifyError::Differs { .. })),
        "{refused}"
    );
}

#[test]
fn what_no_agent_could_install_is_not_published() {
    let shop = Shop::new();
    for version in ["1.0", "v1.0.0", "latest", "1.0.0-rc.1"] {
        assert!(
            matches!(shop.publish(version, ""), Err(PublishError::Version(_))),
            "{version}"
        );
    }
    assert_eq!(shop.bucket.list("").unwrap(), Vec::<String>::new());
}
