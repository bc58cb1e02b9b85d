//! Management calls: from a `>` line to a request, and from its answer to OTP's words.

use rclust_core::tree::event::{Answer, CallId, Event as Input, Refusal, Request};
use rclust_core::tree::plan::ChildPlan;

use super::player::Player;
use super::scenario::{Event, Role, StartStyle};
use super::terms;
use super::world::World;

impl<W: World> Player<'_, W> {
    /// Begins a management call. `None`: there is nobody to ask.
    pub(super) fn call(&mut self, event: &Event) -> Option<CallId> {
        let request = self.request(event)?;
        self.calls += 1;
        let call = CallId(self.calls);
        self.tell(Input::Call { call, request });
        Some(call)
    }

    pub(super) fn request(&mut self, event: &Event) -> Option<Request> {
        let named = |x: &String| Some((self.up(self.parent(x)?)?, x.clone()));
        Some(match event {
            Event::Restart(x) => named(x).map(|(supervisor, name)| Request::RestartChild { supervisor, name })?,
            Event::Delete(x) => named(x).map(|(supervisor, name)| Request::DeleteChild { supervisor, name })?,
            Event::Terminate(x) => {
                let (supervisor, name) = named(x)?;
                if self.scenario.member(x).is_some() {
                    Request::TerminateChild { supervisor, name }
                } else {
                    Request::TerminateWorker { supervisor, worker: *self.latest.get(x)? }
                }
            }
            Event::Start(x) => {
                let (supervisor, name) = named(x)?;
                match self.child_plan(x) {
                    Ok(child) => Request::StartChild { supervisor, child },
                    // Our types cannot say it; the answer is made without asking.
                    Err(_) => Request::ChildSpec { supervisor, name },
                }
            }
            Event::Spawn(sup, label) => {
                let supervisor = self.up(sup)?;
                let launch = self.scenario.children(sup).next().and_then(|template| self.launch(template))?;
                self.spawning = Some(label.clone());
                Request::StartCopy { supervisor, launch }
            }
            Event::Which(sup) => Request::WhichChildren { supervisor: self.up(sup)? },
            _ => return None,
        })
    }

    /// The answer to a call, in OTP's words.
    pub(super) fn result(&mut self, event: &Event, call: Option<CallId>) -> String {
        let Some(call) = call else {
            let copy = matches!(event, Event::Terminate(x) if self.scenario.member(x).is_none() && !self.latest.contains_key(x));
            return if copy { "not-running".to_owned() } else { "noproc".to_owned() };
        };
        let Some(answer) = self.answers.remove(&call) else { return "no-answer".to_owned() };
        let x = match event {
            Event::Start(x) | Event::Restart(x) | Event::Terminate(x) | Event::Delete(x) | Event::Which(x) => x,
            Event::Spawn(_, label) => label,
            _ => return "no-call".to_owned(),
        };
        if let (Event::Start(x), Answer::Spec(_) | Answer::Refused(Refusal::NotFound)) = (event, &answer) {
            // What our types cannot say was not asked for (see `request`).
            return format!("error {}", self.child_plan(x).err().unwrap_or_default());
        }
        match answer {
            Answer::Started(worker) => {
                let info = match &self.template(x).map(|member| &member.role) {
                    Some(Role::Worker { start: StartStyle::Info, .. }) => " info",
                    _ => "",
                };
                format!("ok {}{info}", self.name(worker))
            }
            Answer::Declined => "ok undefined".to_owned(),
            Answer::Done => "ok".to_owned(),
            Answer::Children(children) => {
                let states = children.into_iter().map(|child| (child.slot, child.name, child.state)).collect();
                self.list(x, states)
            }
            Answer::Refused(refusal) => self.refusal(event, x, refusal),
            Answer::Counts(_) | Answer::Spec(_) => "no-answer".to_owned(),
        }
    }

    pub(super) fn refusal(&self, event: &Event, x: &str, refusal: Refusal) -> String {
        let term = match refusal {
            Refusal::NotRunning | Refusal::Stopping => return "noproc".to_owned(),
            Refusal::AlreadyStarted(worker) => format!("already_started {}", self.name(worker)),
            Refusal::AlreadyPresent => "already_present".to_owned(),
            Refusal::Running => "running".to_owned(),
            Refusal::Restarting => "restarting".to_owned(),
            Refusal::NotFound => "not_found".to_owned(),
            Refusal::Dynamic => "simple_one_for_one".to_owned(),
            Refusal::Failed(_) => {
                let term = self.terms.get(x).cloned().unwrap_or_default();
                if matches!(event, Event::Start(_)) { format!("start_failed {term}") } else { term }
            }
            Refusal::Bad(_) if self.scenario.member(x).is_some_and(|member| member.significant == "true") => {
                let sup = self.parent(x).and_then(|sup| self.scenario.member(sup));
                sup.map(|sup| terms::bad_combination(self.scenario, sup, x)).unwrap_or_default()
            }
            other => format!("{other:?}"),
        };
        format!("error {term}")
    }

    pub(super) fn child_plan(&mut self, x: &str) -> Result<ChildPlan, String> {
        let Some(member) = self.scenario.member(x) else { return Err("undeclared".to_owned()) };
        let refused = &mut self.refused;
        terms::child(self.scenario, member, &mut |id, term| {
            refused.insert(id.to_owned(), term);
        })
    }
}
