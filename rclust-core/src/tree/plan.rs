//! What the tree is to look like: plain data, made by the builders, checked here.

use std::collections::HashSet;
use std::time::Duration;

/// Nodes below nodes: more levels than this are refused, so that walking the tree never exhausts a stack.
pub const MAX_DEPTH: usize = 64;

/// When a child is started again after it ended.
///
/// # Source
/// OTP, `supervisor`, `restart` in `child_spec()` (rules 11, 12, 28).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Only when it ended abnormally ([`ExitReason::is_normal`](crate::exit::ExitReason::is_normal)).
    Transient,
    /// Never.
    Temporary,
}

/// How a child is stopped.
///
/// # Source
/// OTP, `supervisor`, `shutdown` in `child_spec()` (rules 39 to 42).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// Asked, and killed if it still lives after this time.
    Timeout(Duration),
    /// Asked, and waited for without limit. The default of a supervisor node.
    Infinity,
    /// Killed at once.
    BrutalKill,
}

/// Who goes down with whom.
///
/// # Source
/// OTP, `supervisor`, "Restart Strategy" (rules 24 to 31).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Strategy {
    /// The ended child alone is restarted.
    #[default]
    OneForOne,
    /// All children are stopped and started again.
    OneForAll,
    /// The ended child and those after it.
    RestForOne,
}

/// When the end of significant children ends their supervisor.
///
/// # Source
/// OTP, `supervisor`, "Automatic Shutdown" (rules 49 to 54).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AutoShutdown {
    /// Never.
    #[default]
    Never,
    /// With the first.
    AnySignificant,
    /// With the last.
    AllSignificant,
}

/// How many restarts are allowed in which period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intensity {
    /// At most `restarts` within `within`; one more and the supervisor gives up.
    Limited {
        /// How many are allowed.
        restarts: u32,
        /// In which period; more than zero.
        within: Duration,
    },
    /// Restarts of children that had been ready are not limited. `failed_starts` in a row of one slot end it.
    FailedStarts {
        /// How many failed starts in a row are one too many.
        failed_starts: u32,
    },
}

/// A delay before a restart that follows a failed start or an early death.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backoff {
    /// The first delay; it doubles with every failure in a row.
    pub first: Duration,
    /// The largest delay.
    pub cap: Duration,
    /// A child that was up this long has no history.
    pub healthy_after: Duration,
    /// Up to this part of the delay (0.0 to 1.0) is taken off at random.
    pub jitter: f64,
    /// Whether the death of a child that had been ready (for less than `healthy_after`) also waits; else only failed starts do.
    pub after_ready: bool,
}

impl Backoff {
    /// From `first`, doubling with every failure in a row, to at most `cap`; a tenth is taken off at random. The history is
    /// forgotten when the child was up for ten times `cap`; only failed starts wait.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Backoff {
        Backoff { first, cap, healthy_after: cap * 10, jitter: 0.1, after_ready: false }
    }
}

/// A supervisor node and its children.
#[derive(Clone, Debug)]
pub struct SupervisorPlan {
    /// Who goes down with whom.
    pub strategy: Strategy,
    /// How many restarts.
    pub intensity: Intensity,
    /// Significant children.
    pub auto_shutdown: AutoShutdown,
    /// What kind of node.
    pub kind: SupervisorKind,
    /// In start order. A dynamic node has exactly one: its template.
    pub children: Vec<ChildPlan>,
}

/// What kind of supervisor node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SupervisorKind {
    /// Children one after the other, as OTP's.
    Tree,
    /// Alike children, started and stopped all at once.
    Pool,
    /// Copies of one template, made at run time (OTP's `simple_one_for_one`).
    Dynamic {
        /// At most this many copies.
        max_children: u32,
    },
}

/// A child's specification.
#[derive(Clone, Debug)]
pub struct ChildPlan {
    /// Unique among its siblings.
    pub name: String,
    /// When it is started again.
    pub restart: Restart,
    /// How it is stopped.
    pub shutdown: Shutdown,
    /// Whether its end can end its supervisor.
    pub significant: bool,
    /// Not ready after this long: killed, a failed start. (Of no meaning for a supervisor node: its children have theirs.)
    pub start_timeout: Duration,
    /// The delay before restarts; `None` is OTP's behaviour.
    pub backoff: Option<Backoff>,
    /// What it is.
    pub kind: ChildKind,
}

/// What a child is.
#[derive(Clone, Debug)]
pub enum ChildKind {
    /// A process. `launch` is the performer's number for what to run.
    Worker {
        /// Comes back in `Action::Start`.
        launch: u32,
    },
    /// A node of the tree with children of its own.
    Supervisor(SupervisorPlan),
}

/// A plan that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Two children of one supervisor have the same name.
    #[error("two children are named `{path}`: names are unique among the children of one supervisor")]
    DuplicateName {
        /// The path of the name.
        path: String,
    },
    /// A name is empty or has a character that paths use.
    #[error("`{path}` cannot be a child's name: it must not be empty nor contain `/`, `[`, `]` or control characters")]
    BadName {
        /// The path of the name.
        path: String,
    },
    /// The period of the restart intensity is zero.
    #[error("the restart intensity of `{path}` has a period of zero: give a time, such as 5 s")]
    ZeroPeriod {
        /// The supervisor.
        path: String,
    },
    /// A significant child needs a supervisor with `auto_shutdown`, and must not be permanent.
    #[error("`{path}` is significant, {why}")]
    Significant {
        /// The child.
        path: String,
        /// What does not fit.
        why: &'static str,
    },
    /// A pool's members are workers, alike, named after the pool.
    #[error("the pool `{path}` {why}")]
    Pool {
        /// The pool.
        path: String,
        /// What does not fit.
        why: &'static str,
    },
    /// The backoff's jitter is no part of a delay.
    #[error("the backoff of `{path}` has a jitter of {jitter}: give a part of the delay, from 0.0 to 1.0")]
    Jitter {
        /// The child.
        path: String,
        /// The value, as text.
        jitter: String,
    },
    /// Supervisors are nested more deeply than [`MAX_DEPTH`].
    #[error("`{path}` is nested more than {MAX_DEPTH} levels deep")]
    TooDeep {
        /// The supervisor.
        path: String,
    },
    /// A dynamic supervisor needs exactly one template and no `auto_shutdown`.
    #[error("the dynamic supervisor `{path}` {why}")]
    Dynamic {
        /// The supervisor.
        path: String,
        /// What does not fit.
        why: &'static str,
    },
}

impl SupervisorPlan {
    /// Checks the whole plan, before anything of it is started.
    ///
    /// # Source
    /// RULES 3 to 6; that a dynamic node takes no `auto_shutdown` is what OTP does since 26 (RULES 55).
    ///
    /// # Errors
    /// The first thing that cannot be, in the order of the tree.
    pub fn check(&self) -> Result<(), PlanError> {
        self.check_at("", "", 0)
    }

    /// Checks this node, whose own name is `name` and whose path is `path` (both empty: the root).
    fn check_at(&self, path: &str, name: &str, depth: usize) -> Result<(), PlanError> {
        let shown = || if path.is_empty() { "(root)".to_owned() } else { path.to_owned() };
        if depth > MAX_DEPTH {
            return Err(PlanError::TooDeep { path: shown() });
        }
        if matches!(self.intensity, Intensity::Limited { within, .. } if within.is_zero()) {
            return Err(PlanError::ZeroPeriod { path: shown() });
        }
        match self.kind {
            SupervisorKind::Tree => {}
            SupervisorKind::Dynamic { .. } => self.check_dynamic(shown())?,
            SupervisorKind::Pool => self.check_pool(shown())?,
        }
        let mut names = HashSet::new();
        for (index, child) in self.children.iter().enumerate() {
            let at = child_path(path, self.kind, &child.name);
            let legal = match self.kind {
                SupervisorKind::Pool => is_member_name(&child.name, name, index),
                SupervisorKind::Tree | SupervisorKind::Dynamic { .. } => is_name(&child.name),
            };
            if !legal {
                return Err(PlanError::BadName { path: at });
            }
            if !names.insert(child.name.as_str()) {
                return Err(PlanError::DuplicateName { path: at });
            }
            child.check_at(&at, self.auto_shutdown, depth)?;
        }
        Ok(())
    }

    fn check_dynamic(&self, path: String) -> Result<(), PlanError> {
        if self.auto_shutdown != AutoShutdown::Never {
            return Err(PlanError::Dynamic { path, why: "cannot have auto_shutdown" });
        }
        let is_pool =
            |kind: &ChildKind| matches!(kind, ChildKind::Supervisor(plan) if plan.kind == SupervisorKind::Pool);
        match self.children.as_slice() {
            [] => Err(PlanError::Dynamic { path, why: "needs a template: one child" }),
            // The members of all copies would have the same paths.
            [template] if is_pool(&template.kind) => {
                Err(PlanError::Dynamic { path, why: "cannot make copies of a pool; put the pool below a supervisor" })
            }
            [_] => Ok(()),
            _ => Err(PlanError::Dynamic { path, why: "takes exactly one template" }),
        }
    }

    fn check_pool(&self, path: String) -> Result<(), PlanError> {
        if self.children.is_empty() {
            return Err(PlanError::Pool { path, why: "needs at least one member" });
        }
        if self.strategy != Strategy::OneForOne {
            return Err(PlanError::Pool { path, why: "is always one_for_one" });
        }
        let mut launches = self.children.iter().map(|member| match member.kind {
            ChildKind::Worker { launch } => Some(launch),
            ChildKind::Supervisor(_) => None,
        });
        match launches.next() {
            Some(Some(first)) if launches.all(|launch| launch == Some(first)) => Ok(()),
            Some(Some(_)) => Err(PlanError::Pool { path, why: "has members that differ in what they run" }),
            _ => Err(PlanError::Pool { path, why: "has a member that is no worker" }),
        }
    }
}

impl ChildPlan {
    /// Checks this child as one of a node with this `auto_shutdown` (`depth` is the node's).
    ///
    /// # Errors
    /// The first thing that cannot be, in the order of the tree.
    fn check_at(&self, path: &str, auto: AutoShutdown, depth: usize) -> Result<(), PlanError> {
        if self.significant && auto == AutoShutdown::Never {
            let why = "but its supervisor has auto_shutdown `never`";
            return Err(PlanError::Significant { path: path.to_owned(), why });
        }
        if self.significant && self.restart == Restart::Permanent {
            let why = "but permanent: a child that is always restarted never ends for good";
            return Err(PlanError::Significant { path: path.to_owned(), why });
        }
        match self.backoff {
            Some(Backoff { jitter, .. }) if !(0.0..=1.0).contains(&jitter) => {
                return Err(PlanError::Jitter { path: path.to_owned(), jitter: jitter.to_string() });
            }
            _ => {}
        }
        match &self.kind {
            ChildKind::Worker { .. } => Ok(()),
            ChildKind::Supervisor(plan) => plan.check_at(path, &self.name, depth + 1),
        }
    }

    /// Checks this child as one that is added at run time below a node of this depth.
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub(super) fn check_as_child(&self, path: &str, auto: AutoShutdown, depth: usize) -> Result<(), PlanError> {
        if !is_name(&self.name) {
            return Err(PlanError::BadName { path: path.to_owned() });
        }
        self.check_at(path, auto, depth)
    }

    /// Makes the members of a pool: `size` times this child, named `web[0]`, `web[1]`, ... after its name.
    ///
    /// The pool's own node has to have the same name.
    #[must_use]
    pub fn members(&self, size: u32) -> Vec<ChildPlan> {
        (0..size).map(|index| ChildPlan { name: member_name(&self.name, index), ..self.clone() }).collect()
    }
}

/// The name of a pool's member.
pub(super) fn member_name(pool: &str, index: u32) -> String {
    format!("{pool}[{index}]")
}

/// The path of a child: `ingest/b`; a pool's member stands beside its pool (`ingest/web[0]`), not below it.
pub(super) fn child_path(supervisor: &str, kind: SupervisorKind, name: &str) -> String {
    let above = match kind {
        SupervisorKind::Pool => supervisor.rsplit_once('/').map_or("", |(above, _)| above),
        SupervisorKind::Tree | SupervisorKind::Dynamic { .. } => supervisor,
    };
    if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| matches!(c, '/' | '[' | ']') || c.is_control())
}

/// Whether this is member `index` of the pool; a pool that is the root has no name, its members choose one.
fn is_member_name(name: &str, pool: &str, index: usize) -> bool {
    let Some((base, rest)) = name.split_once('[') else { return false };
    rest.strip_suffix(']') == Some(index.to_string().as_str()) && is_name(base) && (pool.is_empty() || base == pool)
}
