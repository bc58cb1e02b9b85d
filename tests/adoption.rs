//! A connection counts where it is: its count ends when it is sent away in a message, and begins again where it is adopted.

use std::time::{Duration, Instant};

use rclust::cluster::net::{SlotStats, TcpListener, TcpStream, UnixListener};
use rclust::cluster::{
    self, Context, Mailbox, Pool, Reply, SendError, Shutdown, Socket, Supervisor, WorkerRef, testing,
};
use rclust_tests::DEADLINE;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const QUIET: Duration = Duration::from_secs(2);

/// More than a message may be.
const TOO_MUCH: usize = 2 << 20;

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    /// Take the next connection.
    Accept(Reply<()>),
    /// Send it there; it cannot be sent with so many bytes beside it.
    SendAway {
        to: WorkerRef<Job>,
        beside: usize,
        sent: Reply<bool>,
    },
    Take {
        client: Socket<TcpStream>,
        beside: Vec<u8>,
    },
    Adopt(Reply<bool>),
    /// Does the connection still work, and is it one that was handed here?
    Echo(Reply<(u8, bool)>),
    Stats(Reply<Vec<SlotStats>>),
    Address(Reply<String>),
}

struct Holder {
    listener: TcpListener,
    held: Option<TcpStream>,
}

impl cluster::Worker for Holder {
    type Msg = Job;
    type Args = WorkerRef<(usize, u64)>;

    async fn start(probe: WorkerRef<(usize, u64)>, cx: &mut Context<Self>) -> cluster::Result<Self> {
        let (draining, close, slot) = (cx.draining(), cx.shutdown(), cx.slot());
        cx.spawn(async move {
            draining.await;
            let began = Instant::now();
            close.await;
            let _ = probe.send((slot, began.elapsed().as_millis() as u64)).await;
        });
        let listener = TcpListener::builder().quiet(QUIET).bind("127.0.0.1:0").await?;
        Ok(Holder { listener, held: None })
    }

    async fn on_message(&mut self, job: Job, _: &mut Context<Self>) -> cluster::Result<()> {
        match job {
            Job::Accept(reply) => {
                self.held = Some(self.listener.accept().await?.0);
                reply.send(());
            }
            Job::SendAway { to, beside, sent } => {
                let client = Socket::new(self.held.take().ok_or("no connection")?);
                match to.send(Job::Take { client, beside: vec![0; beside] }).await {
                    Ok(()) => sent.send(true),
                    Err(SendError::TooLarge { message: Job::Take { client, .. }, .. }) => {
                        self.held = Some(client.into_inner());
                        sent.send(false);
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Job::Take { client, .. } => self.held = Some(client.into_inner()),
            Job::Adopt(reply) => {
                self.held = self.held.take().map(TcpStream::adopt);
                // Twice is once.
                self.held = self.held.take().map(TcpStream::adopt);
                reply.send(self.held.is_some());
            }
            Job::Echo(reply) => {
                let held = self.held.as_mut().ok_or("no connection")?;
                let byte = held.read_u8().await?;
                held.write_u8(byte).await?;
                reply.send((byte, held.is_handed()));
            }
            Job::Stats(reply) => reply.send(self.listener.stats().await?.ok_or("not shared")?.slots),
            Job::Address(reply) => reply.send(self.listener.local_addr()?.to_string()),
        }
        Ok(())
    }
}

/// Open and adopted of the two slots.
async fn counts(worker: &WorkerRef<Job>) -> [(u64, u64); 2] {
    let slots = worker.ask(Job::Stats).await.expect("an answer");
    assert_eq!(slots.len(), 2, "{slots:?}");
    [0, 1].map(|n| (slots[n].open, slots[n].adopted))
}

#[tokio::test]
async fn a_connection_counts_for_whoever_has_it() {
    let (probe, mut closes) = testing::probe::<(usize, u64)>();
    let pool = Pool::<Holder>::new("holders")
        .args(probe)
        .size(2)
        .mailbox(Mailbox::new().largest(1 << 20))
        .shutdown(Shutdown::Timeout(QUIET * 5));
    let cluster = testing::start(Supervisor::one_for_one().child(pool)).await.unwrap();
    let pool = cluster.pool::<Holder>("holders").unwrap();
    let holders: Vec<WorkerRef<Job>> = pool.iter().collect();
    let address = holders[0].ask(Job::Address).await.unwrap();
    let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
    // Whose it is, the supervisor says when it has handed it over.
    let began = Instant::now();
    let from = loop {
        let slots = holders[0].ask(Job::Stats).await.unwrap();
        match slots.iter().position(|slot| slot.untaken == 1) {
            Some(slot) => break slot,
            None => assert!(began.elapsed() < DEADLINE, "{slots:?}"),
        }
    };
    let (from, to) = (from, 1 - from);
    let expect = |of_from: (u64, u64), of_to: (u64, u64)| if from == 0 { [of_from, of_to] } else { [of_to, of_from] };
    holders[from].ask(Job::Accept).await.unwrap();
    assert_eq!(counts(&holders[from]).await, expect((1, 0), (0, 0)));

    // A message that cannot be sent brings it back: it counts as before, also once more adopted.
    let away = |beside| {
        let to = holders[to].clone();
        holders[from].ask(move |sent| Job::SendAway { to, beside, sent })
    };
    assert!(!away(TOO_MUCH).await.unwrap());
    assert!(holders[from].ask(Job::Adopt).await.unwrap());
    assert_eq!(counts(&holders[from]).await, expect((1, 0), (0, 0)));

    // Sent, it counts there no more, and here not yet.
    assert!(away(3).await.unwrap());
    assert_eq!(counts(&holders[from]).await, expect((0, 0), (0, 0)));
    // Two senders have no order: the question may be there before the connection.
    while !holders[to].ask(Job::Adopt).await.unwrap() {
        assert!(began.elapsed() < DEADLINE, "it has not come");
    }
    assert_eq!(counts(&holders[from]).await, expect((0, 0), (0, 1)));
    client.write_u8(7).await.unwrap();
    assert_eq!(holders[to].ask(Job::Echo).await.unwrap(), (7, false));
    assert_eq!(client.read_u8().await.unwrap(), 7);

    // It drains there: one quiet window where it is, none where it was.
    let stop = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.stop().await }
    });
    let mut took = [Duration::ZERO; 2];
    for _ in 0..2 {
        let (_, (slot, ms)) = tokio::time::timeout(DEADLINE, closes.next()).await.unwrap();
        took[slot] = Duration::from_millis(ms);
    }
    // Their clocks begin when they hear of the drain, a little later than it does.
    assert!(took[from] < QUIET / 2 && (QUIET / 2..QUIET * 2).contains(&took[to]), "{took:?}, from {from}");
    stop.await.unwrap();
    assert_eq!(client.read_u8().await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn outside_a_cluster_there_is_nobody_to_count_for() {
    let path = std::env::temp_dir().join(format!("rclust-adoption-{}", std::process::id()));
    let listener = UnixListener::bind(&path).await.unwrap();
    let (accepted, connected) = tokio::join!(listener.accept(), tokio::net::UnixStream::connect(&path));
    let (mut here, mut there) = (accepted.unwrap().0.adopt(), connected.unwrap());
    assert!(!here.is_handed());
    there.write_u8(1).await.unwrap();
    assert_eq!(here.read_u8().await.unwrap(), 1);
}
