//! The stories that every router must carry, at Crossbar.io: one node, one story after the other.

use super::plane::Plane;
use super::{callers, connect, lifetime, load, procedures};

#[tokio::test]
async fn crossbar_carries_the_same_stories() {
    let plane = Plane::crossbar();
    connect::the_wire_shows_the_order_of_the_contract_on(&plane).await;
    connect::the_testament_is_published_when_the_agent_is_killed_on(&plane).await;
    connect::the_first_procedure_greets_whatever_is_asked_on(&plane).await;
    procedures::results_have_the_shapes_of_the_contract_on(&plane).await;
    procedures::an_archive_is_uploaded_and_viewers_see_how_far_it_is_on(&plane).await;
    load::two_hundred_calls_at_once_are_all_answered_on(&plane).await;
    callers::each_gate_asks_for_its_privilege_and_denies_in_its_words_on(&plane).await;
    callers::people_may_not_do_what_is_the_backends_on(&plane).await;
    lifetime::the_move_on(&plane).await;
}
