//! What a bulk answer of the backend means for apps that are here (`app-lifecycle.md` 7.9), pure. Nothing is deleted
//! without proof: an answer that would take much away must be confirmed by a second one (weakness W2).

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::AppId;
use tokio::time::Instant;

/// An answer that removes much counts only when one at least this much later says the same.
pub(crate) const CONFIRM_AFTER: Duration = Duration::from_secs(180);

/// What to do about apps that an answer does not list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// These are gone.
    Remove(BTreeSet<AppId>),
    /// Nothing yet: ask the backend again at this moment.
    Confirm(Instant),
}

/// Unlisted apps waiting for a second answer.
#[derive(Debug, Default)]
pub(crate) struct Confirmation {
    pending: Option<(Instant, BTreeSet<AppId>)>,
}

impl Confirmation {
    /// `known` counts the apps of which something is here, `missing` are those of them that a complete answer does not list.
    /// `empty`: it lists none at all, which is no proof by itself even when no app is known.
    pub(crate) fn judge(
        &mut self,
        known: usize,
        missing: BTreeSet<AppId>,
        empty: bool,
        now: Instant,
    ) -> Verdict {
        let all = missing.len() == known && !missing.is_empty();
        let most = known >= 3 && missing.len() * 2 > known;
        if !(all || most || empty) {
            self.pending = None;
            return Verdict::Remove(missing);
        }
        match &mut self.pending {
            Some((since, before)) => {
                // Only what both answers miss is confirmed.
                let confirmed: BTreeSet<AppId> = missing.intersection(before).copied().collect();
                let due = *since + CONFIRM_AFTER;
                if now < due {
                    *before = confirmed;
                    return Verdict::Confirm(due);
                }
                self.pending = None;
                Verdict::Remove(confirmed)
            }
            None => {
                self.pending = Some((now, missing));
                Verdict::Confirm(now + CONFIRM_AFTER)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Stage;

    use super::*;

    fn apps(keys: impl IntoIterator<Item = u64>) -> BTreeSet<AppId> {
        keys.into_iter()
            .map(|key| AppId {
                key,
                stage: Stage::Prod,
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_missing_apps_of_many_go_at_once() {
        let mut confirmation = Confirmation::default();
        let now = Instant::now();
        assert_eq!(
            confirmation.judge(4, apps([1, 2]), false, now),
            Verdict::Remove(apps([1, 2]))
        );
        assert_eq!(
            confirmation.judge(2, apps([1]), false, now),
            Verdict::Remove(apps([1]))
        );
        assert_eq!(
            confirmation.judge(0, apps([]), false, now),
            Verdict::Remove(apps([]))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_everything_must_be_repeated_later() {
        for (known, missing) in [(1, apps([1])), (3, apps([1, 2])), (5, apps([1, 2, 3]))] {
            let mut confirmation = Confirmation::default();
            let now = Instant::now();
            let due = now + CONFIRM_AFTER;
            assert_eq!(
                confirmation.judge(known, missing.clone(), false, now),
                Verdict::Confirm(due)
            );
            // Repeated too soon: a flapping link is no proof.
            let soon = now + Duration::from_secs(5);
            assert_eq!(
                confirmation.judge(known, missing.clone(), false, soon),
                Verdict::Confirm(due)
            );
            assert_eq!(
                confirmation.judge(known, missing.clone(), false, due),
                Verdict::Remove(missing)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_answer_must_be_repeated_even_where_no_app_is_known() {
        for (known, missing) in [(0, apps([])), (2, apps([1]))] {
            let mut confirmation = Confirmation::default();
            let now = Instant::now();
            let due = now + CONFIRM_AFTER;
            let first = confirmation.judge(known, missing.clone(), true, now);
            assert_eq!(first, Verdict::Confirm(due));
            let second = confirmation.judge(known, missing.clone(), true, due);
            assert_eq!(second, Verdict::Remove(missing));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_lists_them_again_withdraws_the_first() {
        let mut confirmation = Confirmation::default();
        let now = Instant::now();
        confirmation.judge(3, apps([1, 2, 3]), false, now);
        assert_eq!(
            confirmation.judge(3, apps([]), false, now),
            Verdict::Remove(apps([]))
        );
        let later = now + CONFIRM_AFTER;
        assert_eq!(
            confirmation.judge(3, apps([1, 2, 3]), false, later),
            Verdict::Confirm(later + CONFIRM_AFTER)
        );
    }
}
