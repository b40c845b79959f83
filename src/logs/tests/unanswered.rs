//! A router whose word on a publication comes late.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;

/// A way to `router` on which its words are kept back while `held` says so.
async fn way(router: &str, held: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (_, address) = router.split_once("//").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let address = address.trim_end_matches("/ws").to_owned();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let router = TcpStream::connect(address).await.unwrap();
        let ((mut from_client, mut to_client), (from_router, mut to_router)) =
            (client.into_split(), router.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_router).await });
        let mut held = held;
        let mut words = vec![0; 4096];
        loop {
            from_router.readable().await.unwrap();
            let Ok(size) = from_router.try_read(&mut words) else {
                continue;
            };
            held.wait_for(|held| !held).await.unwrap();
            if size == 0 || to_client.write_all(&words[..size]).await.is_err() {
                return;
            }
        }
    });
    url
}

/// A session that gives nobody up who is silent.
async fn patient(url: &str) -> Session {
    let mut config = ClientConfig::new(url, "realm1");
    config.ping_interval = Duration::ZERO;
    Session::connect(&config).await.unwrap()
}

#[tokio::test]
async fn topics_whose_messages_are_never_confirmed_hold_up_no_others() {
    /// As many as may be on their way.
    const SILENT: u64 = 8;
    let rig = rig().await;
    let somebody = patient(&rig.url).await;
    let prefix = Dict::from([("match".to_owned(), wamp::Value::from("prefix"))]);
    let mut viewer = somebody.subscribe("reswarm.logs.", prefix).await.unwrap();
    let (hold, held) = watch::channel(false);
    rig.logs.attach(patient(&way(&rig.url, held).await).await).await;
    for key in 0..=SILENT {
        wait_for_open_gate(&rig.logs, app(key), "x", &mut viewer).await;
    }
    hold.send_replace(true);
    for key in 1..=SILENT {
        say(&rig.logs, app(key), "x", "not confirmed".to_owned());
    }
    // Its earlier ones all are.
    say(&rig.logs, app(0), "x", "not held up".to_owned());
    while next(&mut viewer).await != json!("not held up") {}
    hold.send_replace(false);
    rig.logs.close().await;
}

#[tokio::test]
async fn what_a_router_confirms_late_was_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, _) = start(directory.path()).await;
    let limits = Limits {
        ping_interval: Duration::ZERO,
        ..Limits::default()
    };
    let url = router_of(None, limits).await;
    let other = patient(&url).await;
    let mut viewer = view(&other, "prod_1_x").await;
    logs.clear_history(app(1), "x");
    let (hold, held) = watch::channel(false);
    logs.attach(patient(&way(&url, held).await).await).await;
    wait_for_open_gate(&logs, app(1), "x", &mut viewer).await;

    hold.send_replace(true);
    say(&logs, app(1), "x", "one".to_owned());
    assert_eq!(next(&mut viewer).await, json!("one"));
    say(&logs, app(1), "x", "two".to_owned());
    // Minutes.
    tokio::time::pause();
    for _ in 0..200 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    hold.send_replace(false);
    assert_eq!(next(&mut viewer).await, json!("two"), "nothing was lost");
    logs.close().await;
}
