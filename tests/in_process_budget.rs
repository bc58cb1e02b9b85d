//! What clusters of threads cost the test's process, and what is left of them: alone in its binary, because it counts.

use rclust::cluster::testing;
use rclust::cluster::{self, Context, EventKind, Pool, Reply, Supervisor};
use rclust_tests::{eventually, procfs};

struct Echo;

impl cluster::Worker for Echo {
    type Msg = Reply<u32>;
    type Args = ();
    async fn start((): (), _: &mut Context<Self>) -> cluster::Result<Self> {
        Ok(Echo)
    }
    async fn on_message(&mut self, reply: Reply<u32>, cx: &mut Context<Self>) -> cluster::Result<()> {
        reply.send(cx.id().incarnation.0);
        Ok(())
    }
}

fn descriptors() -> usize {
    procfs::descriptors(std::process::id()).len()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// Starts a cluster, has every worker answer, crashes one, waits for its successor, and ends; what it cost at its height.
fn live(workers: usize, stop: bool) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let tree = Supervisor::one_for_one().child(Pool::<Echo>::new("pool").size(workers));
        let cluster = testing::start(tree).await.expect("a tree");
        for member in cluster.pool::<Echo>("pool").expect("the pool").iter() {
            assert_eq!(member.ask(|reply| reply).await.expect("an answer"), 1);
        }
        let cost = (descriptors(), threads());
        let mut events = cluster.events();
        cluster.crash("pool[0]").await.expect("a name").expect("a worker");
        while events.next().await.expect("a running tree").expect("few events").kind != EventKind::Ready {}
        let first = cluster.worker::<Echo>("pool[0]").expect("a name");
        assert_eq!(first.ask(|reply| reply).await.expect("an answer"), 2);
        if stop {
            cluster.stop().await;
        }
        cost
    })
}

#[test]
fn clusters_that_have_ended_leave_nothing_behind() {
    let empty = (descriptors(), threads());
    let gone = |what: &str| {
        eventually(what, || (descriptors() <= empty.0 + 8 && threads() <= empty.1).then_some(()));
        descriptors()
    };
    live(1, true);
    // Once for the process: tokio's signal pipe and the like.
    let first = gone("the first cluster is gone");
    let (one, eleven) = (live(1, true), live(11, true));
    println!("{empty:?} without, {one:?} with 1 worker, {eleven:?} with 11 (descriptors, threads)");
    assert!((eleven.0 - one.0) / 10 <= 24 && (eleven.1 - one.1) / 10 <= 2, "a worker costs {one:?} to {eleven:?}");
    for round in 0..10 {
        live(3, round % 2 == 0);
    }
    eventually("as few descriptors and threads as after the first", || {
        (descriptors() <= first && threads() <= empty.1).then_some(())
    });
}
