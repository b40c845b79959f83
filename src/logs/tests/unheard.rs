//! What nobody listens to is not sent.

use wamp::message::code;

use super::*;

#[tokio::test]
async fn output_that_nobody_listens_to_never_gets_to_the_router() {
    let directory = tempfile::tempdir().unwrap();
    let (logs, _store) = start(directory.path()).await;
    let (router, url) = router_and_url(None, Limits::default()).await;
    let published = || router.counters().received.of(code::PUBLISH);
    logs.agent_line(app(1), "x", "makes the app known");
    logs.attach(join(&url).await).await;
    // Of another one that is not known yet, the router is asked first.
    for key in [1, 2] {
        for number in 0..100 {
            say(&logs, app(key), "x", number.to_string());
        }
        assert_eq!(logs.history(app(key), "x").await.len(), 100);
        logs.agent_line(app(key), "x", "for whoever may listen");
    }
    wait::until_async("the agent's own lines are sent", SOON, || async {
        (published() >= 2).then_some(())
    })
    .await;
    // Many times as long as output waits for company.
    let began = std::time::Instant::now();
    wait::until_async("output would have been sent", SOON, || async {
        (began.elapsed() > Duration::from_secs(1)).then_some(())
    })
    .await;
    assert_eq!(published(), 2);

    // Here it is for somebody.
    let other = join(&url).await;
    let mut viewer = view(&other, "prod_1_x").await;
    wait_for_open_gate(&logs, app(1), "x", &mut viewer).await;
    assert!(published() > 2);
}
