//! One test per rule, as short stories. What OTP's traces show is in `otp.rs`; here is what they do not: our own
//! additions, and what happens while a worker takes its time to start or to stop.

mod model;

use std::time::{Duration, Instant};

use model::script::{Script, error, ms, secs, worker};
use rclust_core::tree::event::{Action, Answer, End, Event, Notice, Refusal, Request, State};
use rclust_core::tree::machine::Tree;
use rclust_core::tree::plan::{AutoShutdown, Backoff, Intensity, PlanError, Restart::*, Shutdown};
use rclust_core::{ExitReason, Incarnation, Slot, StopReason, WorkerId};

const ROOT: Slot = Slot::SUPERVISOR;

fn killed() -> ExitReason {
    ExitReason::Signal { signal: 9, core: false }
}

// Deaths and restarts.

#[test]
fn transient_child_that_exits_normally_stays_down() {
    let mut s = Script::one_for_one().child("cache", Transient).started();
    s.at(secs(2)).exits("cache", ExitReason::Normal).expect_nothing();
    assert_eq!(s.state("cache"), Some(State::Down));
}

#[test]
fn a_death_while_another_child_starts_waits_for_its_turn() {
    let mut s = Script::one_for_one().child("a", Permanent).child("b", Permanent).started();
    s.exits("a", error()).exits("b", error()).expect(&["start a"]);
    s.ready("a").expect(&["start b"]);
}

#[test]
fn in_a_pool_nobody_waits_for_anybody() {
    let mut s = Script::pool(3).started();
    s.exits("web[0]", error()).exits("web[2]", error()).expect(&["start web[0]", "start web[2]"]);
}

#[test]
fn the_reason_of_the_last_end_goes_to_the_next_start() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    s.exits("a", error());
    let last = s.model.effects.last().cloned();
    assert!(matches!(last, Some(Action::Start { previous: Some(reason), attempt: 0, .. }) if reason == error()));
    s.exits("a", killed());
    let last = s.model.effects.last().cloned();
    assert!(matches!(last, Some(Action::Start { previous: Some(reason), attempt: 1, .. }) if reason == killed()));
}

#[test]
fn the_window_is_exact_to_the_millisecond() {
    let mut s = Script::one_for_one().intensity(1, ms(1000)).child("a", Permanent).started();
    s.at(ms(10)).exits("a", error()).ready("a");
    s.at(ms(1010)).exits("a", error()).ready("a");
    assert!(s.end().is_none());
    s.at(ms(2009)).exits("a", error());
    assert!(matches!(s.end(), Some(End::GaveUp(why)) if why.restarts == 1 && why.within == Some(ms(1000))));
}

#[test]
fn a_node_that_gives_up_is_one_death_upstairs_and_each_says_so() {
    let below = Script::one_for_one().intensity(0, secs(1)).child("x", Permanent);
    let mut s = Script::one_for_one().intensity(1, secs(60)).node("s", Permanent, below).started();
    s.exits("s/x", error()).expect(&["start s/x"]);
    s.ready("s/x").exits("s/x", error());
    let node = Slot(1);
    assert_eq!(s.gave_up(), [node, node, ROOT]);
    assert!(matches!(s.end(), Some(End::GaveUp(why)) if why.child == node && why.reason == ExitReason::Shutdown));
}

#[test]
fn failed_starts_in_a_row_end_it_and_deaths_of_ready_children_never() {
    let mut s = Script::one_for_one().failed_starts(3).child("a", Permanent).started();
    for _ in 0..100 {
        s.exits("a", error()).ready("a");
    }
    s.exits("a", error()).exits("a", error()).exits("a", error()).ready("a");
    assert!(s.end().is_none());
    s.exits("a", error()).exits("a", error()).exits("a", error()).exits("a", error());
    assert!(matches!(s.end(), Some(End::GaveUp(why)) if why.restarts == 3 && why.within.is_none()));
}

#[test]
fn at_boot_the_first_failed_start_ends_it_whatever_the_intensity() {
    let mut s = Script::one_for_one().failed_starts(10).child("a", Permanent).child("b", Permanent).booting();
    s.ready("a").exits("b", error()).expect(&["start a", "start b", "stop a"]);
    s.exits("a", ExitReason::Shutdown);
    assert_eq!(s.end(), Some(&End::StartFailed { slot: Slot(2), reason: error() }));
}

#[test]
fn a_failed_boot_names_the_innermost_worker() {
    let below = Script::one_for_one().child("x", Permanent);
    let mut s = Script::one_for_one().node("s", Permanent, below).booting();
    s.exits("s/x", error());
    assert_eq!(s.end(), Some(&End::StartFailed { slot: Slot(2), reason: error() }));
}

// Start timeout.

#[test]
fn a_start_that_takes_too_long_is_killed_and_a_failed_start() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    s.exits("a", error()).expect(&["start a"]);
    s.at(secs(30)).expect(&["kill a"]);
    s.exits("a", killed()).expect(&["start a"]);
    let timeout = ExitReason::StartTimeout(secs(30));
    assert!(matches!(s.model.effects.last(), Some(Action::Start { previous: Some(reason), .. }) if *reason == timeout));
}

// Backoff.

#[test]
fn the_backoff_doubles_up_to_its_cap() {
    let mut s = Script::one_for_one().intensity(99, secs(1)).child("a", Permanent).backoff(ms(100), ms(300)).started();
    for delay in [100, 200, 300, 300] {
        s.exits("a", error()).expect_nothing();
        assert_eq!(s.state("a"), Some(State::Backoff(ms(delay))));
        let at = s.model.now + ms(delay);
        s.at(at - ms(1)).expect_nothing();
        s.at(at).expect(&["start a"]);
    }
}

#[test]
fn a_healthy_time_ends_the_history_of_failures() {
    let mut s = Script::one_for_one().child("a", Permanent).backoff(ms(100), secs(9)).started();
    s.exits("a", error()).at(ms(100)).exits("a", error());
    assert_eq!(s.state("a"), Some(State::Backoff(ms(200))));
    s.at(ms(300)).ready("a");
    s.at(secs(61)).exits("a", error()).expect(&["start a", "start a", "start a"]);
    s.exits("a", error());
    assert_eq!(s.state("a"), Some(State::Backoff(ms(100))));
}

#[test]
fn a_child_in_backoff_holds_nobody_up() {
    let mut s = Script::one_for_one().child("a", Permanent).backoff(secs(1), secs(1)).child("b", Permanent).started();
    s.exits("a", error()).exits("b", error()).expect(&["start b"]);
}

#[test]
fn a_child_in_backoff_can_be_restarted_and_terminated_by_hand() {
    let mut s = Script::one_for_one().child("a", Permanent).backoff(secs(1), secs(1)).started();
    s.exits("a", error()).restart("a").expect(&["start a"]);
    s.ready("a");
    assert!(matches!(s.answer(), Some(Answer::Started(_))));
    s.exits("a", error()).terminate("a");
    assert_eq!(s.answer(), Some(&Answer::Done));
    s.at(secs(9)).expect_nothing();
    assert_eq!(s.state("a"), Some(State::Down));
}

#[test]
fn a_group_waits_with_the_child_that_is_in_backoff() {
    let mut s = Script::one_for_all().child("a", Permanent).backoff(secs(1), secs(1)).child("b", Permanent).started();
    s.exits("a", error()).expect(&["stop b"]);
    s.exits("b", ExitReason::Shutdown).expect_nothing();
    s.at(secs(1)).expect(&["start a"]);
    s.ready("a").expect(&["start b"]);
}

#[test]
fn jitter_takes_a_part_off_and_the_seed_decides_which() {
    let delays = |seed| {
        let backoff = Backoff { first: secs(1), cap: secs(1), healthy_after: secs(60), jitter: 0.5, after_ready: true };
        let plan =
            Script::one_for_one().intensity(99, secs(1)).child("a", Permanent).with(|a| a.backoff = Some(backoff)).plan;
        let mut model = model::Model::new(plan, seed);
        model.boot();
        let mut worker = WorkerId { slot: Slot(1), incarnation: Incarnation(1) };
        model.ready(worker);
        for _ in 0..20 {
            model.exits(worker, error());
            model.wakeup();
            worker.incarnation = worker.incarnation.next();
        }
        let delay = |notice: &Notice| match notice {
            Notice::Restarting { delay, .. } => Some(*delay),
            _ => None,
        };
        model.notices.iter().filter_map(delay).collect::<Vec<Duration>>()
    };
    assert_eq!(delays(7), delays(7));
    assert_ne!(delays(7), delays(8));
    assert!(delays(7).iter().all(|delay| (ms(500)..=secs(1)).contains(delay)));
}

// Stopping.

#[test]
fn whoever_does_not_stop_in_time_is_killed() {
    let mut s = Script::one_for_one().child("a", Permanent).child("b", Permanent).started();
    s.happens(Event::Stop).expect(&["stop b"]);
    s.at(secs(5)).expect(&["kill b"]);
    s.exits("b", killed()).expect(&["stop a"]);
    s.exits("a", error());
    assert_eq!(s.end(), Some(&End::Stopped));
}

#[test]
fn a_stop_during_the_boot_cancels_the_start() {
    let mut s = Script::one_for_one().child("a", Permanent).child("b", Permanent).booting();
    s.ready("a").happens(Event::Stop).expect(&["start a", "start b", "kill b"]);
    s.exits("b", killed()).expect(&["stop a"]);
    s.exits("a", ExitReason::Shutdown);
    assert_eq!(s.end(), Some(&End::Stopped));
    assert!(!s.model.booted);
}

#[test]
fn a_pool_stops_within_one_deadline() {
    let mut s = Script::pool(3).started();
    s.happens(Event::Stop).expect(&["stop web[0]", "stop web[1]", "stop web[2]"]);
    s.at(secs(5)).expect(&["kill web[0]", "kill web[1]", "kill web[2]"]);
}

#[test]
fn a_node_that_does_not_stop_in_time_takes_all_below_with_it() {
    let below = Script::one_for_one().child("x", Permanent).with(|x| x.shutdown = Shutdown::Infinity);
    let below = below.child("y", Permanent).with(|y| y.shutdown = Shutdown::Infinity);
    let mut s =
        Script::one_for_one().node("s", Permanent, below).with(|s| s.shutdown = Shutdown::Timeout(secs(1))).started();
    s.happens(Event::Stop).expect(&["stop s/y"]);
    s.at(secs(1)).expect(&["kill s/x", "kill s/y"]);
}

#[test]
fn a_killed_nodes_workers_are_gone_before_their_successors_start() {
    let below = Script::one_for_one().child("x", Permanent).child("y", Permanent);
    let mut s = Script::one_for_one().node("s", Permanent, below).started();
    s.happens(Event::EndSupervisor { supervisor: Slot(1), reason: killed() }).expect(&["kill s/x", "kill s/y"]);
    s.exits("s/x", killed()).expect_nothing();
    s.exits("s/y", killed()).expect(&["start s/x"]);
}

// Leaving.

#[test]
fn who_leaves_is_asked_to_stop_once_and_its_restart_type_decides_what_follows() {
    for (restart, follows) in [(Permanent, "start a"), (Transient, ""), (Temporary, "forget a")] {
        let mut s = Script::one_for_one().child("a", restart).started();
        let worker = s.worker("a");
        s.happens(Event::Leave { worker }).happens(Event::Leave { worker }).expect(&["stop a"]);
        let asked = s.model.effects.last().cloned();
        let expected = Action::Stop { worker, why: StopReason::Leave, deadline: Some(secs(5)) };
        assert_eq!(asked, Some(expected));
        assert_eq!(s.state("a"), Some(State::Up(worker)), "its end is its own, not a stop of its supervisor's");
        s.exits("a", ExitReason::Shutdown).expect(&[follows][..usize::from(!follows.is_empty())]);
    }
}

#[test]
fn who_leaves_before_it_is_ready_leaves_when_it_is() {
    let mut s = Script::one_for_one().child("a", Permanent).booting();
    let worker = s.worker("a");
    s.expect(&["start a"]).happens(Event::Leave { worker }).expect_nothing();
    s.ready("a").expect(&["stop a"]);
    s.exits("a", ExitReason::Shutdown).expect(&["start a"]);
    s.ready("a").expect_nothing();
}

#[test]
fn who_leaves_and_does_not_end_is_killed_at_its_deadline() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let worker = s.worker("a");
    s.at(secs(1)).happens(Event::Leave { worker }).expect(&["stop a"]);
    s.at(ms(5999)).expect_nothing();
    s.at(secs(6)).expect(&["kill a"]);
    s.exits("a", killed()).expect(&["start a"]);
    s.ready("a").at(secs(60)).expect_nothing();
}

#[test]
fn a_stop_takes_over_from_a_leave_with_its_own_deadline() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let worker = s.worker("a");
    s.happens(Event::Leave { worker }).expect(&["stop a"]);
    s.at(secs(3)).terminate("a").expect_nothing();
    s.at(ms(7999)).expect_nothing();
    s.at(secs(8)).expect(&["kill a"]);
    s.exits("a", killed()).expect_nothing();

    let mut s = Script::one_for_one().child("a", Transient).with(|a| a.shutdown = Shutdown::Infinity).started();
    let worker = s.worker("a");
    s.happens(Event::Leave { worker }).expect(&["stop a"]);
    // It was asked already.
    s.terminate("a").expect_nothing();
    s.at(secs(600)).expect_nothing();
    s.exits("a", ExitReason::Shutdown).expect_nothing();
    assert_eq!(s.answer(), Some(&Answer::Done));
}

#[test]
fn who_leaves_before_a_reload_has_made_it_current_leaves_then() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let slot = s.slot("a");
    s.calls(Request::Reload { slot, surge: 1 }).expect(&["start a"]);
    let next = s.worker("a");
    s.happens(Event::Leave { worker: next }).expect_nothing();
    s.ready("a").expect(&["retire a", "stop a"]);
}

#[test]
fn both_of_a_reload_may_leave_and_each_is_asked() {
    for old_first in [true, false] {
        let mut s = Script::one_for_one().child("a", Permanent).started();
        let (slot, old) = (s.slot("a"), s.worker("a"));
        s.calls(Request::Reload { slot, surge: 1 }).expect(&["start a"]);
        let next = WorkerId { incarnation: Incarnation(2), ..old };
        for worker in if old_first { [old, next] } else { [next, old] } {
            s.happens(Event::Leave { worker });
        }
        s.expect(&["stop a"]).ready("a").expect(&["retire a", "stop a"]);
    }
    // It dies of it before the other one is ready: that one takes its place, and leaves then.
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let (slot, old) = (s.slot("a"), s.worker("a"));
    s.calls(Request::Reload { slot, surge: 1 }).expect(&["start a"]);
    s.happens(Event::Leave { worker: WorkerId { incarnation: Incarnation(2), ..old } });
    s.model.exits(old, error());
    s.expect_nothing().ready("a").expect(&["stop a"]);
}

#[test]
fn who_leaves_before_it_is_ready_is_asked_by_the_stop_that_waited_for_it() {
    let mut s = Script::pool(1).started();
    let pool = s.slot("web");
    s.calls(Request::Resize { supervisor: pool, size: 2 }).expect(&["start web[1]"]);
    let worker = s.worker("web[1]");
    s.calls(Request::Resize { supervisor: pool, size: 1 }).happens(Event::Leave { worker }).expect_nothing();
    s.ready("web[1]").expect(&["stop web[1]"]);
    s.exits("web[1]", ExitReason::Shutdown).expect(&["forget web[1]"]);
    assert_eq!(s.answer(), Some(&Answer::Done));
}

#[test]
fn only_the_current_incarnation_can_leave() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let old = s.worker("a");
    s.exits("a", error()).ready("a").expect(&["start a"]);
    s.happens(Event::Leave { worker: old }).expect_nothing();
}

#[test]
fn a_second_stop_changes_nothing_and_a_kill_is_immediate() {
    let mut s = Script::one_for_one().child("a", Permanent).child("b", Permanent).started();
    s.happens(Event::Stop).happens(Event::Stop).expect(&["stop b"]);
    s.happens(Event::Kill).expect(&["kill a", "kill b"]);
    s.exits("a", killed()).exits("b", killed());
    assert_eq!(s.end(), Some(&End::Stopped));
}

// Calls.

#[test]
fn terminate_cancels_a_start_and_counts_no_failure() {
    let mut s = Script::one_for_one().intensity(1, secs(60)).child("a", Permanent).started();
    s.exits("a", error()).expect(&["start a"]);
    s.terminate("a").expect(&["kill a"]);
    assert_eq!(s.answer(), None);
    s.exits("a", killed()).expect_nothing();
    assert_eq!(s.answer(), Some(&Answer::Done));
    assert_eq!(s.state("a"), Some(State::Down));
}

#[test]
fn a_boot_goes_on_without_the_child_whose_start_was_cancelled() {
    let mut s = Script::one_for_one().child("a", Permanent).child("b", Permanent).booting();
    s.terminate("a").exits("a", killed()).expect(&["start a", "kill a", "start b"]);
    s.ready("b");
    assert!(s.model.booted);
}

#[test]
fn a_group_restart_ends_with_a_start_that_was_cancelled() {
    let mut s = Script::one_for_all().child("a", Permanent).child("b", Permanent).child("c", Permanent).started();
    s.exits("c", error()).exits("b", killed()).exits("a", killed()).ready("a");
    s.terminate("b").exits("b", killed());
    assert_eq!((s.state("b"), s.state("c")), (Some(State::Down), Some(State::Down)));
    s.terminate("a");
    assert!(matches!(s.state("a"), Some(State::Stopping(_))));
}

#[test]
fn a_start_by_call_that_is_cancelled_says_so() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    s.calls(Request::StartChild { supervisor: ROOT, child: worker("b", Permanent) }).expect(&["start b"]);
    let starting = s.model.call(Request::TerminateChild { supervisor: ROOT, name: "b".to_owned() });
    s.expect_refused(Refusal::Cancelled);
    s.exits("b", killed());
    assert_eq!(s.model.answers.get(&starting), Some(&Answer::Done));
    assert_eq!(s.state("b"), Some(State::Down));
}

#[test]
fn calls_about_a_starting_child_wait_for_that_outcome_only() {
    let mut s = Script::one_for_one().child("a", Permanent).child("b", Permanent).started();
    s.exits("a", error());
    let delete = s.model.call(Request::DeleteChild { supervisor: ROOT, name: "a".to_owned() });
    s.terminate("b").expect(&["start a", "stop b"]);
    s.exits("b", ExitReason::Shutdown);
    assert_eq!(s.answer(), Some(&Answer::Done));
    assert_eq!(s.model.answers.get(&delete), None);
    s.ready("a");
    assert_eq!(s.model.answers.get(&delete), Some(&Answer::Refused(Refusal::Running)));
}

#[test]
fn calls_wait_for_a_group_and_reads_for_nothing() {
    let mut s = Script::one_for_all().child("a", Permanent).child("b", Permanent).started();
    s.exits("a", error()).expect(&["stop b"]);
    s.restart("b");
    assert_eq!(s.answer(), None);
    let call = s.model.call(Request::WhichChildren { supervisor: ROOT });
    let Some(Answer::Children(children)) = s.model.answers.get(&call) else { panic!("reads answer at once") };
    assert!(matches!(children[0].state, State::Stopping(_)) && children[1].state == State::Down);
    s.exits("b", ExitReason::Shutdown).ready("a").ready("b");
    s.expect_refused(Refusal::Running);
}

#[test]
fn retries_wait_for_a_start_by_call_as_in_otp() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    s.calls(Request::StartChild { supervisor: ROOT, child: worker("b", Permanent) }).expect(&["start b"]);
    s.exits("a", error()).expect_nothing();
    s.ready("b").expect(&["start a"]);
}

#[test]
fn a_node_that_is_down_answers_so() {
    let below = Script::one_for_one().child("x", Transient);
    let mut s = Script::one_for_one().node("s", Transient, below).started();
    s.terminate("s").exits("s/x", ExitReason::Shutdown);
    s.calls(Request::RestartChild { supervisor: Slot(1), name: "x".to_owned() });
    s.expect_refused(Refusal::NotRunning);
    s.calls(Request::CountChildren { supervisor: Slot(2) });
    s.expect_refused(Refusal::NotFound);
}

#[test]
fn a_refused_specification_names_what_is_wrong() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let mut bad = worker("b", Transient);
    bad.significant = true;
    s.calls(Request::StartChild { supervisor: ROOT, child: bad }).expect_nothing();
    assert!(matches!(s.answer(), Some(Answer::Refused(Refusal::Bad(text))) if text.contains("`b` is significant")));
}

#[test]
fn copies_have_arguments_of_their_own_and_a_limit() {
    let mut s = Script::dynamic(worker("job", Permanent), 2).started();
    s.calls(Request::StartCopy { supervisor: ROOT, launch: 41 }).ready("job[0]");
    s.calls(Request::StartCopy { supervisor: ROOT, launch: 42 }).ready("job[1]");
    s.calls(Request::StartCopy { supervisor: ROOT, launch: 43 }).expect_refused(Refusal::MaxChildren(2));
    s.exits("job[1]", error());
    assert!(matches!(s.model.effects.last(), Some(Action::Start { launch: 42, .. })));
    assert_eq!(s.model.tree.place(s.slot("job[0]")).and_then(|place| place.launch), Some(41));
    let worker = s.worker("job[0]");
    s.calls(Request::TerminateWorker { supervisor: ROOT, worker });
    s.exits("job[0]", ExitReason::Shutdown);
    assert_eq!(s.answer(), Some(&Answer::Done));
    assert_eq!(s.model.tree.find("job[0]"), None);
}

// Pools.

#[test]
fn a_pools_boot_is_over_when_all_are_ready() {
    let mut s = Script::pool(3).booting();
    s.expect(&["start web[0]", "start web[1]", "start web[2]"]);
    s.ready("web[2]").ready("web[0]");
    assert!(!s.model.booted);
    s.ready("web[1]");
    assert!(s.model.booted);
}

#[test]
fn a_pools_boot_fails_with_the_first_failure() {
    let mut s = Script::pool(3).booting();
    s.ready("web[1]").exits("web[2]", error());
    s.expect(&["start web[0]", "start web[1]", "start web[2]", "kill web[0]", "stop web[1]"]);
    s.exits("web[0]", killed()).exits("web[1]", ExitReason::Shutdown);
    assert_eq!(s.end(), Some(&End::StartFailed { slot: Slot(4), reason: error() }));
}

#[test]
fn a_pool_grows_at_the_end_and_shrinks_from_there() {
    let mut s = Script::pool(2).started();
    let pool = s.slot("web");
    s.calls(Request::Resize { supervisor: pool, size: 4 }).expect(&["start web[2]", "start web[3]"]);
    s.ready("web[3]");
    assert_eq!(s.answer(), None);
    s.ready("web[2]");
    assert_eq!(s.answer(), Some(&Answer::Done));
    s.calls(Request::Resize { supervisor: pool, size: 1 });
    s.expect(&["stop web[3]", "stop web[2]", "stop web[1]"]);
    s.exits("web[2]", ExitReason::Shutdown).expect(&["forget web[2]"]);
    s.exits("web[3]", ExitReason::Shutdown).exits("web[1]", error()).expect(&["forget web[3]", "forget web[1]"]);
    assert_eq!(s.answer(), Some(&Answer::Done));
    assert_eq!(s.model.tree.children(pool).len(), 1);
}

#[test]
fn a_pool_that_cannot_grow_keeps_its_size() {
    let mut s = Script::pool(1).started();
    let pool = s.slot("web");
    s.calls(Request::Resize { supervisor: pool, size: 3 }).ready("web[1]").exits("web[2]", error());
    s.expect(&["start web[1]", "start web[2]", "forget web[2]", "stop web[1]"]);
    s.exits("web[1]", ExitReason::Shutdown).expect(&["forget web[1]"]);
    s.expect_refused(Refusal::Failed(error()));
}

#[test]
fn members_stand_beside_their_pool() {
    let mut pool = Script::pool(2);
    pool = Script::one_for_one().node("in", Permanent, pool);
    let s = pool.started();
    let place = s.model.tree.place(s.slot("in/web[1]")).expect("it was found");
    assert_eq!((place.name.as_str(), place.index, place.pool), ("web[1]", 1, Some(s.slot("in/web"))));
}

// Reload.

#[test]
fn a_reload_has_the_new_one_ready_before_the_old_one_goes() {
    let mut s = Script::one_for_one().intensity(0, secs(1)).child("a", Permanent).started();
    let (slot, old) = (s.slot("a"), s.worker("a"));
    s.calls(Request::Reload { slot, surge: 1 }).expect(&["start a"]);
    assert_eq!(s.state("a"), Some(State::Up(old)));
    s.ready("a").expect(&["retire a"]);
    let new = s.worker("a");
    assert_eq!(s.answer(), Some(&Answer::Started(new)));
    assert_eq!(s.state("a"), Some(State::Up(new)));
    s.model.exits(old, error());
    s.expect_nothing();
    assert!(s.end().is_none());
}

#[test]
fn a_retired_one_that_stays_is_killed() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let slot = s.slot("a");
    s.calls(Request::Reload { slot, surge: 1 }).ready("a").expect(&["start a", "retire a"]);
    s.at(secs(5)).expect(&["kill a"]);
}

#[test]
fn a_second_reload_waits_for_the_end_of_the_retired_one() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let (slot, first) = (s.slot("a"), s.worker("a"));
    s.calls(Request::Reload { slot, surge: 1 }).ready("a").expect(&["start a", "retire a"]);
    s.calls(Request::Reload { slot, surge: 1 }).expect_nothing();
    s.at(secs(5)).expect(&["kill a"]);
    s.model.exits(first, killed());
    s.expect(&["start a"]).ready("a").expect(&["retire a"]);
    assert!(matches!(s.answer(), Some(Answer::Started(_))));
}

#[test]
fn a_reload_that_fails_leaves_the_old_one_alone() {
    let mut s = Script::one_for_one().intensity(0, secs(1)).child("a", Permanent).started();
    let (slot, old) = (s.slot("a"), s.worker("a"));
    s.calls(Request::Reload { slot, surge: 1 }).exits("a", error()).expect(&["start a"]);
    s.expect_refused(Refusal::Failed(error()));
    assert_eq!(s.state("a"), Some(State::Up(old)));
}

#[test]
fn if_the_old_one_dies_the_one_that_starts_takes_its_place() {
    let mut s = Script::one_for_all().intensity(1, secs(9)).child("a", Permanent).child("b", Permanent).started();
    let (slot, old) = (s.slot("a"), s.worker("a"));
    s.calls(Request::Reload { slot, surge: 1 }).expect(&["start a"]);
    s.model.exits(old, error());
    s.expect_nothing();
    s.exits("a", error());
    s.expect_refused(Refusal::Failed(error()));
    s.expect(&["stop b"]);
}

#[test]
fn a_node_is_reloaded_one_worker_after_the_other() {
    let mut s = Script::pool(3).started();
    s.calls(Request::Reload { slot: ROOT, surge: 1 }).expect(&["start web[0]"]);
    s.ready("web[0]").expect(&["retire web[0]", "start web[1]"]);
    s.exits("web[1]", error()).expect_nothing();
    s.expect_refused(Refusal::Failed(error()));
}

#[test]
fn a_retired_one_that_has_no_deadline_is_killed_by_the_next_reload() {
    let mut s = Script::one_for_one().child("a", Permanent).with(|a| a.shutdown = Shutdown::Infinity).started();
    let slot = s.slot("a");
    s.calls(Request::Reload { slot, surge: 1 }).ready("a").expect(&["start a", "retire a"]);
    s.calls(Request::Reload { slot, surge: 1 }).expect(&["kill a"]);
}

#[test]
fn what_a_stop_has_left_of_a_reload_is_not_counted_for_the_next_one() {
    let inner = Script::one_for_one().child("a", Permanent);
    let mut s = Script::one_for_one().node("in", Permanent, inner).child("last", Permanent).started();
    s.calls(Request::Reload { slot: ROOT, surge: 1 }).expect(&["start in/a"]);
    s.happens(Event::Stop).expect(&["stop last"]);
    s.expect_refused(Refusal::Stopping);
    // Its node is not stopped before the last one has ended.
    let slot = s.slot("in");
    s.calls(Request::Reload { slot, surge: 1 }).expect_nothing();
    let first = s.worker("in/a");
    s.ready("in/a").expect(&["retire in/a"]);
    s.model.exits(WorkerId { incarnation: Incarnation(1), ..first }, ExitReason::Shutdown);
    s.expect(&["start in/a"]).ready("in/a").expect(&["retire in/a"]);
    assert_eq!(s.answer(), Some(&Answer::Done));
}

#[test]
fn with_a_surge_so_many_are_replaced_at_a_time() {
    let mut s = Script::pool(4).started();
    s.calls(Request::Reload { slot: ROOT, surge: 2 }).expect(&["start web[0]", "start web[1]"]);
    s.ready("web[1]").expect(&["retire web[1]", "start web[2]"]);
    // The first failure is the answer; what has begun goes on, and nothing more begins.
    s.exits("web[0]", error()).expect_nothing();
    s.expect_refused(Refusal::Failed(error()));
    s.ready("web[2]").expect(&["retire web[2]"]);
    s.expect_nothing();
    s.calls(Request::Reload { slot: ROOT, surge: 9 });
    s.expect(&["start web[0]", "start web[3]"]);
}

#[test]
fn the_end_waits_for_the_retired() {
    let mut s = Script::one_for_one().child("a", Permanent).started();
    let (slot, old) = (s.slot("a"), s.worker("a"));
    s.calls(Request::Reload { slot, surge: 1 }).ready("a");
    s.happens(Event::Stop).exits("a", ExitReason::Shutdown);
    assert!(s.end().is_none());
    s.model.exits(old, ExitReason::Shutdown);
    assert!(s.end().is_some());
}

// Significant children.

#[test]
fn auto_shutdown_of_the_root_names_the_child() {
    let mut script = Script::one_for_one().child("a", Transient).with(|a| a.significant = true);
    script.plan.auto_shutdown = AutoShutdown::AnySignificant;
    let mut s = script.started();
    s.exits("a", ExitReason::Normal);
    assert_eq!(s.end(), Some(&End::AutoShutdown { slot: Slot(1) }));
}

// Plans.

#[test]
fn plans_that_cannot_be_are_refused_before_anything_starts() {
    let error = |script: Script| Tree::new(script.plan, 0).expect_err("it cannot be");
    let path = || "a".to_owned();
    let twice = Script::one_for_one().child("a", Permanent).child("a", Temporary);
    assert_eq!(error(twice), PlanError::DuplicateName { path: path() });
    let zero = Script::one_for_one().intensity(1, Duration::ZERO);
    assert_eq!(error(zero), PlanError::ZeroPeriod { path: "(root)".to_owned() });
    for name in ["", "a/b", "a[0]", "a\n"] {
        assert!(matches!(error(Script::one_for_one().child(name, Permanent)), PlanError::BadName { .. }));
    }
    let backoff = Backoff { first: secs(1), cap: secs(1), healthy_after: secs(1), jitter: f64::NAN, after_ready: true };
    let jitter = Script::one_for_one().child("a", Permanent).with(|a| a.backoff = Some(backoff));
    assert!(matches!(error(jitter), PlanError::Jitter { .. }));
    let mut deep = Script::one_for_one();
    for _ in 0..100 {
        deep = Script::one_for_one().node("s", Permanent, deep);
    }
    assert!(matches!(error(deep), PlanError::TooDeep { .. }));
}

#[test]
fn slots_are_numbered_depth_first() {
    let below = Script::one_for_one().child("x", Permanent).child("y", Permanent);
    let script = Script::one_for_one().child("a", Permanent).node("s", Permanent, below).child("b", Permanent);
    let s = script.started();
    let slots = ["", "a", "s", "s/x", "s/y", "b"].map(|path| s.slot(path).0);
    assert_eq!(slots, [0, 1, 2, 3, 4, 5]);
    assert_eq!(s.model.tree.workers().collect::<Vec<_>>(), [Slot(1), Slot(3), Slot(4), Slot(5)]);
}

// Cost.

/// Restarts `count` workers of a tree of 1 000, again and again.
fn storm(tree: &mut Tree, now: &mut Duration, count: u32) -> Duration {
    let begin = Instant::now();
    for n in 0..count {
        let slot = Slot(1 + n % 1_000);
        let Some(State::Up(worker)) = tree.state(slot) else { panic!("{slot} is up") };
        *now += ms(1);
        tree.handle(*now, Event::Exited { worker, reason: ExitReason::Code(1) });
        while tree.poll_action().is_some() {}
        let worker = WorkerId { slot, incarnation: worker.incarnation.next() };
        tree.handle(*now, Event::Ready { worker });
        while tree.poll_action().is_some() {}
    }
    begin.elapsed()
}

/// A tree of 1 000 workers that was given this many restarts, and its time.
fn aged(restarts: u32) -> (Tree, Duration) {
    let mut script = Script::one_for_one();
    script.plan.intensity = Intensity::Limited { restarts: 1_000_000, within: secs(1) };
    for n in 0..1_000 {
        script = script.child(&format!("w{n}"), Permanent);
    }
    let mut tree = Tree::new(script.plan, 0).expect("it can be");
    tree.handle(Duration::ZERO, Event::Boot);
    while let Some(action) = tree.poll_action() {
        if let Action::Start { worker, .. } = action {
            tree.handle(Duration::ZERO, Event::Ready { worker });
        }
    }
    let mut now = Duration::ZERO;
    storm(&mut tree, &mut now, restarts);
    (tree, now)
}

#[test]
fn cost_does_not_grow_with_history() {
    // Both windows are full; one tree has twenty times the history of the other.
    let (mut young, mut young_now) = aged(1_000);
    let (mut old, mut old_now) = aged(20_000);
    let (mut young_best, mut old_best) = (Duration::MAX, Duration::MAX);
    // In turn, and the best time of many short ones: what else the machine does meets both, and not every one of them.
    for _ in 0..50 {
        young_best = young_best.min(storm(&mut young, &mut young_now, 50));
        old_best = old_best.min(storm(&mut old, &mut old_now, 50));
    }
    // Growth with history would be a factor of ten or more.
    assert!(old_best < young_best * 4, "50 restarts take {young_best:?} after 1 000, and {old_best:?} after 20 000");
}
