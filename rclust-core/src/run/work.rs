//! The worker's loop: takes messages one by one, hears the order to stop, says how it ended.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::context::{Context, Facts, Inputs, Tasks, say_ready};
use crate::id::Slot;
use crate::ipc::control::{Control, PeerDown, Stop};
use crate::mailbox::endpoint::Endpoint;
use crate::mailbox::receiver::Receiver;
use crate::run::panic::{self, Panic};
use crate::wire::control::{Ending, ToSupervisor};
use crate::wire::payload;
use crate::worker::{Down, Outcome, Report, Worker};

/// Messages handled before the loop looks at anything else.
const TURN: usize = 64;

/// The first bytes of an undecodable message that the supervisor is sent.
const SAMPLE: usize = 64 << 10;

/// A body that binds nothing and says nothing is taken for ready after this long.
const SETTLED: Duration = Duration::from_secs(1);

/// The same where it replaces one in whose place there was a listener: the port would be without anybody. Less than a body's start timeout,
/// so that one that does not listen any more replaces one that did.
const SETTLED_LATE: Duration = Duration::from_secs(24);

/// A new process that is about to play a role.
pub struct Life {
    pub(crate) facts: Arc<Facts>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) control: Arc<Control>,
    pub(crate) args: Vec<u8>,
    /// It is to replace an incarnation of a slot that has listened.
    pub(crate) awaits_listener: bool,
    /// What the supervisor takes the role's messages and arguments for.
    pub(crate) schemas: (u64, u64),
}

/// Runs a future to its end or to its panic.
pub(crate) async fn catch<F: Future>(future: F) -> Result<F::Output, Panic> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| panic::last(&*payload))
}

/// How the loop ends other than by an error.
enum End {
    Asked(Stop),
    Linked(Report),
}

/// Plays a worker type.
pub(crate) async fn play<W: Worker>(life: Life) -> Ending {
    let local = LocalSet::new();
    local.run_until(play_here::<W>(life)).await
}

async fn play_here<W: Worker>(life: Life) -> Ending {
    let args: W::Args = match payload::decode(&life.args, Vec::new()) {
        Ok(args) => args,
        Err(error) => return Ending::Error(format!("the arguments cannot be decoded: {error}")),
    };
    let (mut cx, mut inputs) = Context::<W>::new(life.facts.clone(), life.endpoint.clone(), life.control.clone());
    let (downs, mut down_news) = mpsc::unbounded_channel();
    life.control.deliver_downs(downs);
    let mut stop = life.control.stop();

    let mut worker = tokio::select! {
        started = W::start(args, &mut cx) => match started {
            Ok(worker) => worker,
            Err(error) => return error.ending(),
        },
        _ = stop.wait_for(Option::is_some) => return Ending::Shutdown,
    };
    say_ready(&life.endpoint, &life.control);

    let mut receiver = Receiver::new(life.endpoint.clone());
    let outcome = run(&mut worker, &mut cx, &mut inputs, &mut receiver, &mut down_news, &life).await;
    if matches!(outcome, Ok(End::Asked(_))) {
        // What was taken is done. If a reload has brought a successor, it goes on from there.
        drop(receiver);
        give_up_reading(&life);
    }
    match outcome {
        Err(error) => error.ending(),
        Ok(End::Linked(report)) => ended(report, Ending::Normal),
        Ok(End::Asked(order)) => {
            if let Err(error) = worker.on_stop(order.why, &mut cx).await {
                return error.ending();
            }
            drain(&cx.tasks(), order.deadline).await;
            // A server that was linked has ended by now, perhaps with an error.
            match inputs.linked.try_recv() {
                Ok(report) => ended(report, Ending::Shutdown),
                Err(_) => Ending::Shutdown,
            }
        }
    }
}

async fn run<W: Worker>(
    worker: &mut W,
    cx: &mut Context<W>,
    inputs: &mut Inputs<W::Msg>,
    receiver: &mut Receiver,
    downs: &mut mpsc::UnboundedReceiver<PeerDown>,
    life: &Life,
) -> crate::error::Result<End> {
    let mut stop = life.control.stop();
    loop {
        tokio::select! {
            biased;
            order = stop.wait_for(Option::is_some) => {
                let order = order.ok().and_then(|order| *order);
                let asked = Stop::new(crate::exit::StopReason::Shutdown, None);
                return Ok(End::Asked(order.unwrap_or(asked)));
            }
            Some(report) = inputs.linked.recv() => return Ok(End::Linked(report)),
            Some(down) = downs.recv() => {
                let down = Down { worker: down.worker, name: down.name, reason: down.reason };
                worker.on_down(down, cx).await?;
            }
            Some(message) = inputs.own.recv() => worker.on_message(message, cx).await?,
            from = receiver.next() => {
                handle(worker, cx, receiver, from, life).await?;
                for _ in 1..TURN {
                    if life.control.is_asked() {
                        break;
                    }
                    // Taking the next one says that the one in hand is done.
                    let Some(from) = receiver.try_next() else { break };
                    handle(worker, cx, receiver, from, life).await?;
                }
                receiver.done();
                // Whoever else runs on this thread has a turn too.
                tokio::task::coop::consume_budget().await;
            }
        }
    }
}

/// Reads no more messages: the supervisor may give them to a successor.
fn give_up_reading(life: &Life) {
    life.endpoint.give_up_reading();
    life.control.free_hands();
    life.control.say(&ToSupervisor::GaveUp);
}

/// Handles the message in hand. On an error it stays in hand.
async fn handle<W: Worker>(
    worker: &mut W,
    cx: &mut Context<W>,
    receiver: &mut Receiver,
    from: Slot,
    life: &Life,
) -> crate::error::Result<()> {
    let decoded = if receiver.is_heavy() { receiver.decode_heavy::<W::Msg>().await } else { receiver.decode() };
    match decoded {
        Ok(message) => {
            cx.set_delivery(receiver.delivery());
            worker.on_message(message, cx).await?;
            life.control.handled_message();
        }
        Err(error) => {
            let bytes = receiver.bytes();
            let sample = bytes[..bytes.len().min(SAMPLE)].to_vec();
            life.control.say(&ToSupervisor::Undecodable { from, error, bytes: sample });
        }
    }
    Ok(())
}

fn ended(report: Report, success: Ending) -> Ending {
    match (report.error, report.panicked) {
        (_, Some(panic)) => panic.into(),
        (Some(error), None) => Ending::Error(panic::cut(&error)),
        (None, None) => success,
    }
}

/// Waits for the open tasks, until a little before this process would be killed.
async fn drain(tasks: &Tasks, deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => {
            // Too late is not an error: what is still open is cut, as the deadline says.
            let _ = tokio::time::timeout(margin(deadline), tasks.idle()).await;
        }
        None => tasks.idle().await,
    }
}

/// Nine tenths of a deadline: the rest is for an orderly end.
fn margin(deadline: Duration) -> Duration {
    deadline - deadline / 10
}

/// Plays the body of `main`.
pub(crate) async fn play_body<F, Fut>(life: Life, body: F) -> (Ending, Option<std::process::ExitCode>)
where
    F: FnOnce(Context) -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    let local = LocalSet::new();
    local.run_until(play_body_here(life, body)).await
}

async fn play_body_here<F, Fut>(life: Life, body: F) -> (Ending, Option<std::process::ExitCode>)
where
    F: FnOnce(Context) -> Fut,
    Fut: Future,
    Fut::Output: Outcome,
{
    let (cx, mut inputs) = Context::new(life.facts.clone(), life.endpoint.clone(), life.control.clone());
    let tasks = cx.tasks();
    let mut stop = life.control.stop();
    let order = life.control.stop();
    let body = async { body(cx).await.report() };
    tokio::pin!(body);
    let settled = tokio::time::sleep(if life.awaits_listener { SETTLED_LATE } else { SETTLED });
    tokio::pin!(settled);
    let mut settling = true;
    loop {
        tokio::select! {
            report = &mut body => {
                let asked = *order.borrow();
                if report.error.is_none() && asked.is_none() && !life.endpoint.is_ready() {
                    let why = "the body of main returned before this worker was ready: the body is the worker, and serves until cx.shutdown()";
                    return (Ending::Error(why.to_owned()), None);
                }
                let code = report.code;
                let Some(asked) = asked else { return (ended(report, Ending::Normal), Some(code)) };
                // What it had spawned (connections) is finished as if it were still here.
                drain(&tasks, asked.deadline).await;
                return (ended(report, Ending::Shutdown), Some(code));
            }
            Some(report) = inputs.linked.recv() => {
                let code = report.code;
                return (ended(report, Ending::Normal), Some(code));
            }
            () = &mut settled, if settling => {
                settling = false;
                say_ready(&life.endpoint, &life.control);
            }
            _ = stop.wait_for(Option::is_some) => break,
        }
    }
    // A body reads no messages.
    give_up_reading(&life);
    let order = *order.borrow();
    let rest = async {
        let report = body.await;
        tasks.idle().await;
        report
    };
    match order.and_then(|order| order.deadline) {
        Some(deadline) => match tokio::time::timeout(margin(deadline), rest).await {
            Ok(report) => (ended(report, Ending::Shutdown), None),
            Err(_) => (Ending::Shutdown, None),
        },
        None => (ended(rest.await, Ending::Shutdown), None),
    }
}
