//! When the agent looks for updates by itself.

use std::time::{Duration, Instant};

use serde_json::json;
use testkit::wait;

use super::SOON;
use super::builds::OLD;
use super::gateway::Gateway;

#[tokio::test]
async fn the_first_check_comes_at_the_devices_place_and_none_sooner_than_half_a_period_later() {
    let mut gateway = Gateway::new().await;
    let place = protocol::rollout::place("00000000-0000-4000-8000-00000000da7e", OLD);
    let place = f64::from(place) / f64::from(u32::MAX);
    let (first, period) = (Duration::from_secs(3), Duration::from_secs(1));
    let delay = first.div_f64(place);
    gateway.set_up(json!({"start_delay": delay.as_millis(), "period": period.as_millis()}));
    let began = Instant::now();
    gateway.power_with(&[]);
    let checks = |count: usize| {
        wait::until("the list is asked for", SOON, || {
            (gateway.server.asked("availableVersions.json").len() >= count).then_some(())
        });
        began.elapsed()
    };
    // A moment for what is rounded.
    let (one, five) = (checks(1) + Duration::from_millis(10), checks(5));
    assert!(one >= first, "{one:?} of {delay:?}");
    assert!(five >= first + 4 * period / 2, "{five:?}");
}
