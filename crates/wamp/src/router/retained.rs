//! Retained events: what a topic's subscribers get first, if they ask for it (`wamp-interop.md` 3.4, case R-P10).
//!
//! A topic keeps its last event and, beside it, the last one that was not for everybody: whoever may not have that gets
//! the other one. Bounded in events and bytes, the oldest give way. Knows nothing of sessions and subscriptions.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::audience::Audience;
use super::pattern::MatchPolicy;
use super::permission::fixed_part;
use crate::Id;
use crate::codec::{Codec, CodecError};
use crate::payload::Payload;
use crate::value::Dict;

/// One event as it was published.
#[derive(Clone, Debug)]
pub(super) struct RetainedEvent {
    pub(super) publication: Id,
    /// The publisher, unless it gets its own events.
    pub(super) skip: Option<Id>,
    pub(super) audience: Audience,
    /// Identity of the publisher, if disclosed.
    pub(super) details: Dict,
    pub(super) payload: Payload,
}

#[derive(Debug)]
struct Kept {
    age: u64,
    bytes: usize,
    event: RetainedEvent,
}

/// The retained events of a realm.
#[derive(Debug)]
pub(super) struct Retained {
    max_events: usize,
    max_bytes: usize,
    /// Per topic at most two events, the older one first.
    topics: BTreeMap<String, Vec<Kept>>,
    /// Topic of every event, the oldest first.
    ages: BTreeMap<u64, String>,
    next_age: u64,
    bytes: usize,
}

/// What became of an event that was to be retained.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It is kept; this many others had to go for it.
    Kept {
        gone: u64,
    },
    TooLarge,
}

impl Retained {
    pub(super) fn new(max_events: usize, max_bytes: usize) -> Retained {
        Retained {
            max_events,
            max_bytes,
            topics: BTreeMap::new(),
            ages: BTreeMap::new(),
            next_age: 0,
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ages.len()
    }

    /// Keeps an event of `topic`.
    pub(super) fn keep(&mut self, topic: &str, mut event: RetainedEvent) -> Keeping {
        let Ok(payload) = compact(&event.payload) else {
            return Keeping::TooLarge;
        };
        event.payload = payload;
        let bytes = topic.len() + event.payload.encoded_len();
        if bytes > self.max_bytes || self.max_events == 0 {
            return Keeping::TooLarge;
        }
        // An event for everybody makes all earlier ones obsolete, one for a few only the last one for a few.
        let everybody = event.audience.is_everybody();
        let obsolete: Vec<u64> = self.topics.get(topic).map_or_else(Vec::new, |kept| {
            kept.iter()
                .filter(|kept| everybody || !kept.event.audience.is_everybody())
                .map(|kept| kept.age)
                .collect()
        });
        for age in obsolete {
            self.remove(age);
        }
        let mut gone = 0;
        while self.len() >= self.max_events || self.bytes + bytes > self.max_bytes {
            let Some((oldest, _)) = self.ages.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            self.remove(oldest);
            gone += 1;
        }
        let age = self.next_age;
        self.next_age += 1;
        self.bytes += bytes;
        self.ages.insert(age, topic.to_owned());
        self.topics
            .entry(topic.to_owned())
            .or_default()
            .push(Kept { age, bytes, event });
        Keeping::Kept { gone }
    }

    fn remove(&mut self, age: u64) {
        let Some(topic) = self.ages.remove(&age) else {
            return;
        };
        if let Some(kept) = self.topics.get_mut(&topic) {
            if let Some(position) = kept.iter().position(|kept| kept.age == age) {
                self.bytes -= kept.remove(position).bytes;
            }
            if kept.is_empty() {
                self.topics.remove(&topic);
            }
        }
    }

    /// For every topic that matches, in alphabetical order, the newest event that `admits` lets through.
    pub(super) fn matching(
        &self,
        policy: MatchPolicy,
        pattern: &str,
        admits: impl Fn(&str, &RetainedEvent) -> bool,
    ) -> Vec<(&str, &RetainedEvent)> {
        let fixed = fixed_part(policy, pattern).unwrap_or(pattern);
        self.topics
            .range::<str, _>((std::ops::Bound::Included(fixed), std::ops::Bound::Unbounded))
            .take_while(|(topic, _)| match policy {
                MatchPolicy::Exact => *topic == pattern,
                MatchPolicy::Prefix | MatchPolicy::Wildcard => topic.starts_with(fixed),
            })
            .filter(|(topic, _)| policy != MatchPolicy::Wildcard || matches_wildcard(pattern, topic))
            .filter_map(|(topic, kept)| {
                let mut newest_first = kept.iter().rev().map(|kept| &kept.event);
                newest_first
                    .find(|event| admits(topic, event))
                    .map(|event| (topic.as_str(), event))
            })
            .collect()
    }
}

fn matches_wildcard(pattern: &str, topic: &str) -> bool {
    let mut components = topic.split('.');
    pattern.split('.').all(|wanted| {
        components
            .next()
            .is_some_and(|component| wanted.is_empty() || wanted == component)
    }) && components.next().is_none()
}

/// The payload in memory of its own: a slice would keep the frame it came in.
fn compact(payload: &Payload) -> Result<Payload, CodecError> {
    Ok(match payload {
        Payload::Empty => Payload::Empty,
        Payload::Raw { codec, args, kwargs } => Payload::Raw {
            codec: *codec,
            args: Bytes::copy_from_slice(args),
            kwargs: Bytes::copy_from_slice(kwargs),
        },
        values @ Payload::Values { .. } => Codec::MessagePack.encode_payload(values)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn event(publication: Id, options: serde_json::Value) -> RetainedEvent {
        let Value::Dict(options) = Value::from(options) else {
            panic!("not options")
        };
        RetainedEvent {
            publication,
            skip: None,
            audience: Audience::from_options(&options).unwrap(),
            details: Dict::new(),
            payload: Payload::from_args(vec!["x".repeat(90).into()]),
        }
    }

    fn found(retained: &Retained, policy: MatchPolicy, pattern: &str) -> Vec<Id> {
        retained
            .matching(policy, pattern, |_, _| true)
            .into_iter()
            .map(|(_, event)| event.publication)
            .collect()
    }

    #[test]
    fn topics_are_found_by_every_kind_of_pattern() {
        let mut retained = Retained::new(10, 1 << 20);
        for (publication, topic) in (1..).zip(["a.b", "a.b.c", "a.bb", "a.x.c", "b", "a.x.c.d"]) {
            retained.keep(topic, event(publication, serde_json::json!({})));
        }
        assert_eq!(found(&retained, MatchPolicy::Exact, "a.b"), vec![1]);
        assert_eq!(found(&retained, MatchPolicy::Exact, "a"), Vec::<Id>::new());
        assert_eq!(found(&retained, MatchPolicy::Prefix, "a.b"), vec![1, 2, 3]);
        assert_eq!(found(&retained, MatchPolicy::Prefix, "").len(), 6);
        assert_eq!(found(&retained, MatchPolicy::Wildcard, "a..c"), vec![2, 4]);
        assert_eq!(found(&retained, MatchPolicy::Wildcard, "."), vec![1, 3]);
    }

    #[test]
    fn the_last_event_wins_and_one_for_a_few_does_not_hide_the_one_for_all() {
        let mut retained = Retained::new(10, 1 << 20);
        retained.keep("t", event(1, serde_json::json!({})));
        retained.keep("t", event(2, serde_json::json!({"eligible": [7]})));
        retained.keep("t", event(3, serde_json::json!({"eligible": [8]})));
        assert_eq!(
            (retained.len(), found(&retained, MatchPolicy::Exact, "t")),
            (2, vec![3])
        );
        let others = retained.matching(MatchPolicy::Exact, "t", |_, event| event.audience.is_everybody());
        assert_eq!(others[0].1.publication, 1);
        retained.keep("t", event(4, serde_json::json!({})));
        assert_eq!(
            (retained.len(), found(&retained, MatchPolicy::Exact, "t")),
            (1, vec![4])
        );
    }

    #[test]
    fn the_oldest_give_way_when_events_or_bytes_run_out() {
        let mut retained = Retained::new(2, 1 << 20);
        for (publication, topic) in (1..).zip(["a", "b", "c"]) {
            let gone = u64::from(publication == 3);
            let kept = retained.keep(topic, event(publication, serde_json::json!({})));
            assert_eq!(kept, Keeping::Kept { gone });
        }
        assert_eq!(found(&retained, MatchPolicy::Prefix, ""), vec![2, 3]);
        // An event weighs a little less than 100 bytes.
        let mut retained = Retained::new(100, 250);
        for (publication, topic) in (1..).zip(["a", "b", "c"]) {
            retained.keep(topic, event(publication, serde_json::json!({})));
        }
        assert_eq!(found(&retained, MatchPolicy::Prefix, ""), vec![2, 3]);
        let mut large = event(4, serde_json::json!({}));
        large.payload = Payload::from_args(vec!["x".repeat(300).into()]);
        assert_eq!(retained.keep("d", large), Keeping::TooLarge);
        assert_eq!(retained.len(), 2, "nothing had to go for it");
        for age in retained.ages.keys().copied().collect::<Vec<_>>() {
            retained.remove(age);
        }
        assert_eq!((retained.bytes, retained.topics.len()), (0, 0));
    }
}
