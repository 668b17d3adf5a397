//! Which of two runners a request goes to, by what its caller asks for and what the runners said last.

use glowplug_testkit::eventually;

use super::ground::{Fields, Ground, SOON, start};

/// One request for each runner at a time, so that two at once are on two runners.
const APP: &str =
    "[apps.\"local/app\"]\n$APP\nmin_concurrency = 2\nmax_concurrency = 2\nkeep_alive = 60\n";

/// A node with two runners, and their processes: the first said `hints[0]` with its last answer, the second,
/// which answered later, `hints[1]`.
async fn two(ground: &Ground, round: usize, hints: [Option<&str>; 2]) -> [u64; 2] {
    let gates = [0, 1].map(|at| ground.file(&format!("gate-{round}-{at}")));
    let mut held = Vec::new();
    for (gate, hints) in gates.iter().zip(hints) {
        let said = hints.map(|hints| format!("&hints={hints}")).unwrap_or_default();
        let id =
            ground.submitted("app", &format!("/gate?file={}{said}", gate.display()), &[]).await;
        ground.at_work(&id).await;
        held.push(id);
    }
    let mut runners = [0; 2];
    for (at, gate) in gates.iter().enumerate() {
        std::fs::write(gate, "").unwrap();
        let (_, answer) = ground.completed("app", &held[at]).await;
        runners[at] = answer.body["pid"].as_u64().unwrap();
    }
    assert_ne!(runners[0], runners[1], "each held its place");
    runners
}

const A: Fields = &[("x-fal-runner-hint", "a")];

/// What the two runners said, what the caller asks for, and which it gets. Without a reason for another it is
/// the one that was used last, which is the second.
const ROWS: &[([Option<&str>; 2], Fields, usize)] = &[
    // No hints: nobody said any, so that none can be told from silence.
    ([None, None], A, 1),
    ([Some("a"), Some("b")], &[], 1),
    ([Some("a"), Some("b")], A, 0),
    ([Some("b"), Some("a")], A, 1),
    ([Some("x,a,y"), Some("b")], A, 0),
    ([Some("x, a"), Some("b")], A, 0),
    // Exactly this text.
    ([Some("ab"), Some("b")], A, 1),
    ([Some("A"), Some("b")], A, 1),
    // An empty list accepts any; one that names it is better.
    ([Some(""), Some("b")], A, 0),
    ([Some("a"), Some("")], A, 0),
    ([Some("b"), Some("b")], &[("x-fal-runner-hint", "unknown")], 1),
    ([Some("b"), Some("c")], &[("x-fal-runner-hint", "c")], 1),
    ([Some("b"), Some("c")], &[("x-fal-runner-hint", "b")], 0),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_runner_that_has_the_hint_is_preferred() {
    let ground = start(APP);
    for (round, (hints, fields, expected)) in ROWS.iter().enumerate() {
        // Queued and direct ones alike. The answer has no hints, which leaves those that were said before.
        for queued in [true, false] {
            let runners = two(&ground, 2 * round + usize::from(queued), *hints).await;
            let answer = if queued {
                let id = ground.submitted("app", "/echo", fields).await;
                ground.completed("app", &id).await.1
            } else {
                ground.run("app", "/echo", fields).await
            };
            let got = answer.body["pid"].as_u64();
            assert_eq!(got, Some(runners[*expected]), "{hints:?} {fields:?} queued: {queued}");
        }
    }
}

/// A session stays where it is known: what a runner says with an answer is what the next caller names.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay_with_their_runners() {
    const ONE: Fields = &[("x-fal-runner-hint", "session-1")];
    const TWO: Fields = &[("x-fal-runner-hint", "session-2")];
    let ground = start(APP);
    let [one, two] = two(&ground, 0, [Some("session-1"), Some("session-2")]).await;
    for (session, runner) in
        [(ONE, one), (ONE, one), (TWO, two), (ONE, one), (TWO, two), (TWO, two), (ONE, one)]
    {
        let hints = session[0].1;
        let path = format!("/answer?status=200&runner-hints={hints},other");
        let answer = ground.run("app", &path, session).await;
        assert_eq!(answer.header("x-fal-runner-hints"), Some(format!("{hints},other").as_str()));
        let asked = ground.asked(&answer.id());
        assert_eq!(asked[0].pid, runner, "{hints}");
    }
}

/// A hint never waits: with its runner taken the other one serves, and its own again once it is free.
#[tokio::test(flavor = "multi_thread")]
async fn a_taken_runner_is_not_waited_for() {
    let ground = start(APP);
    let [first, second] = two(&ground, 0, [Some("a"), Some("b")]).await;
    let gate = ground.file("held");
    let held = ground.submitted("app", &format!("/gate?file={}", gate.display()), A).await;
    ground.at_work(&held).await;
    assert_eq!(ground.asked(&held)[0].pid, first);
    let other = ground.run("app", "/echo", A).await;
    assert_eq!(other.body["pid"].as_u64(), Some(second));
    std::fs::write(gate, "").unwrap();
    ground.completed("app", &held).await;
    let again = ground.run("app", "/echo", A).await;
    assert_eq!(again.body["pid"].as_u64(), Some(first));
    eventually("the journal says why", SOON, || async {
        let why = ground.get(&format!("/api/v1/why/{held}")).await;
        why.body.to_string().contains("has its hint").then_some(())
    })
    .await;
}
