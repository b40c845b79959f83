//! What devices report of apps in development: the last few states of each, for whoever waits for one and has missed the
//! event. In memory only: a state that was reported to a studio that has ended since is reported no more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use protocol::AppState;

use crate::api::DevelopmentEvent;
use crate::keys::{AppKey, DeviceKey};

/// States kept of one app on one device. A build has three.
const KEPT: usize = 32;

/// Apps on devices that are remembered; beyond, those that were quiet for longest are forgotten.
const APPS: usize = 4096;

#[derive(Debug)]
pub(crate) struct Reports(Mutex<Book>);

#[derive(Debug)]
struct Book {
    /// Of the newest report of all. Begins with the clock's microseconds: with a router of its own, who waits for a state
    /// sees the studio start again, and what is reported then has to come after what it knows.
    number: u64,
    apps: HashMap<(DeviceKey, AppKey), VecDeque<DevelopmentEvent>>,
}

impl Default for Reports {
    fn default() -> Reports {
        let now = jiff::Timestamp::now().as_microsecond();
        Reports(Mutex::new(Book {
            number: u64::try_from(now).unwrap_or_default(),
            apps: HashMap::new(),
        }))
    }
}

impl Reports {
    /// Writes down a state and gives it its number.
    pub(crate) fn add(&self, device_key: DeviceKey, app_key: AppKey, state: AppState) -> DevelopmentEvent {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.number += 1;
        let event = DevelopmentEvent {
            device_key,
            app_key,
            state,
            number: book.number,
        };
        let id = (device_key, app_key);
        if book.apps.len() >= APPS && !book.apps.contains_key(&id) {
            let newest = |events: &VecDeque<DevelopmentEvent>| events.back().map(|event| event.number);
            let quiet = book.apps.iter().min_by_key(|(_, events)| newest(events));
            if let Some(quiet) = quiet.map(|(id, _)| *id) {
                book.apps.remove(&quiet);
            }
        }
        let events = book.apps.entry(id).or_default();
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event.clone());
        event
    }

    /// The number of the newest report of all.
    pub(crate) fn newest(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).number
    }

    /// What was reported after that number, oldest first.
    pub(crate) fn after(&self, device: DeviceKey, app: AppKey, number: u64) -> Vec<DevelopmentEvent> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let events = book.apps.get(&(device, app)).into_iter().flatten();
        events.filter(|event| event.number > number).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceKey = DeviceKey(1);

    fn states(events: &[DevelopmentEvent]) -> Vec<AppState> {
        events.iter().map(|event| event.state).collect()
    }

    #[test]
    fn what_came_after_a_number_is_told_of_one_app_alone() {
        let reports = Reports::default();
        reports.add(DEVICE, AppKey(1), AppState::Present);
        let asked = reports.newest();
        reports.add(DEVICE, AppKey(2), AppState::Failed);
        reports.add(DEVICE, AppKey(1), AppState::Building);
        reports.add(DeviceKey(2), AppKey(1), AppState::Failed);
        let built = reports.add(DEVICE, AppKey(1), AppState::Built);
        let told = reports.after(DEVICE, AppKey(1), asked);
        assert_eq!(states(&told), [AppState::Building, AppState::Built]);
        assert_eq!(told.last(), Some(&built));
        assert_eq!(reports.after(DEVICE, AppKey(1), built.number), []);
        assert_eq!(reports.after(DEVICE, AppKey(3), 0), []);
    }

    #[test]
    fn a_studio_that_starts_again_goes_on_counting() {
        let reports = Reports::default();
        let known = reports.add(DEVICE, AppKey(1), AppState::Building).number;
        testkit::wait::until("the clock goes on", std::time::Duration::from_secs(10), || {
            (Reports::default().newest() > known).then_some(())
        });
        let again = Reports::default();
        again.add(DEVICE, AppKey(1), AppState::Built);
        assert_eq!(states(&again.after(DEVICE, AppKey(1), known)), [AppState::Built]);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let reports = Reports::default();
        let before = reports.newest();
        for _ in 0..KEPT {
            reports.add(DEVICE, AppKey(1), AppState::Present);
        }
        reports.add(DEVICE, AppKey(1), AppState::Running);
        let told = reports.after(DEVICE, AppKey(1), 0);
        assert_eq!((told.len(), told[0].number), (KEPT, before + 2));
        for app in 2..=APPS as u64 + 1 {
            reports.add(DEVICE, AppKey(app), AppState::Present);
        }
        assert_eq!(reports.after(DEVICE, AppKey(1), 0), [], "quiet for longest");
        assert_eq!(reports.after(DEVICE, AppKey(2), 0).len(), 1);
    }
}
