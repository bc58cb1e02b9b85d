//! Reload: which program stands at the path now, which slot runs which, and the operator's signals for it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::background;
use crate::exit::ExitReason;
use crate::id::Slot;
use crate::process::spawn::Program;
use crate::run::shared::Command;
use crate::run::supervise::Supervise;
use crate::supervisor_ref;
use crate::trace::Story;
use crate::tree::event::{Answer, Refusal, Request};
use crate::worker_count::LARGEST;

/// Which program runs where. The first one is the ground's, and named by `None`.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// What the next replacement runs: what stood at the path when the last reload was ordered.
    next: Option<Program>,
    /// What new slots run: the last program with which a worker became ready.
    newest: Option<Program>,
    /// What a slot's worker runs, and its restarts too: since it was ready with it, or since a reload found nobody there.
    of: HashMap<Slot, Option<Program>>,
    /// How many orders to reload are being carried out: until they are, nothing is recycled, which would run another program.
    deploying: u32,
    /// How large the pool that signals resize is to be, and how many orders for that are under way.
    size: Option<u32>,
    resizing: u32,
    /// Whether a reload of the whole tree, ordered by a signal, is under way, and whether another one is to follow.
    signalled: bool,
    again: bool,
}

impl Reloads {
    /// A worker is ready: its slot's restarts run its program.
    pub(crate) fn now_runs(&mut self, slot: Slot, program: &Option<Program>) {
        self.of.insert(slot, program.clone());
        let Some(program) = program else { return };
        if self.next.as_ref().is_some_and(|next| Arc::ptr_eq(&next.file, &program.file)) {
            self.newest = Some(program.clone());
        }
    }

    /// Whether a reload is being carried out.
    pub(crate) fn deploys(&self) -> bool {
        self.deploying > 0
    }

    /// A slot will never be filled again.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.of.remove(&slot);
    }
}

impl Supervise {
    /// What a worker of this slot that is to be started runs.
    pub(crate) fn program_of(&self, slot: Slot) -> Option<Program> {
        if self.current(slot).is_some_and(|current| !self.recycling.is(current)) {
            return self.reloads.next.clone();
        }
        // One that was never ready runs what new ones run.
        self.reloads.of.get(&slot).unwrap_or(&self.reloads.newest).clone()
    }

    /// A reload was ordered: it runs what stands at the path now.
    pub(crate) fn deploy(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        match self.look_for_program() {
            Ok(()) => {
                let Request::Reload { slot, .. } = request else { return };
                let (sender, told) = oneshot::channel();
                let (shared, program) = (self.shared.clone(), self.reloads.next.clone());
                background::spawn(async move {
                    let Ok(outcome) = told.await else { return };
                    shared.command(Command::Deployed { slot, program, outcome, answer });
                });
                self.reloads.deploying += 1;
                self.manage(request, Vec::new(), sender);
            }
            // Its caller may have gone away.
            Err(reason) => drop(answer.send(Answer::Refused(Refusal::Failed(reason)))),
        }
    }

    /// A reload has ended. If it went well, what was down or failing meanwhile comes up with the new program too.
    pub(crate) fn deployed(
        &mut self,
        slot: Slot,
        program: Option<Program>,
        outcome: Answer,
        answer: oneshot::Sender<Answer>,
    ) {
        if !matches!(outcome, Answer::Refused(_)) {
            let mut nodes = vec![slot];
            while let Some(slot) = nodes.pop() {
                nodes.extend(self.tree.children(slot));
                if self.current(slot).is_none() {
                    self.reloads.of.insert(slot, program.clone());
                }
            }
        }
        // Its caller may have gone away.
        let _ = answer.send(outcome);
        self.reloads.deploying -= 1;
        self.recycle_next();
    }

    fn look_for_program(&mut self) -> Result<(), ExitReason> {
        let Some(first) = self.shared.ground.program() else { return Ok(()) };
        let found = first.reopen().map_err(|error| ExitReason::Spawn(format!("the program to reload: {error}")))?;
        // One that has not changed needs no other descriptor, and a restart of it no other name.
        let known = self.reloads.newest.clone().unwrap_or_else(|| first.clone());
        self.reloads.next = Some(if known.identity == found.identity { known } else { found });
        Ok(())
    }

    /// SIGHUP. Orders that come while one is carried out are one more, after it.
    pub(crate) fn reload_all(&mut self) {
        let meaning = if self.reloads.signalled { "one more reload, after this one" } else { "reloading" };
        self.story(Story::Signal { name: "SIGHUP", meaning });
        if std::mem::replace(&mut self.reloads.signalled, true) {
            self.reloads.again = true;
            return;
        }
        let (answer, told) = oneshot::channel();
        let shared = self.shared.clone();
        background::spawn(async move {
            let answer = told.await.ok();
            shared.command(Command::Reloaded { answer });
        });
        self.deploy(Request::Reload { slot: Slot::SUPERVISOR, surge: 1 }, answer);
    }

    pub(crate) fn reloaded(&mut self, answer: Option<Answer>) {
        self.reloads.signalled = false;
        let text = match answer {
            Some(Answer::Refused(Refusal::Failed(reason))) => {
                format!("failed, what was not replaced goes on as it is: {reason}")
            }
            Some(Answer::Refused(refusal)) => format!("refused: {}", supervisor_ref::words(&refusal)),
            Some(_) => "done".to_owned(),
            None => return,
        };
        self.story(Story::Reload { text });
        if std::mem::take(&mut self.reloads.again) && !self.stopping {
            self.reload_all();
        }
    }

    /// SIGTTIN and SIGTTOU: one worker more, one fewer, in the tree's only pool.
    pub(crate) fn resize_by_signal(&mut self, name: &'static str) {
        let pools: Vec<(Slot, u32)> = {
            let directory = self.shared.directory.read();
            let sized = |(path, members): (&String, &Vec<_>)| Some((*directory.nodes.get(path)?, members.len() as u32));
            directory.pools.iter().filter_map(sized).collect()
        };
        let [(supervisor, size)] = pools[..] else {
            return self.story(Story::Signal { name, meaning: "ignored, the tree has not exactly one pool" });
        };
        // Orders that are under way count.
        let size = self.reloads.size.unwrap_or(size);
        let (size, meaning) = match name {
            "SIGTTIN" if size as usize >= LARGEST => {
                return self.story(Story::Signal { name, meaning: "ignored, a pool has no more" });
            }
            "SIGTTIN" => (size + 1, "one worker more"),
            _ if size <= 1 => return self.story(Story::Signal { name, meaning: "ignored, there is one worker" }),
            _ => (size - 1, "one worker fewer"),
        };
        self.story(Story::Signal { name, meaning });
        self.reloads.size = Some(size);
        self.reloads.resizing += 1;
        let (answer, told) = oneshot::channel();
        let shared = self.shared.clone();
        background::spawn(async move {
            // Refused or done: what there is then is what there is.
            let _ = told.await;
            shared.command(Command::Resized);
        });
        self.manage(Request::Resize { supervisor, size }, Vec::new(), answer);
    }

    /// An order to resize by a signal has been carried out, or refused.
    pub(crate) fn resized(&mut self) {
        self.reloads.resizing -= 1;
        if self.reloads.resizing == 0 {
            self.reloads.size = None;
        }
    }
}
