//! What a device says of a download on the app's log topic: Docker's own records, one JSON object per line
//! (`logs-terminal-tunnel.md` 2.2), added up over all layers.

use std::collections::BTreeMap;

use serde_json::Value;
use wamp::client::Event;

/// Bytes so far and in all, per layer.
#[derive(Debug, Default)]
pub(super) struct Download {
    layers: BTreeMap<String, (u64, u64)>,
    shown: Option<u64>,
}

/// Steps of the percentage that are worth a line.
const STEP: u64 = 10;

impl Download {
    /// Takes in what a log message says; answers `(bytes, bytes in all)` when there is something new to show.
    pub(super) fn heard(&mut self, event: &Event) -> Option<(u64, u64)> {
        let Ok(Some(Value::String(text))) = event.payload.first::<Value>() else {
            return None;
        };
        self.read(&text)
    }

    fn read(&mut self, text: &str) -> Option<(u64, u64)> {
        for line in text.split('\n').filter(|line| line.starts_with('{')) {
            let record: Value = serde_json::from_str(line).unwrap_or_default();
            let Some(layer) = record["id"].as_str() else {
                continue;
            };
            match record["status"].as_str() {
                Some("Downloading") => {
                    let bytes = |name: &str| record["progressDetail"][name].as_u64();
                    if let (Some(current), Some(total)) = (bytes("current"), bytes("total")) {
                        self.layers.insert(layer.to_owned(), (current.min(total), total));
                    }
                }
                Some("Download complete" | "Pull complete") => {
                    if let Some((current, total)) = self.layers.get_mut(layer) {
                        *current = *total;
                    }
                }
                _ => {}
            }
        }
        let (current, total) = self
            .layers
            .values()
            .fold((0_u64, 0_u64), |(current, total), layer| {
                (current.saturating_add(layer.0), total.saturating_add(layer.1))
            });
        let step = percent(current, total) / STEP;
        // More layers turn up on the way: the percentage may fall, which is no news.
        if total == 0 || self.shown.is_some_and(|shown| step <= shown) {
            return None;
        }
        self.shown = Some(step);
        Some((current, total))
    }
}

/// Whole percents; 0 of 0 is nothing yet.
pub(super) fn percent(current: u64, total: u64) -> u64 {
    current.saturating_mul(100).checked_div(total).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_added_up_and_shown_in_steps() {
        let mut download = Download::default();
        let record = |layer: &str, current: u64, total: u64| {
            format!(
                r#"{{"status":"Downloading","progressDetail":{{"current":{current},"total":{total}}},"id":"{layer}"}}"#
            )
        };
        assert_eq!(download.read("Initialising download for the app: x..."), None);
        assert_eq!(download.read(&record("a", 10, 100)), Some((10, 100)));
        assert_eq!(download.read(&record("a", 12, 100)), None, "less than a step");
        let both = format!("{}\n{}", record("a", 60, 100), record("b", 50, 100));
        assert_eq!(download.read(&both), Some((110, 200)));
        assert_eq!(download.read(&record("c", 0, 1000)), None, "falling is no news");
        let done = r#"{"status":"Pull complete","progressDetail":{},"id":"c"}"#;
        assert_eq!(download.read(done), Some((1110, 1200)));
        for odd in ["{", "{}", r#"{"id":5}"#, r#"{"id":"z","status":"Downloading"}"#] {
            assert_eq!(download.read(odd), None, "{odd}");
        }
        assert_eq!(percent(5, 0), 0);
    }
}
