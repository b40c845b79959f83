use super::*;
use crate::update::http::Limits;
use testkit::disk::SmallDisk;
use testkit::release;
use testkit::static_server::{Fault, StaticServer};

const SIZE: usize = 700_000;

struct Scene {
    server: StaticServer,
    directory: tempfile::TempDir,
    content: Vec<u8>,
    order: Order,
    limits: Limits,
    patience: Patience,
}

impl Scene {
    fn new() -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(SIZE).collect();
        std::fs::write(directory.path().join("object"), &content).unwrap();
        let server = StaticServer::start(directory.path());
        let order = Order {
            url: format!("{}/object", server.url()),
            sha256: release::digest(&content),
            size: SIZE as u64,
            name: "the object".to_owned(),
        };
        Scene {
            server,
            directory,
            content,
            order,
            limits: Limits::default(),
            patience: Patience {
                total: Duration::from_secs(60),
                pauses: Pauses {
                    first: Duration::from_millis(5),
                    cap: Duration::from_millis(5),
                },
            },
        }
    }

    async fn fetch(&self) -> Result<PathBuf, DownloadError> {
        self.fetch_to(self.directory.path()).await
    }

    async fn fetch_to(&self, directory: &Path) -> Result<PathBuf, DownloadError> {
        let client = Client::new(self.limits);
        let mut meter = Meter::new(None);
        fetch(&client, directory, &self.order, 0, &self.patience, &mut meter).await
    }

    async fn arrives(&self) {
        let path = self.fetch().await.unwrap();
        assert!(std::fs::read(path).unwrap() == self.content);
    }

    fn part(&self) -> PathBuf {
        self.directory.path().join(format!("{}.part", self.order.sha256))
    }
}

#[tokio::test]
async fn a_whole_file_arrives_with_and_without_an_announced_length() {
    let scene = Scene::new();
    scene.arrives().await;
    std::fs::remove_file(scene.part()).unwrap();
    scene.server.fault("object", Fault::Chunked);
    scene.arrives().await;
}

#[tokio::test]
async fn a_complete_part_is_not_fetched_again() {
    let scene = Scene::new();
    std::fs::write(scene.part(), &scene.content).unwrap();
    scene.arrives().await;
    assert!(scene.server.asked("object").is_empty());
}

#[tokio::test]
async fn what_a_cut_left_is_resumed_and_nothing_comes_twice() {
    let scene = Scene::new();
    scene.server.fault("object", Fault::Cut(200_000));
    scene.arrives().await;
    let asked = scene.server.asked("object");
    assert!(asked.len() >= 4, "{asked:?}");
    assert!(asked.is_sorted(), "{asked:?}");
    assert_eq!(scene.server.sent("object"), SIZE as u64);
}

#[tokio::test]
async fn a_server_without_ranges_starts_again_and_is_believed_all_the_same() {
    let scene = Scene::new();
    std::fs::write(scene.part(), &scene.content[..300_000]).unwrap();
    scene.server.fault("object", Fault::NoRanges);
    scene.arrives().await;
}

#[tokio::test]
async fn a_wrong_beginning_on_disk_costs_one_more_download() {
    let scene = Scene::new();
    std::fs::write(scene.part(), vec![7; 300_000]).unwrap();
    scene.arrives().await;
    assert_eq!(scene.server.asked("object"), [300_000, 0]);
}

#[tokio::test]
async fn another_content_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    scene.server.fault("object", Fault::Corrupt(5));
    let failure = scene.fetch().await.unwrap_err();
    assert!(matches!(failure, DownloadError::Digest { .. }), "{failure}");
    assert!(!scene.part().exists());
    scene
        .server
        .fault("object", Fault::Instead(b"<html>not found</html>".to_vec()));
    let failure = scene.fetch().await.unwrap_err();
    assert!(matches!(failure, DownloadError::Digest { .. }), "{failure}");
    scene.server.fault("object", Fault::Instead(vec![0; SIZE + 1]));
    let failure = scene.fetch().await.unwrap_err();
    assert!(
        matches!(failure, DownloadError::Http(_, HttpError::TooLarge { .. })),
        "{failure}"
    );
}

#[tokio::test]
async fn an_error_page_is_no_file_and_is_asked_for_once() {
    let scene = Scene::new();
    scene.server.fault("object", Fault::Status(404));
    let failure = scene.fetch().await.unwrap_err();
    assert!(
        matches!(
            failure,
            DownloadError::Http(_, HttpError::Status { status: 404, .. })
        ),
        "{failure}"
    );
    assert_eq!(scene.server.asked("object").len(), 1);
}

#[tokio::test]
async fn a_server_that_stays_broken_is_given_up_and_what_came_is_kept() {
    let scene = Scene::new();
    std::fs::write(scene.part(), &scene.content[..300_000]).unwrap();
    scene.server.fault("object", Fault::Status(503));
    scene.fetch().await.unwrap_err();
    assert_eq!(scene.server.asked("object").len(), ATTEMPTS as usize);
    scene.server.heal();
    scene.arrives().await;
    assert_eq!(scene.server.sent("object"), 400_000);
}

#[tokio::test]
async fn pauses_grow_only_while_nothing_comes() {
    let mut scene = Scene::new();
    // Twenty of them would take days.
    scene.patience.pauses.cap = Duration::from_secs(1_000_000);
    scene.server.fault("object", Fault::Cut(SIZE / 20));
    scene.arrives().await;
}

#[tokio::test]
async fn silence_is_noticed_and_the_whole_has_a_limit() {
    let mut scene = Scene::new();
    scene.limits.idle = Duration::from_millis(50);
    scene.server.fault("object", Fault::Stall(100_000));
    let failure = scene.fetch().await.unwrap_err();
    assert!(
        matches!(failure, DownloadError::Http(_, HttpError::Late { .. })),
        "{failure}"
    );
    scene.limits.idle = Duration::from_secs(60);
    scene.patience.total = Duration::from_millis(100);
    let failure = scene.fetch().await.unwrap_err();
    assert!(matches!(failure, DownloadError::Late { .. }), "{failure}");
    scene.server.heal();
    scene.patience.total = Duration::from_secs(60);
    scene.arrives().await;
}

#[tokio::test]
async fn a_file_that_does_not_fit_is_not_begun() {
    let mut scene = Scene::new();
    scene.order.size = u64::MAX / 2;
    let failure = scene.fetch().await.unwrap_err();
    assert!(matches!(failure, DownloadError::Space { .. }), "{failure}");
    assert!(scene.server.asked("object").is_empty());
}

#[tokio::test]
async fn a_disk_that_stays_too_small_is_one_cause_however_much_of_it_is_free() {
    let disk = match SmallDisk::mount(8) {
        Ok(disk) => disk,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let scene = Scene::new();
    let first = scene.fetch_to(&disk.path()).await.unwrap_err().to_string();
    std::fs::write(disk.path().join("other"), vec![1; 1_000_000]).unwrap();
    let second = scene.fetch_to(&disk.path()).await.unwrap_err().to_string();
    assert_eq!(first, second);
    assert!(first.contains("64 MiB"), "{first}");
}
