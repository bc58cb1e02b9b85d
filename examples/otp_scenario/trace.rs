//! What the trace says: one line for each thing that a supervisor did or saw.

use rclust_core::tree::event::{Answer, CallId, Counts, Ending, Event as Input, Notice, Request, State};
use rclust_core::{ExitReason, Slot, WorkerId};

use super::player::Player;
use super::scenario::Mode;
use super::terms;
use super::who::is_dynamic;
use super::world::World;

impl<W: World> Player<'_, W> {
    pub(super) fn note(&mut self, notice: Notice) {
        match notice {
            Notice::Up { worker } | Notice::SupervisorUp { supervisor: worker } => self.came_up(worker),
            Notice::Ended { worker, reason, how } => self.ended(worker, &reason, how),
            _ => {}
        }
    }

    pub(super) fn came_up(&mut self, worker: WorkerId) {
        if worker.slot == Slot::SUPERVISOR {
            return;
        }
        let label = self.labels.get(&worker.slot).cloned().unwrap_or_default();
        let instance = self.instances.entry(label.clone()).or_default();
        *instance += 1;
        let name = format!("{label}#{instance}");
        self.line(format!(" + {name}"));
        self.names.insert(worker, name);
        self.latest.insert(label, worker);
        // A supervisor that crashes in a loop does so as soon as its start has returned.
        if let Some(reason) = self.doomed.remove(&worker) {
            self.crashing.push_back((worker.slot, reason));
        }
    }

    pub(super) fn ended(&mut self, worker: WorkerId, reason: &ExitReason, how: Ending) {
        match how {
            Ending::Died | Ending::Stopped | Ending::Retired => {
                let line = format!(" - {} {}", self.name(worker), terms::reason(reason));
                let copy_of = self.copy_of.get(&worker.slot).copied().filter(|_| how == Ending::Stopped);
                match (copy_of, self.killed) {
                    (_, Some((killed, at))) if killed == worker => {
                        self.killed = None;
                        self.lines.insert(at.min(self.lines.len()), line);
                    }
                    (Some(sup), _) => self.parallel_line(sup, line),
                    _ => self.line(line),
                }
            }
            Ending::StartFailed | Ending::Cancelled => self.failed(worker),
            Ending::Orphaned => {
                if let Some(name) = self.names.get(&worker) {
                    self.orphans.insert(format!(" o {name} {}", terms::reason(reason)));
                }
            }
        }
    }

    /// A start attempt gave no process.
    pub(super) fn failed(&mut self, worker: WorkerId) {
        let slot = worker.slot;
        let label = self.labels.get(&slot).cloned().unwrap_or_default();
        let (mode, term) = match self.meant.remove(&worker) {
            Some(mode) => {
                let term = self.refused.get(&label).cloned().unwrap_or_else(|| terms::failure(mode).to_owned());
                (mode, term)
            }
            None => (Mode::Error, self.boot_failure(slot)),
        };
        self.line(format!(" ! {label} {}", terms::mode(mode)));
        self.terms.insert(label.clone(), term.clone());
        if let Some(supervisor) = self.supervisors.get(&slot).copied() {
            self.failed_child.insert(supervisor, (label, term));
        }
    }

    /// Why a supervisor's boot failed.
    pub(super) fn boot_failure(&self, slot: Slot) -> String {
        let (child, term) = self.failed_child.get(&slot).cloned().unwrap_or_default();
        format!("{{shutdown,{{failed_to_start_child,{child},{term}}}}}")
    }

    pub(super) fn line(&mut self, line: String) {
        self.parallel = None;
        self.lines.push(line);
    }

    /// A run of parallel stops under one supervisor is sorted.
    pub(super) fn parallel_line(&mut self, sup: Slot, line: String) {
        let begin = match self.parallel {
            Some((of, begin)) if of == sup => begin,
            _ => self.lines.len(),
        };
        self.parallel = Some((sup, begin));
        self.lines.push(line);
        if let Some(run) = self.lines.get_mut(begin..) {
            run.sort();
        }
    }

    pub(super) fn flush(&mut self, out: &mut String) {
        for line in self.lines.drain(..).chain(std::mem::take(&mut self.orphans)) {
            out.push_str(&line);
            out.push('\n');
        }
        self.killed = None;
        self.parallel = None;
    }

    /// One line for each supervisor that is up.
    pub(super) fn print_states(&mut self, out: &mut String) {
        let scenario = self.scenario;
        for sup in scenario.members.iter().filter(|member| member.is_sup()) {
            let Some(State::Up(supervisor)) = self.state(&sup.id) else { continue };
            let supervisor = supervisor.slot;
            let children = match self.ask(Request::WhichChildren { supervisor }) {
                Some(Answer::Children(children)) => children,
                _ => Vec::new(),
            };
            let counts = match self.ask(Request::CountChildren { supervisor }) {
                Some(Answer::Counts(counts)) => counts,
                _ => Counts::default(),
            };
            let states = children.into_iter().map(|child| (child.slot, child.name, child.state)).collect();
            let Counts { specs, active, supervisors, workers } = counts;
            let (id, list) = (&sup.id, self.list(&sup.id, states));
            out.push_str(&format!(
                " = {id} {list} specs={specs} active={active} supervisors={supervisors} workers={workers}\n"
            ));
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Option<Answer> {
        self.calls += 1;
        let call = CallId(self.calls);
        self.tell(Input::Call { call, request });
        self.answers.remove(&call)
    }

    /// The list of children, newest first; copies sorted by name.
    pub(super) fn list(&self, sup: &str, children: Vec<(Slot, String, State)>) -> String {
        let dynamic = self.scenario.member(sup).is_some_and(is_dynamic);
        let mut shown: Vec<String> = children
            .into_iter()
            .map(|(slot, name, state)| {
                let label = self.labels.get(&slot).unwrap_or(&name);
                match state {
                    State::Up(worker) | State::Stopping(worker) => self.name(worker),
                    State::Down => format!("{label}:down"),
                    // OTP would answer after the attempt, and it fails.
                    State::Starting(_) | State::Restarting | State::Backoff(_) => format!("{label}:restarting"),
                }
            })
            .collect();
        if dynamic {
            shown.sort();
        }
        format!("[{}]", shown.join(" "))
    }
}
