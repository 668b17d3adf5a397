//! What a shelf of zygotes decides.

use super::*;

const APP: AppId = AppId(1);

fn id(sequence: u32) -> RunnerId {
    RunnerId { boot: 1, sequence }
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_micros(secs * 1_000_000)
}

fn ready(shelf: &mut Shelf, zygote: RunnerId, app: AppId, now: Timestamp, bytes: u64) {
    assert!(shelf.making(zygote, app, "key", now));
    assert_eq!(shelf.ready(zygote, PathBuf::from("s"), bytes), Some(app));
}

fn chosen(shelf: &mut Shelf, runner: u32, app: AppId, key: &str, now: Timestamp) -> Choice {
    shelf.choose(id(runner), Wish::for_test(app, key), now).0
}

#[test]
fn the_first_start_is_learned_from_and_later_ones_are_forked() {
    let mut shelf = Shelf::default();
    assert_eq!(chosen(&mut shelf, 1, APP, "key", at(1)), Choice::Learn);
    assert!(shelf.take_wish(id(1)).is_some());
    assert!(shelf.take_wish(id(1)).is_none(), "it is granted once");
    shelf.making(id(100), APP, "key", at(2));
    assert_eq!(chosen(&mut shelf, 2, APP, "key", at(2)), Choice::Plainly);
    assert_eq!(shelf.ready(id(100), PathBuf::from("s"), 5), Some(APP));
    let fork = Choice::Fork { zygote: id(100), socket: PathBuf::from("s") };
    assert_eq!(chosen(&mut shelf, 3, APP, "key", at(3)), fork);
    let (choice, outdated) = shelf.choose(id(4), Wish::for_test(APP, "other"), at(4));
    assert_eq!((choice, outdated), (Choice::Learn, vec![id(100)]));
}

#[test]
fn the_one_used_longest_ago_goes_first_and_pauses() {
    let (first, second) = (AppId(1), AppId(2));
    let mut shelf = Shelf::default();
    ready(&mut shelf, id(100), first, at(1), 60);
    ready(&mut shelf, id(101), second, at(2), 50);
    assert_eq!(shelf.over_budget(110, at(3)), None);
    chosen(&mut shelf, 1, first, "key", at(3));
    assert_eq!(shelf.over_budget(100, at(4)), Some(id(101)));
    assert_eq!(shelf.retire(id(101)), Some(PathBuf::from("s")));
    assert_eq!(shelf.over_budget(100, at(4)), None, "who retires does not count");
    assert_eq!(chosen(&mut shelf, 2, second, "key", at(5)), Choice::Plainly);
    let later = at(5) + PAUSE;
    assert_eq!(chosen(&mut shelf, 3, second, "key", later), Choice::Learn);
}

#[test]
fn a_zygote_that_was_never_fit_is_not_made_again() {
    let mut shelf = Shelf::default();
    shelf.making(id(100), APP, "key", at(1));
    shelf.ended(id(100), "it has 3 threads".to_owned(), true, at(1));
    assert_eq!(chosen(&mut shelf, 1, APP, "key", at(2)), Choice::Plainly);
    assert!(shelf.describe(APP).unwrap().ends_with("it has 3 threads"));
    assert_eq!(chosen(&mut shelf, 2, APP, "new code", at(2)), Choice::Learn);
}

#[test]
fn an_app_whose_zygotes_do_not_fork_gets_none_for_a_while() {
    let mut shelf = Shelf::default();
    for miss in 0..MISSES_MAX {
        let (zygote, runner) = (id(100 + miss), id(miss));
        assert_eq!(chosen(&mut shelf, 50 + miss, APP, "key", at(1)), Choice::Learn);
        ready(&mut shelf, zygote, APP, at(1), 5);
        chosen(&mut shelf, miss, APP, "key", at(2));
        assert_eq!(shelf.spawned(runner, Rung::ImageCached, at(3)), Some(zygote));
        shelf.retire(zygote);
    }
    assert_eq!(chosen(&mut shelf, 90, APP, "key", at(4)), Choice::Plainly);
    assert_eq!(chosen(&mut shelf, 91, APP, "key", at(3) + PAUSE), Choice::Learn);
}

#[test]
fn a_zygote_whose_runners_never_become_ready_makes_way_for_longer_each_time() {
    let mut shelf = Shelf::default();
    let mut now = at(1);
    for pauses in 0..9 {
        let (zygote, runner) = (id(100 + pauses), id(pauses));
        ready(&mut shelf, zygote, APP, now, 5);
        for of_burst in [pauses, 50 + pauses] {
            chosen(&mut shelf, of_burst, APP, "key", now);
            assert_eq!(shelf.spawned(id(of_burst), Rung::Zygote, now), None);
        }
        assert_eq!(shelf.runner_failed(runner, now), Some(zygote));
        shelf.retire(zygote);
        assert_eq!(shelf.runner_failed(id(50 + pauses), now), None, "the first has said it");
        let pause = (PAUSE * (1 << pauses)).min(PAUSE_MAX);
        let before = now + pause.checked_sub(Duration::from_micros(1)).unwrap();
        assert_eq!(chosen(&mut shelf, 90, APP, "key", before), Choice::Plainly);
        now = now + pause;
        assert_eq!(chosen(&mut shelf, 91, APP, "key", now), Choice::Learn);
    }
}

#[test]
fn a_zygote_that_has_proven_its_worth_is_forgiven_one_failure() {
    let mut shelf = Shelf::default();
    ready(&mut shelf, id(100), APP, at(1), 5);
    for runner in 1..=5 {
        chosen(&mut shelf, runner, APP, "key", at(2));
    }
    for (good, bad) in [(1, 2), (3, 4)] {
        shelf.take_wish(id(good));
        assert_eq!(shelf.runner_failed(id(bad), at(3)), None);
    }
    assert_eq!(shelf.runner_failed(id(5), at(4)), Some(id(100)), "two in a row");
    assert_eq!(shelf.runner_failed(id(77), at(4)), None, "it was not forked");
}

#[test]
fn one_is_made_for_a_burst_and_none_after_the_end() {
    let mut shelf = Shelf::default();
    for runner in [1, 2] {
        assert_eq!(chosen(&mut shelf, runner, APP, "key", at(1)), Choice::Learn);
        assert!(shelf.take_wish(id(runner)).is_some());
    }
    assert!(shelf.making(id(100), APP, "key", at(2)));
    assert!(!shelf.making(id(101), APP, "key", at(2)), "it is being made");
    shelf.ended(id(100), "no memory".to_owned(), false, at(3));
    assert!(!shelf.making(id(102), APP, "key", at(3)), "a moment later it would fail as well");
    assert!(shelf.making(id(103), APP, "key", at(3) + PAUSE), "what has failed may pass");
    assert_eq!(shelf.close(), [id(103)]);
    assert!(!shelf.making(id(104), AppId(2), "key", at(4)));
}

#[test]
fn a_retiring_zygote_waits_for_its_last_runner() {
    let mut shelf = Shelf::default();
    ready(&mut shelf, id(100), APP, at(1), 5);
    for runner in [1, 2] {
        chosen(&mut shelf, runner, APP, "key", at(2));
    }
    assert_eq!(shelf.spawned(id(1), Rung::Zygote, at(3)), None);
    assert_eq!(shelf.spawned(id(2), Rung::ImageCached, at(3)), Some(id(100)), "it did not fork");
    assert!(shelf.retire(id(100)).is_some());
    assert!(shelf.is_used(id(100)));
    assert_eq!(shelf.runner_ended(id(2)), None);
    assert_eq!(shelf.runner_ended(id(1)), Some(id(100)));
}
