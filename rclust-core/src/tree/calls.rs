//! Management calls: who waits for what, and the table of answers.
//!
//! # Source
//! RULES 56 to 63. What differs: reads answer at once, whatever the node is doing; a terminate call cancels a start;
//! other calls wait for a start or stop of *their* child only, unless a group of children is being started or stopped
//! (then they wait for that, as every call does in OTP).
//!
//! | call | up | down | restarting, backoff | unknown |
//! | --- | --- | --- | --- | --- |
//! | `StartChild` | `AlreadyStarted` | `AlreadyPresent` | `AlreadyPresent` | start it |
//! | `RestartChild` | `Running` | start it | `Restarting`; in backoff: start it | `NotFound` |
//! | `TerminateChild` | stop it, `Done` | `Done` | cancel, `Done` | `NotFound` |
//! | `DeleteChild` | `Running` | forget it, `Done` | `Restarting` | `NotFound` |

use std::sync::Arc;

use super::child::{Keep, Life, StartWhy, StopWhy};
use super::event::{Action, Answer, CallId, ChildState, Counts, Ending, Refusal, Request};
use super::machine::Tree;
use super::node::{Item, Phase};
use super::plan::{ChildKind, ChildPlan, SupervisorKind, child_path};
use crate::exit::StopReason;
use crate::id::{Slot, WorkerId};

impl Tree {
    pub(super) fn refuse(&mut self, call: CallId, refusal: Refusal) {
        self.act(Action::Answer { call, answer: Answer::Refused(refusal) });
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        self.act(Action::Answer { call, answer });
    }

    /// A call has come: it is answered now, put into the node's queue, or kept until its child has settled.
    pub(super) fn on_call(&mut self, call: CallId, request: Request) {
        let slot = match &request {
            Request::Reload { slot, surge } => return self.reload(call, *slot, *surge),
            other => node_of(other),
        };
        let Some(node) = self.node(slot) else { return self.refuse(call, Refusal::NotFound) };
        match node.phase {
            Phase::Off => return self.refuse(call, Refusal::NotRunning),
            Phase::Stopping => {
                return match self.read(&request) {
                    Some(answer) => self.answer(call, answer),
                    None => self.refuse(call, Refusal::Stopping),
                };
            }
            Phase::Asking | Phase::Booting | Phase::Running => {}
        }
        if let Some(answer) = self.read(&request) {
            return self.answer(call, answer);
        }
        let subject = self.subject(&request);
        if let Some(child) = subject {
            if self.is_terminate(&request) && self.is_starting(child) {
                return self.serve(call, request);
            }
        }
        let Some(node) = self.node(slot) else { return };
        let waits = node.phase != Phase::Running
            || node.is_in_group_action()
            || (node.is_group() && !node.queue.is_empty())
            || subject.and_then(|child| self.children.get(&child)).is_some_and(|c| matches!(c.life, Life::Dead { .. }));
        if waits {
            if let Some(node) = self.node_mut(slot) {
                node.queue.push_back(Item::Call(call, request));
            }
            self.turn_later(slot);
        } else {
            self.serve(call, request);
        }
    }

    /// Serves a call whose turn has come.
    pub(super) fn serve(&mut self, call: CallId, request: Request) {
        if let Some(child) = self.subject(&request) {
            let settled = match self.children.get(&child).map(|child| &child.life) {
                Some(Life::Starting { .. }) => self.is_terminate(&request),
                Some(Life::Stopping { .. }) => false,
                _ => true,
            };
            if !settled {
                if let Some(child) = self.children.get_mut(&child) {
                    child.waiters.push((call, request));
                }
                return;
            }
        }
        match request {
            Request::StartChild { supervisor, child } => self.start_child(call, supervisor, child),
            Request::StartCopy { supervisor, launch } => self.start_copy(call, supervisor, launch),
            Request::RestartChild { supervisor, name } => {
                if let Some(child) = self.named(call, supervisor, &name) {
                    self.restart_child(call, child);
                }
            }
            Request::TerminateChild { supervisor, name } => {
                if let Some(child) = self.named(call, supervisor, &name) {
                    self.terminate(call, child);
                }
            }
            Request::TerminateWorker { supervisor, worker } => self.terminate_worker(call, supervisor, worker),
            Request::DeleteChild { supervisor, name } => {
                if let Some(child) = self.named(call, supervisor, &name) {
                    self.delete_child(call, supervisor, child);
                }
            }
            Request::Resize { supervisor, size } => self.resize(call, supervisor, size),
            Request::Reload { slot, surge } => self.reload(call, slot, surge),
            Request::WhichChildren { .. } | Request::CountChildren { .. } | Request::ChildSpec { .. } => {
                match self.read(&request) {
                    Some(answer) => self.answer(call, answer),
                    None => self.refuse(call, Refusal::NotFound),
                }
            }
        }
    }

    /// The child that a call is about, if there is one.
    fn subject(&self, request: &Request) -> Option<Slot> {
        let (node, name) = match request {
            Request::StartChild { supervisor, child } => (*supervisor, &child.name),
            Request::RestartChild { supervisor, name }
            | Request::TerminateChild { supervisor, name }
            | Request::DeleteChild { supervisor, name } => (*supervisor, name),
            Request::TerminateWorker { supervisor, worker } => {
                let is_child = self.supervisor(worker.slot) == Some(*supervisor);
                return (is_child && !self.is_long_gone(*worker)).then_some(worker.slot);
            }
            _ => return None,
        };
        let node = self.node(node)?;
        if node.is_dynamic() { None } else { node.names.get(name).copied() }
    }

    /// Looks a child up by name; the call is refused if there is none, or names are no addresses here (RULES 62).
    fn named(&mut self, call: CallId, node: Slot, name: &str) -> Option<Slot> {
        let found = match self.node(node) {
            Some(node) if node.is_dynamic() => Err(Refusal::Dynamic),
            Some(node) => node.names.get(name).copied().ok_or(Refusal::NotFound),
            None => Err(Refusal::NotFound),
        };
        found.map_err(|refusal| self.refuse(call, refusal)).ok()
    }

    fn is_terminate(&self, request: &Request) -> bool {
        matches!(request, Request::TerminateChild { .. } | Request::TerminateWorker { .. })
    }

    fn is_starting(&self, slot: Slot) -> bool {
        self.children.get(&slot).is_some_and(|child| matches!(child.life, Life::Starting { .. }))
    }

    /// An incarnation before the one that is up or stopping: a process that is dead.
    fn is_long_gone(&self, worker: WorkerId) -> bool {
        self.children.get(&worker.slot).is_some_and(|child| {
            worker.incarnation != child.current
                && matches!(child.life, Life::Up | Life::Dead { .. } | Life::Stopping { .. })
        })
    }

    /// RULES 57: first the specification, then the name.
    fn start_child(&mut self, call: CallId, slot: Slot, plan: ChildPlan) {
        let Some((node, path)) = self.node(slot).zip(self.children.get(&slot).map(|child| &child.path)) else {
            return self.refuse(call, Refusal::NotFound);
        };
        match node.kind {
            SupervisorKind::Tree => {}
            SupervisorKind::Dynamic { .. } => return self.refuse(call, Refusal::Dynamic),
            SupervisorKind::Pool => {
                return self.refuse(call, Refusal::Bad("a pool is resized, not added to".to_owned()));
            }
        }
        let depth = path.split('/').count();
        if let Err(error) = plan.check_as_child(&child_path(path, node.kind, &plan.name), node.auto_shutdown, depth) {
            return self.refuse(call, Refusal::Bad(error.to_string()));
        }
        if let Some(child) = node.names.get(&plan.name).and_then(|child| self.children.get(child)) {
            let refusal = match child.life {
                Life::Up | Life::Dead { .. } => Refusal::AlreadyStarted(child.worker()),
                _ => Refusal::AlreadyPresent,
            };
            return self.refuse(call, refusal);
        }
        match self.append(slot, plan.name.clone(), Arc::new(plan)) {
            Some(child) => self.start(child, StartWhy::Call(call, Keep::Nothing)),
            None => self.refuse(call, Refusal::Bad("there are no slot numbers left".to_owned())),
        }
    }

    fn start_copy(&mut self, call: CallId, slot: Slot, launch: u32) {
        let Some(node) = self.node_mut(slot) else { return self.refuse(call, Refusal::NotFound) };
        let (SupervisorKind::Dynamic { max_children }, Some(template)) = (node.kind, &node.template) else {
            return self.refuse(call, Refusal::Bad("only a dynamic supervisor makes copies".to_owned()));
        };
        if node.children.len() >= max_children as usize {
            return self.refuse(call, Refusal::MaxChildren(max_children));
        }
        let template = Arc::clone(template);
        let index = node.copies;
        node.copies = node.copies.wrapping_add(1);
        let name = super::plan::member_name(&template.name, index);
        let Some(copy) = self.append(slot, name, template) else {
            return self.refuse(call, Refusal::Bad("there are no slot numbers left".to_owned()));
        };
        if let Some(child) = self.children.get_mut(&copy) {
            child.index = index;
            child.launch = child.launch.map(|_| launch);
        }
        self.start(copy, StartWhy::Call(call, Keep::Nothing));
    }

    fn restart_child(&mut self, call: CallId, slot: Slot) {
        let Some(child) = self.children.get(&slot) else { return self.refuse(call, Refusal::NotFound) };
        match child.life {
            Life::Down | Life::Backoff { .. } => self.start(slot, StartWhy::Call(call, Keep::Spec)),
            Life::Restarting => self.refuse(call, Refusal::Restarting),
            Life::Up | Life::Dead { .. } | Life::Starting { .. } | Life::Stopping { .. } => {
                self.refuse(call, Refusal::Running);
            }
        }
    }

    fn terminate(&mut self, call: CallId, slot: Slot) {
        let Some(child) = self.children.get(&slot) else { return self.refuse(call, Refusal::NotFound) };
        match &child.life {
            Life::Down => self.answer(call, Answer::Done),
            Life::Restarting | Life::Backoff { .. } => {
                self.answer(call, Answer::Done);
                self.stays_down(slot);
            }
            Life::Dead { reason } => {
                let reason = reason.clone();
                self.note_end(slot, &reason, Ending::Stopped);
                self.answer(call, Answer::Done);
                self.stays_down(slot);
            }
            Life::Up => self.stop_child(slot, StopWhy::Call(call), StopReason::Terminated),
            Life::Starting { .. } => self.cancel_start(slot, StopWhy::Call(call)),
            Life::Stopping { .. } => self.answer(call, Answer::Done),
        }
    }

    /// RULES 62: a dead process is fine, one that lives elsewhere is not found.
    fn terminate_worker(&mut self, call: CallId, node: Slot, worker: WorkerId) {
        if !self.was_issued(worker) {
            return self.refuse(call, Refusal::NotFound);
        }
        let Some(child) = self.children.get(&worker.slot) else { return self.answer(call, Answer::Done) };
        if child.supervisor == Some(node) {
            if self.is_long_gone(worker) {
                self.answer(call, Answer::Done);
            } else {
                self.terminate(call, worker.slot);
            }
        } else {
            let lives = child.current == worker.incarnation && matches!(child.life, Life::Up | Life::Stopping { .. });
            let answer = if lives { Answer::Refused(Refusal::NotFound) } else { Answer::Done };
            self.answer(call, answer);
        }
    }

    fn delete_child(&mut self, call: CallId, node: Slot, slot: Slot) {
        let Some(child) = self.children.get(&slot) else { return self.refuse(call, Refusal::NotFound) };
        if self.node(node).is_some_and(|node| node.is_pool()) {
            return self.refuse(call, Refusal::Bad("a pool is resized, its members are not deleted".to_owned()));
        }
        match child.life {
            Life::Down => {
                self.answer(call, Answer::Done);
                self.forget(slot);
            }
            Life::Restarting | Life::Backoff { .. } => self.refuse(call, Refusal::Restarting),
            Life::Up | Life::Dead { .. } | Life::Starting { .. } | Life::Stopping { .. } => {
                self.refuse(call, Refusal::Running);
            }
        }
    }

    /// The answer to a call that only reads; `None`: it is another call, or about a child that is not there.
    fn read(&self, request: &Request) -> Option<Answer> {
        match request {
            Request::WhichChildren { supervisor } => self.node(*supervisor).map(|node| {
                let newest_first = node.children.values().rev().filter_map(|slot| self.children.get(slot));
                Answer::Children(
                    newest_first
                        .map(|child| ChildState {
                            name: child.name.clone(),
                            slot: child.slot,
                            state: child.state(self.now),
                            supervisor: child.node.is_some(),
                        })
                        .collect(),
                )
            }),
            Request::CountChildren { supervisor } => self.count_children(*supervisor).map(Answer::Counts),
            Request::ChildSpec { supervisor, name } => {
                let spec =
                    self.node(*supervisor).and_then(|node| node.names.get(name)).and_then(|slot| self.spec(*slot));
                Some(spec.map_or(Answer::Refused(Refusal::NotFound), Answer::Spec))
            }
            _ => None,
        }
    }

    /// RULES 61, and 62 for copies: one specification, and as many workers as there are copies.
    fn count_children(&self, slot: Slot) -> Option<Counts> {
        let node = self.node(slot)?;
        let mut counts = Counts::default();
        for child in node.children.values().filter_map(|slot| self.children.get(slot)) {
            counts.specs += 1;
            counts.active += u32::from(matches!(child.life, Life::Up | Life::Stopping { ready: true, .. }));
            match child.plan.kind {
                ChildKind::Supervisor(_) => counts.supervisors += 1,
                ChildKind::Worker { .. } => counts.workers += 1,
            }
        }
        if node.is_dynamic() {
            counts.specs = 1;
        }
        Some(counts)
    }
}

/// The node that a call is addressed to.
fn node_of(request: &Request) -> Slot {
    match request {
        Request::StartChild { supervisor, .. }
        | Request::StartCopy { supervisor, .. }
        | Request::RestartChild { supervisor, .. }
        | Request::TerminateChild { supervisor, .. }
        | Request::TerminateWorker { supervisor, .. }
        | Request::DeleteChild { supervisor, .. }
        | Request::WhichChildren { supervisor }
        | Request::CountChildren { supervisor }
        | Request::ChildSpec { supervisor, .. }
        | Request::Resize { supervisor, .. } => *supervisor,
        Request::Reload { slot, .. } => *slot,
    }
}
