//! Where reading goes on.

use super::*;
use crate::engine::lines::nanoseconds;

#[test]
fn moments_survive_the_way_to_docker_and_back() {
    assert_eq!(
        nanoseconds("2026-08-04T09:12:04.000000042Z")
            .map(docker_time)
            .as_deref(),
        Some("1785834724.000000042")
    );
    assert_eq!(nanoseconds("hello"), None);
}

#[test]
fn behind_the_last_line_that_is_known_all_are_new_although_the_clock_was_set_back() {
    let at = |nanoseconds, count| Some(Position { nanoseconds, count });
    let mut skip = Skip::to(Some(Cursor {
        container_id: "a".to_owned(),
        nanoseconds: 1_000,
        count: 1,
    }));
    assert!(!skip.is_new(at(900, 1)) && !skip.is_new(at(1_000, 1)));
    assert!(skip.is_new(at(5, 1)) && !skip.has_lost_its_place() && skip.is_new(at(1_000, 1)));
}

#[test]
fn a_line_that_does_not_come_again_leaves_a_place_that_is_lost() {
    let at = |nanoseconds, count| Some(Position { nanoseconds, count });
    let of_line = |count| Cursor {
        container_id: "a".to_owned(),
        nanoseconds: 7,
        count,
    };
    let first_new = |cursor: Cursor, log: &[u64]| {
        let (mut skip, mut walk) = (Skip::to(Some(cursor)), Walk::default());
        for moment in log {
            if skip.is_new(walk.next(Some(*moment))) {
                return Some(skip.has_lost_its_place());
            }
        }
        None
    };
    assert_eq!(first_new(of_line(1), &[7, 8]), Some(false));
    assert_eq!(first_new(of_line(1), &[8, 9]), Some(true));
    assert_eq!(first_new(of_line(1), &[7]), None, "nothing is new");
    assert_eq!(first_new(of_line(2), &[7, 7, 7]), Some(false));
    assert_eq!(
        first_new(of_line(2), &[7, 8]),
        Some(false),
        "some of the moment is there"
    );
    assert_eq!(
        first_new(of_line(1), &[3, 9]),
        Some(true),
        "another cursor is older"
    );
    let moment = Cursor::from_moment(7);
    assert_eq!(first_new(moment, &[8]), Some(false), "no line stands there");
    let mut skip = Skip::to(Some(of_line(1)));
    assert!(skip.is_new(at(8, 1)) && skip.has_lost_its_place());
    assert!(skip.is_new(at(9, 1)) && !skip.has_lost_its_place(), "said once");
}

#[test]
fn after_the_first_new_line_nothing_is_skipped_whatever_its_timestamp_says() {
    let at = |nanoseconds, count| Some(Position { nanoseconds, count });
    let mut skip = Skip::to(Some(Cursor {
        container_id: "a".to_owned(),
        nanoseconds: 7,
        count: 2,
    }));
    assert!(!skip.is_new(at(7, 1)) && !skip.is_new(at(7, 2)) && skip.is_new(at(7, 3)));
    assert!(skip.is_new(at(6, 1)), "two streams may be a little out of order");
    assert!(Skip::to(None).is_new(None));
}
