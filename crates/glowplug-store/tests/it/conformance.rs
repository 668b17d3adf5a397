//! One suite of behaviour, run against every store.

pub(crate) mod answers;
pub(crate) mod owners;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod repeats;
pub(crate) mod retention;
pub(crate) mod webhooks;
pub(crate) mod whole;

use glowplug_store::Bounds;

/// Small enough to be reached.
pub(crate) const BOUNDS: Bounds = Bounds { request_log_lines_max: 5, journal_records_max: 10 };

/// Hands the list of all behaviours to the macro `$run`, which makes tests of them for its store.
macro_rules! every_behaviour {
    ($run:ident) => {
        $run! {
            queue::boots_count_up,
            queue::a_request_comes_back_as_it_was,
            queue::an_id_is_accepted_once,
            queue::oversized_bodies_are_refused,
            queue::pending_requests_keep_their_order,
            queue::pending_pages_can_outlive_their_mark,
            queue::a_pending_request_can_be_read_alone,
            queue::those_ahead_are_counted_per_app,
            answers::only_the_first_answer_counts,
            answers::racing_answers_leave_one,
            answers::an_answer_comes_back_as_it_was,
            answers::a_failed_request_keeps_its_error,
            answers::logs_keep_their_order_and_limit,
            answers::what_ended_last_is_listed_first,
            owners::a_new_start_takes_over_what_the_last_one_left,
            owners::an_answer_of_an_older_start_does_not_count,
            owners::what_is_taken_over_is_told_page_by_page,
            owners::attempts_are_known_to_whoever_takes_over,
            owners::nothing_is_taken_over_that_is_complete_or_ones_own,
            repeats::a_repeated_submit_finds_the_first,
            repeats::a_key_used_for_another_request_is_refused,
            repeats::keys_belong_to_a_caller_and_an_app,
            repeats::a_key_lasts_as_long_as_its_request,
            repeats::racing_repeats_leave_one,
            repeats::a_long_key_is_refused,
            retention::purge_takes_the_oldest_answers_and_their_logs,
            retention::purge_keeps_the_newest_requests,
            retention::purge_keeps_the_newest_bytes,
            retention::a_payload_goes_with_the_end_if_its_caller_wants,
            webhooks::a_webhook_is_due_when_its_request_ends,
            webhooks::a_webhook_is_given_to_one_at_a_time,
            webhooks::calls_are_logged_and_put_off,
            webhooks::what_was_delivered_stays_so,
            webhooks::the_delivery_log_keeps_the_newest,
            webhooks::a_purged_request_takes_its_webhook_along,
            whole::what_is_exported_can_be_imported,
            whole::an_import_happens_once,
            whole::an_imported_request_waits_for_an_owner,
            whole::an_import_does_not_take_a_key_away,
            whole::exports_come_in_pages,
            registry::settings_are_replaced_and_deleted,
            registry::the_first_claim_of_a_setting_stays,
            registry::keys_are_replaced_and_deleted,
            registry::the_journal_is_searched_by_subject,
            registry::the_journal_drops_its_oldest,
            registry::the_check_succeeds,
        }
    };
}

macro_rules! in_memory {
    ($($subject:ident::$behaviour:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $behaviour() {
                let store = glowplug_store::MemoryStore::with_bounds(super::BOUNDS);
                super::$subject::$behaviour(std::sync::Arc::new(store)).await;
            })+
        }
    };
}
every_behaviour!(in_memory);

macro_rules! on_disk {
    ($($subject:ident::$behaviour:ident),+ $(,)?) => {
        mod sqlite {
            use crate::samples::fast;

            $(#[tokio::test]
            async fn $behaviour() {
                let directory = tempfile::tempdir().unwrap();
                let options = glowplug_store::SqliteOptions { bounds: super::BOUNDS, ..fast() };
                let path = directory.path().join("store.db");
                let store = glowplug_store::SqliteStore::open(&path, options).unwrap();
                super::$subject::$behaviour(store).await;
            })+
        }
    };
}
every_behaviour!(on_disk);
