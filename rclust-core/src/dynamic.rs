//! What a user says about a child that has copies, made at run time.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use crate::WorkerId;
use crate::child_spec::{Args, Common, IntoChild, Launch, Launches, Piece};
use crate::error::StartError;
use crate::process_spec::{Made, Process};
use crate::tree::plan::{
    AutoShutdown, ChildKind, ChildPlan, Intensity, Restart, Shutdown, Strategy, SupervisorKind, SupervisorPlan,
};
use crate::wire::payload;
use crate::worker::{Role, Worker};

/// A child of a supervisor: any number of copies of one template, made at run time, each with arguments of its own.
///
/// Copies are temporary unless said otherwise, and are addressed by their references. A restarted supervisor has none.
///
/// # Source
/// OTP's `simple_one_for_one`.
#[must_use]
pub struct Dynamic<W> {
    common: Common,
    most: u32,
    intensity: Intensity,
    _worker: PhantomData<fn() -> W>,
}

impl<W: Worker> Dynamic<W> {
    /// A dynamic supervisor of this name, which is unique among its siblings.
    pub fn new(name: impl Into<String>) -> Dynamic<W> {
        let mut common = Common::new(name.into());
        common.restart = Restart::Temporary;
        let intensity = Intensity::Limited { restarts: 1, within: Duration::from_secs(5) };
        Dynamic { common, most: 1024, intensity, _worker: PhantomData }
    }

    /// When a copy is started again, with its arguments; never unless said otherwise.
    pub fn restart(mut self, restart: Restart) -> Self {
        self.common.restart = restart;
        self
    }

    /// How a copy is stopped; 5 s, then killed, unless said otherwise.
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.common.shutdown = shutdown;
        self
    }

    /// A copy that is not ready after this long is killed and has failed to start; 30 s unless said otherwise.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.common.start_timeout = limit;
        self
    }

    /// What the process of a copy is like; see [`Process`].
    pub fn process(mut self, process: Process) -> Self {
        self.common.process = Made::Same(process);
        self
    }

    /// What the process of each copy's incarnations is like, made anew for each; the second argument is the copy's number. Called
    /// by the supervisor, on its tree thread: it must not block.
    pub fn process_with(mut self, make: impl Fn(WorkerId, usize) -> Process + Send + Sync + 'static) -> Self {
        self.common.process = Made::Each(Arc::new(make));
        self
    }

    /// At most so many copies at a time; 1024 unless said otherwise.
    pub fn max_children(mut self, most: u32) -> Self {
        self.most = most;
        self
    }

    /// At most `restarts` of copies within `within`; 1 in 5 s unless said otherwise.
    pub fn intensity(mut self, restarts: u32, within: Duration) -> Self {
        self.intensity = Intensity::Limited { restarts, within };
        self
    }
}

impl<W: Worker> IntoChild for Dynamic<W> {
    fn into_child(self, launches: &mut Launches) -> Result<Piece, StartError> {
        let (most, intensity) = (self.most, self.intensity);
        let template = self.common.plan::<W>(&mut launches.0);
        if let Some(launch) = launches.0.last_mut() {
            launch.template = true;
        }
        Ok(Piece(ChildPlan {
            name: template.name.clone(),
            restart: Restart::Permanent,
            shutdown: Shutdown::Infinity,
            significant: false,
            start_timeout: template.start_timeout,
            backoff: None,
            kind: ChildKind::Supervisor(SupervisorPlan {
                strategy: Strategy::OneForOne,
                intensity,
                auto_shutdown: AutoShutdown::Never,
                kind: SupervisorKind::Dynamic { max_children: most },
                children: vec![template],
            }),
        }))
    }
}

impl<W> std::fmt::Debug for Dynamic<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dynamic `{}`: {}", self.common.name, type_name::<W>())
    }
}

/// What a copy runs; the rest is its template's.
pub(crate) fn copy<W: Worker>(args: &W::Args) -> Launch {
    Launch { copy: true, ..Launch::new(Role::of::<W>(), Args::Same(payload::encode_plain(args))) }
}
