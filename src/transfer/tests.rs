//! Uploads into a directory of a test's own.

use tokio::sync::watch;

use super::*;
use crate::engine::Engine;
use crate::store::Store;

struct House {
    home: tempfile::TempDir,
    transfers: Transfers,
    works: Works,
    _session: watch::Sender<Option<wamp::client::Session>>,
}

async fn house() -> House {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("reagent.db")).await.unwrap().0;
    let stop = CancellationToken::new();
    let engine = Engine::at("unix:///nowhere").unwrap();
    let logs = Logs::start("abc".to_owned(), store, engine, stop.clone());
    let (sender, session) = watch::channel(None);
    let directory = home.path().join("build");
    let works = Works::default();
    let transfers = Transfers::start(
        &directory,
        "abc".to_owned(),
        Backend::new(session),
        logs,
        works.clone(),
        stop,
    );
    House {
        home,
        transfers,
        works,
        _session: sender,
    }
}

impl House {
    async fn send(&self, part: Part, file_name: &str, id: &str, total: u64) -> Result<(), TransferError> {
        self.send_for("dev_6_myapp", part, file_name, id, total).await
    }

    async fn send_for(
        &self,
        container: &str,
        part: Part,
        file_name: &str,
        id: &str,
        total: u64,
    ) -> Result<(), TransferError> {
        let chunk = Chunk {
            part,
            file_name: file_name.to_owned(),
            container: container.to_owned(),
            total,
            id: id.to_owned(),
        };
        self.transfers.take(chunk).await
    }

    fn read(&self, file_name: &str) -> Option<String> {
        std::fs::read_to_string(self.home.path().join("build").join(file_name)).ok()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.home.path().join("build")).map_or(0, Iterator::count)
    }
}

fn data(text: &str) -> Part {
    Part::Data(text.as_bytes().to_vec())
}

const FILE: &str = "MyApp.tgz";

#[tokio::test]
async fn a_file_appears_when_it_is_complete() {
    let house = house().await;
    house.send(Part::Begin, FILE, "1", 6).await.unwrap();
    house.send(data("abc"), FILE, "1", 6).await.unwrap();
    assert_eq!(house.read(FILE), None);
    assert!(house.works.are_under_way());
    house.send(data("def"), FILE, "1", 6).await.unwrap();
    house.send(Part::End(None), FILE, "1", 6).await.unwrap();
    assert!(!house.works.are_under_way());
    assert_eq!(house.read(FILE).as_deref(), Some("abcdef"));
    assert_eq!(house.files(), 1);
    let late = house.send(data("x"), FILE, "1", 6).await.unwrap_err();
    assert_eq!(late.to_string(), "We received a chunk without an active transfer");
}

#[tokio::test]
async fn the_last_one_begun_wins_and_stale_chunks_are_ignored() {
    let house = house().await;
    house.send(Part::Begin, FILE, "old", 3).await.unwrap();
    house.send(data("old"), FILE, "old", 3).await.unwrap();
    house.send(Part::Begin, FILE, "new", 3).await.unwrap();
    house.send(data("o"), FILE, "old", 3).await.unwrap();
    house.send(Part::End(None), FILE, "old", 3).await.unwrap();
    assert_eq!(house.read(FILE), None);
    house.send(data("new"), FILE, "new", 3).await.unwrap();
    house.send(Part::End(None), FILE, "new", 3).await.unwrap();
    assert_eq!(house.read(FILE).as_deref(), Some("new"));
}

#[tokio::test]
async fn an_upload_that_fails_leaves_the_file_before_and_tells_the_app() {
    let house = house().await;
    std::fs::create_dir_all(house.home.path().join("build")).unwrap();
    std::fs::write(house.home.path().join("build").join(FILE), "before").unwrap();
    let too_much = async {
        house.send(Part::Begin, FILE, "1", 2).await.unwrap();
        house.send(data("abc"), FILE, "1", 2).await
    };
    assert_eq!(
        too_much.await.unwrap_err().to_string(),
        "3 bytes arrived, 2 were announced"
    );
    let too_little = async {
        house.send(Part::Begin, FILE, "2", 4).await.unwrap();
        house.send(data("abc"), FILE, "2", 4).await.unwrap();
        house.send(Part::End(None), FILE, "2", 4).await
    };
    assert_eq!(
        too_little.await.unwrap_err().to_string(),
        "3 bytes arrived, 4 were announced"
    );
    let wrong = async {
        house.send(Part::Begin, FILE, "3", 3).await.unwrap();
        house.send(data("abc"), FILE, "3", 3).await.unwrap();
        house.send(Part::End(Some("00".to_owned())), FILE, "3", 3).await
    };
    assert!(matches!(wrong.await.unwrap_err(), TransferError::Digest { .. }));
    assert_eq!(house.read(FILE).as_deref(), Some("before"));
    assert_eq!(house.files(), 1);
    assert_eq!(house.transfers.failed().await.key, 6);

    let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    house.send(Part::Begin, FILE, "4", 3).await.unwrap();
    house.send(data("abc"), FILE, "4", 3).await.unwrap();
    house
        .send(Part::End(Some(right.to_uppercase())), FILE, "4", 3)
        .await
        .unwrap();
    assert_eq!(house.read(FILE).as_deref(), Some("abc"));
}

#[tokio::test]
async fn a_canceled_upload_is_told_so_whatever_its_id() {
    let house = house().await;
    house.send(Part::Begin, FILE, "1", 3).await.unwrap();
    house.transfers.cancel("dev_6_myapp").await;
    assert_eq!(house.files(), 0);
    let told = house.send(data("abc"), FILE, "other", 3).await.unwrap_err();
    assert_eq!(told.to_string(), "canceled");
    house.send(Part::Begin, FILE, "2", 3).await.unwrap();
    house.transfers.cancel("dev_6_myapp").await;
    let told = house.send(Part::End(None), FILE, "2", 3).await.unwrap_err();
    assert_eq!(told.to_string(), "canceled");
    house.transfers.cancel("dev_7_other").await;
}

#[tokio::test]
async fn names_that_are_paths_and_sizes_that_do_not_fit_are_refused() {
    let house = house().await;
    for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "a\0"] {
        let refused = house.send(Part::Begin, name, "1", 1).await.unwrap_err();
        assert!(matches!(refused, TransferError::FileName(_)), "{name:?}");
    }
    let refused = house.send(Part::Begin, FILE, "1", u64::MAX).await.unwrap_err();
    assert!(matches!(refused, TransferError::NoSpace { .. }), "{refused}");
    let refused = house
        .send_for("nonsense", Part::Begin, FILE, "1", 1)
        .await
        .unwrap_err();
    assert_eq!(refused.to_string(), "invalid container name");
    assert_eq!(house.files(), 0);
}

#[tokio::test]
async fn two_apps_cannot_write_one_file_and_uploads_are_bounded() {
    let house = house().await;
    house.send(Part::Begin, FILE, "1", 1).await.unwrap();
    let refused = house
        .send_for("dev_7_other", Part::Begin, FILE, "1", 1)
        .await
        .unwrap_err();
    assert!(matches!(refused, TransferError::FileInUse(_)), "{refused}");
    for key in 10..10 + LIVE - 1 {
        let (container, file) = (format!("dev_{key}_x"), format!("{key}.tgz"));
        house
            .send_for(&container, Part::Begin, &file, "1", 1)
            .await
            .unwrap();
    }
    let refused = house
        .send_for("dev_99_x", Part::Begin, "99.tgz", "1", 1)
        .await
        .unwrap_err();
    assert!(matches!(refused, TransferError::TooMany), "{refused}");
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let house = house().await;
    house.send(Part::Begin, FILE, "1", 9).await.unwrap();
    house.send(data("abc"), FILE, "1", 9).await.unwrap();
    tokio::time::pause();
    let app = house.transfers.failed().await;
    assert_eq!(app.key, 6);
    assert_eq!(house.files(), 0);
    let late = house.send(data("def"), FILE, "1", 9).await.unwrap_err();
    assert!(matches!(late, TransferError::NotActive), "{late}");
}

#[tokio::test]
async fn what_a_killed_run_left_unfinished_goes_and_archives_stay() {
    let home = tempfile::tempdir().unwrap();
    for name in [".MyApp.tgz.0.part", "MyApp.tgz", "notes.part"] {
        std::fs::write(home.path().join(name), "x").unwrap();
    }
    upload::delete_leftovers(home.path());
    let mut left: Vec<_> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["MyApp.tgz", "notes.part"]);
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_now_and_then_and_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    let chunk = Chunk {
        part: Part::Begin,
        file_name: FILE.to_owned(),
        container: "dev_6_myapp".to_owned(),
        total: 24,
        id: "1".to_owned(),
    };
    let mut upload = Upload::begin(home.path(), chunk, Works::default().begin()).unwrap();
    upload.append(&[0; 10]).unwrap();
    assert_eq!(upload.progress(TELL_EVERY).as_deref(), Some("41.667%"));
    upload.append(&[0; 1]).unwrap();
    assert_eq!(upload.progress(TELL_EVERY), None);
    upload.append(&[0; 13]).unwrap();
    assert_eq!(upload.progress(TELL_EVERY).as_deref(), Some("100.000%"));
}
