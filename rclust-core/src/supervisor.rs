//! The tree, configured in code: strategy, intensity, children.

use std::time::Duration;

use crate::child_spec::{IntoChild, Launch, Launches, Piece};
use crate::cluster::Cluster;
use crate::error::StartError;
use crate::run::open;
use crate::tree::plan::{
    AutoShutdown, ChildKind, ChildPlan, Intensity, Restart, Shutdown, Strategy, SupervisorKind, SupervisorPlan,
};

/// A supervisor and its children. The outermost one is started; inner ones are children like others, with a name.
///
/// It follows OTP's `supervisor` rule for rule; defaults are OTP's: at most 1 restart in 5 s, then it gives up.
#[must_use = "a supervisor does nothing until it is started"]
pub struct Supervisor {
    name: Option<String>,
    strategy: Strategy,
    intensity: Intensity,
    restart: Restart,
    shutdown: Shutdown,
    auto_shutdown: AutoShutdown,
    children: Vec<Piece>,
    launches: Launches,
    /// The first child that could not be.
    failed: Option<StartError>,
}

impl Supervisor {
    fn new(strategy: Strategy) -> Supervisor {
        Supervisor {
            name: None,
            strategy,
            intensity: Intensity::Limited { restarts: 1, within: Duration::from_secs(5) },
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            auto_shutdown: AutoShutdown::Never,
            children: Vec::new(),
            launches: Launches::default(),
            failed: None,
        }
    }

    /// A child that ended is restarted alone.
    ///
    /// # Source
    /// OTP, `supervisor`, "Restart Strategy" (rule 24).
    pub fn one_for_one() -> Supervisor {
        Supervisor::new(Strategy::OneForOne)
    }

    /// If a child ends, all others are stopped, last to first, and all are started again, first to last.
    ///
    /// # Source
    /// OTP, `supervisor`, "Restart Strategy" (rules 25, 28, 29).
    pub fn one_for_all() -> Supervisor {
        Supervisor::new(Strategy::OneForAll)
    }

    /// If a child ends, those after it are stopped, last to first, and it and they are started again, first to last.
    ///
    /// # Source
    /// OTP, `supervisor`, "Restart Strategy" (rules 26 to 29).
    pub fn rest_for_one() -> Supervisor {
        Supervisor::new(Strategy::RestForOne)
    }

    /// The name of this supervisor among its siblings; an inner one needs it.
    pub fn named(mut self, name: impl Into<String>) -> Supervisor {
        self.name = Some(name.into());
        self
    }

    /// At most `restarts` within `within` (milliseconds count); one more and it stops its children and ends. 1 in 5 s unless
    /// said otherwise.
    ///
    /// # Source
    /// OTP, `supervisor`, "Maximum Restart Intensity": one counter for all children and causes.
    pub fn intensity(mut self, restarts: u32, within: Duration) -> Supervisor {
        self.intensity = Intensity::Limited { restarts, within };
        self
    }

    /// Whether the end of significant children ends this supervisor; never unless said otherwise.
    ///
    /// # Source
    /// OTP, `supervisor`, "Automatic Shutdown".
    pub fn auto_shutdown(mut self, when: AutoShutdown) -> Supervisor {
        self.auto_shutdown = when;
        self
    }

    /// When this supervisor itself, as a child, is started again; permanent unless said otherwise. Giving up is a normal end.
    ///
    /// # Source
    /// OTP, `supervisor`, `restart` in `child_spec()` (rules 11, 46, 48).
    pub fn restart(mut self, restart: Restart) -> Supervisor {
        self.restart = restart;
        self
    }

    /// Adds a child behind those that are there: children are started in this order and stopped in the reverse one.
    ///
    /// # Source
    /// OTP, `supervisor`, "Child Specification" and start and stop order (rules 3, 7, 44).
    pub fn child(mut self, child: impl IntoChild) -> Supervisor {
        if self.failed.is_none() {
            match child.into_child(&mut self.launches) {
                Ok(piece) => self.children.push(piece),
                Err(error) => self.failed = Some(error),
            }
        }
        self
    }

    fn plan(self) -> SupervisorPlan {
        SupervisorPlan {
            strategy: self.strategy,
            intensity: self.intensity,
            auto_shutdown: self.auto_shutdown,
            kind: SupervisorKind::Tree,
            children: self.children.into_iter().map(|piece| piece.0).collect(),
        }
    }

    /// Starts the tree, and returns when every child is ready.
    ///
    /// # Errors
    /// Everything that can be known is refused before a process is started: a process that never passed [`boot`](crate::boot),
    /// a worker process, a second tree, a type that is not among the program's roles, names used twice. Then the first failed
    /// start of a child, after the children before it have been stopped in reverse order.
    ///
    /// An operator's signal that stops the tree while it is starting ends the program with exit code 0: this future is then
    /// dropped with the body.
    /// # Cancel safety
    /// Dropped before completion, the tree goes on starting; it is stopped when `main` ends.
    pub async fn start(self) -> Result<Cluster, StartError> {
        let (plan, launches) = self.parts()?;
        open::start(plan, launches).await
    }

    /// What decides, and what is run.
    pub(crate) fn parts(mut self) -> Result<(SupervisorPlan, Vec<Launch>), StartError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let launches = std::mem::take(&mut self.launches);
        Ok((self.plan(), launches.0))
    }
}

impl IntoChild for Supervisor {
    fn into_child(mut self, launches: &mut Launches) -> Result<Piece, StartError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(name) = self.name.take() else {
            return Err(StartError::Unnamed);
        };
        let offset = launches.0.len() as u32;
        launches.0.append(&mut self.launches.0);
        let (restart, shutdown) = (self.restart, self.shutdown);
        let mut plan = self.plan();
        renumber(&mut plan, offset);
        let start_timeout = crate::child_spec::START_TIMEOUT;
        let kind = ChildKind::Supervisor(plan);
        Ok(Piece(ChildPlan { name, restart, shutdown, significant: false, start_timeout, backoff: None, kind }))
    }
}

/// The launches of an inner supervisor stand behind those of the outer one.
fn renumber(plan: &mut SupervisorPlan, offset: u32) {
    for child in &mut plan.children {
        renumber_child(child, offset);
    }
}

/// The same for one child.
pub(crate) fn renumber_child(child: &mut ChildPlan, offset: u32) {
    match &mut child.kind {
        ChildKind::Worker { launch } => *launch += offset,
        ChildKind::Supervisor(inner) => renumber(inner, offset),
    }
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.children.iter().map(|piece| piece.0.name.as_str()).collect();
        f.debug_struct("Supervisor").field("strategy", &self.strategy).field("children", &names).finish_non_exhaustive()
    }
}
