//! One node that keeps its queue on a server.

use super::ground::{Caller, Ground};

async fn assert_cancelled(caller: &Caller, id: &str) {
    let answer = caller.completed(id).await;
    let seen = (answer.status, answer.error_type.as_deref());
    assert_eq!(seen, (499, Some("client_cancelled")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_loses_nothing_over_a_stop_and_a_kill() {
    let mut ground = Ground::start(1).await;
    let caller = ground.caller(0);
    let done = caller.submit(&format!("/{}", ground.calls.query()), "\"first\"").await;
    let answer = caller.completed(&done).await;
    assert_eq!(answer.body["echo"], "\"first\"", "{answer:?}");
    assert_eq!(ground.calls.of(&done).await[0]["payload"], answer.body);

    let mut cancelled = Vec::new();
    for life in ["stopped", "killed"] {
        let running = caller.submit("/?seconds=4", life).await;
        ground.wait_for_run(&running).await;
        let called = caller.submit(&format!("/{}", ground.calls.query()), life).await;
        let waiting = caller.submit("/", life).await;
        let removed = caller.submit("/", life).await;
        assert_eq!(caller.about(&removed, "/cancel").await.unwrap().status, 200);
        cancelled.push(removed);
        match life {
            "stopped" => {
                let code = tokio::task::block_in_place(|| ground.nodes[0].stop());
                assert_eq!(code, Some(0), "{}", ground.nodes[0].log());
            }
            _ => ground.nodes[0].kill(),
        }
        ground.start_again(0);
        for id in [&running, &called, &waiting] {
            let after = caller.completed(id).await;
            assert_eq!((after.status, &after.body["echo"]), (200, &life.into()), "{after:?}");
        }
        assert_eq!(ground.calls.of(&called).await[0]["payload"]["echo"], life);
        // What was there before is there still, as it was.
        assert_eq!(caller.about(&done, "").await.unwrap().body, answer.body);
        for id in &cancelled {
            assert_cancelled(&caller, id).await;
            assert_eq!(ground.runs(id), 0);
        }
    }
    ground.end();
}
