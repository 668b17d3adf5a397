//! What must hold of the learner as a whole, whatever the traffic.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_000_000 + secs)
}

/// An app whose starts take 20 s and whose requests 20 s, at the given price.
fn learner(wait_price: f64) -> Learner {
    let mut learner = Learner::new(&Settings { wait_price, ..Settings::default() });
    learner.started(SECOND * 20);
    learner.served(SECOND * 20);
    learner
}

fn lifetime(learner: &Learner, level: u32) -> Duration {
    learner.kept(level, Timestamp::ZERO).why.lifetime
}

/// One request of `busy` seconds every `every` seconds; returns when the last one ended.
fn steady(learner: &mut Learner, times: u64, every: u64, busy: u64) -> Timestamp {
    let mut now = at(0);
    for nth in 0..times {
        learner.demand(at(nth * every), 1, 1);
        now = at(nth * every + busy);
        learner.demand(now, 0, 1);
    }
    now
}

#[test]
fn the_last_runner_lives_by_what_is_known_of_its_app() {
    for (times, every, from, to, bound) in [
        // One use: the floor, half of 20 s × 13.
        (1, 1, 130, 130, KeptBound::Floor),
        // Every hour: too seldom, whatever a start costs.
        (50, 3_600, 130, 130, KeptBound::Floor),
        // Every two minutes: beyond the next one.
        (50, 120, 131, 519, KeptBound::Returns),
        // Every minute: well beyond the next one, but no longer than twice of 20 s × 13.
        (50, 60, 500, 540, KeptBound::BreakEven),
        // Every two seconds, all day: memory alone would keep it for hours. One start among so many is worth half.
        (40_000, 2, 260, 290, KeptBound::BreakEven),
    ] {
        let mut learner = learner(12.0);
        let now = steady(&mut learner, times, every, 1);
        let kept = learner.kept(1, now);
        let found = kept.why.lifetime.as_secs();
        assert!((from..=to).contains(&found), "{times} × {every} s: {found} s");
        assert_eq!(kept.why.bound, bound, "{times} × {every} s");
        assert_eq!(kept.until, now + kept.why.lifetime);
    }
}

#[test]
fn the_longest_lifetime_is_never_exceeded() {
    let settings = Settings { keep_max: SECOND * 90, ..Settings::default() };
    let mut learner = Learner::new(&settings);
    steady(&mut learner, 10_000, 2, 1);
    let why = learner.kept(1, at(0)).why;
    assert_eq!((why.lifetime, why.bound), (SECOND * 90, KeptBound::Longest));
}

#[test]
fn a_runner_that_demand_never_asked_for_is_not_kept() {
    let mut learner = learner(12.0);
    let now = steady(&mut learner, 10, 60, 1);
    let kept = learner.kept(2, now);
    assert_eq!((kept.until, kept.why.bound), (now, KeptBound::NeverUsed));
}

#[test]
fn a_spare_is_wanted_while_the_app_wakes_and_no_longer() {
    let mut learner = learner(30.0);
    // Its user comes in bursts of ten requests, 30 s apart.
    for burst in 0..5 {
        for nth in 0..10 {
            learner.demand(at(burst * 40_000 + nth * 30), 1, 1);
            learner.demand(at(burst * 40_000 + nth * 30 + 20), 0, 1);
        }
    }
    let wakes = at(200_000);
    learner.demand(wakes, 1, 0);
    let Spare { until, why } = learner.spare(wakes).expect("the burst goes on");
    assert_eq!(until, wakes + SECOND * 40);
    assert!((0.05..0.9).contains(&why.chance), "{}", why.chance);
    // The next request takes it, and then none is left.
    learner.demand(wakes + SECOND * 25, 2, 2);
    assert!(learner.spare(wakes + SECOND * 25).is_none());
    learner.demand(wakes + SECOND * 30, 1, 2);
    assert!(learner.spare(wakes + SECOND * 30).is_some());
    assert!(learner.spare(until).is_none(), "its time is over");
}

#[test]
fn a_spare_is_not_started_for_what_comes_alone() {
    let mut learner = learner(30.0);
    let wake = |learner: &mut Learner, nth: u64| {
        learner.demand(at(nth * 40_000), 1, 0);
        let wanted = learner.spare(at(nth * 40_000)).is_some();
        learner.demand(at(nth * 40_000 + 40), 0, 1);
        wanted
    };
    let wanted: Vec<bool> = (0..20).map(|nth| wake(&mut learner, nth)).collect();
    assert!(wanted[0], "nothing is known yet");
    assert!(!wanted[10..].contains(&true), "{wanted:?}");
}

#[test]
fn a_spare_is_started_where_starts_differ() {
    let mut learner = learner(12.0);
    (0..20).for_each(|nth| learner.started(SECOND * if nth % 2 == 0 { 2 } else { 40 }));
    learner.demand(at(0), 1, 0);
    let spare = learner.spare(at(0)).expect("two starts are better than one");
    assert!((15..20).contains(&spare.why.sooner.as_secs()), "{:?}", spare.why.sooner);
}

#[test]
fn no_spare_for_an_app_that_is_awake_or_whose_starts_are_cheap_to_wait_for() {
    let mut awake = learner(12.0);
    awake.demand(at(0), 1, 1);
    assert!(awake.spare(at(0)).is_none());
    let mut cheap = learner(0.0);
    cheap.demand(at(0), 1, 0);
    assert!(cheap.spare(at(0)).is_none());
}

#[test]
fn a_stricter_budget_keeps_longer() {
    let mut lifetimes = Vec::new();
    for (wait, share) in [(30, 0.5), (10, 0.5), (10, 0.2), (10, 0.05)] {
        let budget = Some(Budget { wait: SECOND * wait, share });
        let mut learner = Learner::new(&Settings { budget, ..Settings::default() });
        for nth in 0..200 {
            learner.demand(at(nth * 100), 1, 1);
            learner.waited(SECOND * if nth % 3 == 0 { 20 } else { 0 });
            learner.demand(at(nth * 100 + 10), 0, 1);
        }
        lifetimes.push(lifetime(&learner, 1));
    }
    assert!(lifetimes.is_sorted(), "{lifetimes:?}");
    assert!(lifetimes[0] * 4 < lifetimes[3], "{lifetimes:?}");
}

#[test]
fn an_app_needs_little_memory() {
    assert!(size_of::<Learner>() <= 408, "{} bytes", size_of::<Learner>());
}

/// Demands over time: (seconds since the last, new demand, wait of a request, seconds of a start).
fn traffic() -> impl Strategy<Value = Vec<(u64, u32, u64, u64)>> {
    let calm = (0_u64..4_000, 0_u32..4, 0_u64..60, 1_u64..60);
    let wild = (0_u64..100_000, 0_u32..20_000, 0_u64..10_000, 0_u64..1_000);
    prop::collection::vec(prop_oneof![3 => calm, 1 => wild], 1..80)
}

/// Runs the traffic and looks at the learner after each step.
fn play(
    settings: &Settings,
    traffic: &[(u64, u32, u64, u64)],
    mut look: impl FnMut(&Learner, Timestamp, u32),
) {
    let mut learner = Learner::new(settings);
    let mut secs = 0;
    for (gap, demand, wait, start) in traffic {
        secs += gap;
        learner.demand(at(secs), *demand, if start % 2 == 0 { 0 } else { *demand });
        learner.started(SECOND * u32::try_from(*start).expect("small"));
        learner.served(SECOND * u32::try_from(*start).expect("small"));
        learner.waited(Duration::from_secs(*wait));
        look(&learner, at(secs), *demand);
    }
}

fn budget(share: f64) -> Settings {
    Settings { budget: Some(Budget { wait: SECOND * 10, share }), ..Settings::default() }
}

proptest! {
    #[test]
    fn lifetimes_and_spares_are_within_bounds(traffic in traffic(), price in 0.0..200.0_f64) {
        let settings = Settings { wait_price: price, ..Settings::default() };
        play(&settings, &traffic, |learner, now, demand| {
            for level in [1, 2, 3, 7, 8, 9, 100, 10_000] {
                let kept = learner.kept(level, now);
                assert!(kept.why.lifetime <= settings.keep_max);
                assert!(kept.until <= now + settings.keep_max);
                assert!(kept.why.worth >= kept.why.start / 2);
            }
            if let Some(Spare { until, why }) = learner.spare(now) {
                assert!(demand > 0 && now < until && until <= now + why.busy);
                assert!((0.0..=1.0).contains(&why.chance));
            }
            if let Some(wake) = learner.wake(now) {
                assert!(wake.at < wake.until && wake.until > now);
            }
        });
    }

    #[test]
    fn a_higher_price_never_shortens_a_lifetime(traffic in traffic(), low in 0.0..50.0_f64, more in 0.0..50.0_f64) {
        let lifetimes = |price| {
            let mut seen = Vec::new();
            play(&Settings { wait_price: price, ..Settings::default() }, &traffic, |learner, _, _| {
                seen.extend([1, 2, 3, 9].map(|level| lifetime(learner, level)));
            });
            seen
        };
        for (cheap, dear) in lifetimes(low).into_iter().zip(lifetimes(low + more)) {
            prop_assert!(cheap <= dear, "{cheap:?} {dear:?}");
        }
    }

    #[test]
    fn a_stricter_budget_never_shortens_a_lifetime(traffic in traffic(), strict in 0.0..0.5_f64, more in 0.0..0.5_f64) {
        let lifetimes = |share| {
            let mut seen = Vec::new();
            play(&budget(share), &traffic, |learner, _, _| {
                seen.extend([1, 2, 3, 9].map(|level| lifetime(learner, level)));
            });
            seen
        };
        for (lax, strict) in lifetimes(strict + more).into_iter().zip(lifetimes(strict)) {
            prop_assert!(lax <= strict, "{lax:?} {strict:?}");
        }
    }

    /// Requests at a fixed distance, as long as the app is kept warm between them: a runner that outlives
    /// one gap outlives all that follow.
    #[test]
    fn constant_load_does_not_flap(every in 2_u64..600, price in 1.0..60.0_f64) {
        let mut learner = learner(price);
        let mut outlived = Vec::new();
        for nth in 0..400 {
            learner.demand(at(nth * every), 1, 1);
            let ended = at(nth * every + 1);
            learner.demand(ended, 0, 1);
            outlived.push(learner.kept(1, ended).until >= at((nth + 1) * every));
        }
        // Rarity falls while the app becomes known, so it may stop being worth it, once.
        let changes = outlived.windows(2).filter(|pair| pair[0] != pair[1]).count();
        prop_assert!(changes <= 2, "{changes} changes");
    }

    #[test]
    fn the_same_calls_give_the_same_answers(traffic in traffic()) {
        let answers = || {
            let mut seen = Vec::new();
            play(&Settings::default(), &traffic, |learner, now, _| {
                seen.push((learner.kept(1, now), learner.kept(2, now), learner.spare(now), learner.wake(now)));
            });
            seen
        };
        prop_assert_eq!(answers(), answers());
    }
}
