//! Scenario files: from text to a checked [`Scenario`], or the line that cannot be read.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use rclust_core::ExitReason;
use serde::{Deserialize, Serialize};

/// A line that cannot be read.
#[derive(Debug)]
pub(crate) struct ReadError {
    /// Counted from 1.
    pub(crate) line: usize,
    /// What is wrong with it.
    pub(crate) what: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ReadError {}

/// A scenario: a tree, and what happens to it.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The file's name without `.scn`.
    pub(crate) name: String,
    /// Supervisors and workers, in the order of the file.
    pub(crate) members: Vec<Member>,
    /// What happens: its text, and what it means.
    pub(crate) events: Vec<(String, Event)>,
}

/// A `sup` or `worker` line. Values that OTP checks are kept as they were written.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) id: String,
    /// The supervisor it is in; `None`: the top one.
    pub(crate) parent: Option<String>,
    /// `restart=`
    pub(crate) restart: String,
    /// `shutdown=`
    pub(crate) shutdown: Option<String>,
    /// `significant=`
    pub(crate) significant: String,
    /// Whether it is in the boot list.
    pub(crate) boot: bool,
    /// What it is.
    pub(crate) role: Role,
    line: usize,
}

/// What a member is.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// A supervisor.
    Sup {
        /// `strategy=`
        strategy: String,
        /// `intensity=`
        intensity: String,
        /// `period=`
        period: String,
        /// `auto_shutdown=`
        auto_shutdown: String,
    },
    /// A worker.
    Worker {
        /// How it takes the shutdown signal.
        stop: StopStyle,
        /// How each of its starts goes.
        start: StartStyle,
    },
}

/// How a worker takes the shutdown signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum StopStyle {
    /// It exits at once, with this reason.
    Exit(ExitReason),
    /// It stays.
    Ignore,
    /// It exits after this time.
    Slow(Duration),
}

/// How a start goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StartStyle {
    /// Well.
    Ok,
    /// Well, with extra information for the caller.
    Info,
    /// Not.
    Fail(Mode),
}

/// How a start fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// The start function returns an error.
    Error,
    /// It exits.
    Exit,
    /// It returns nonsense.
    BadRet,
    /// It returns `ignore`.
    Ignore,
}

/// A `>` line.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// `crash X REASON`
    Crash(String, ExitReason),
    /// `terminate X`
    Terminate(String),
    /// `restart X`
    Restart(String),
    /// `delete X`
    Delete(String),
    /// `start X`
    Start(String),
    /// `spawn SUP L`
    Spawn(String, String),
    /// `failnext X N MODE`
    FailNext(String, u32, Mode),
    /// `crashloop X N REASON`
    CrashLoop(String, u32, ExitReason),
    /// `together SUP X,Y REASON`
    Together(String, Vec<String>, ExitReason),
    /// `during X EVENT`
    During(String, Box<Event>),
    /// `which SUP`
    Which(String),
    /// `wait MS`
    Wait(Duration),
    /// `stop`
    Stop,
}

impl Scenario {
    /// Reads a scenario; `name` is what the trace calls it.
    ///
    /// # Errors
    /// The first line that cannot be read, with its number.
    pub(crate) fn read(name: &str, text: &str) -> Result<Scenario, ReadError> {
        let mut scenario = Scenario { name: name.to_owned(), members: Vec::new(), events: Vec::new() };
        let mut events = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if let Some(event) = text.strip_prefix('>') {
                let event = event.trim();
                let words: Vec<&str> = event.split_whitespace().collect();
                let read = read_event(&words).map_err(|what| ReadError { line, what })?;
                events.push((line, event.to_owned(), read));
            } else {
                scenario.members.push(read_member(text, line).map_err(|what| ReadError { line, what })?);
            }
        }
        scenario.check_tree()?;
        let labels: HashSet<String> = events.iter().filter_map(|(_, _, event)| event.label()).collect();
        for (line, _, event) in &events {
            scenario.check_event(event, &labels).map_err(|what| ReadError { line: *line, what })?;
        }
        scenario.events = events.into_iter().map(|(_, text, event)| (text, event)).collect();
        Ok(scenario)
    }

    /// The line that declares this name (the first of them).
    pub(crate) fn member(&self, id: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The top supervisor.
    pub(crate) fn top(&self) -> &Member {
        self.members.iter().find(|member| member.parent.is_none()).expect("`check_tree` found exactly one")
    }

    /// The children of a supervisor, in order, those with `boot=no` too.
    pub(crate) fn children<'a>(&'a self, sup: &'a str) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(move |member| member.parent.as_deref() == Some(sup))
    }

    fn check_tree(&self) -> Result<(), ReadError> {
        let parents: HashMap<&str, Option<&str>> =
            self.members.iter().filter(|m| m.is_sup()).map(|m| (m.id.as_str(), m.parent.as_deref())).collect();
        let mut top = None;
        for member in &self.members {
            let error = |what: String| Err(ReadError { line: member.line, what });
            let mut above = member.parent.as_deref();
            if above.is_none() && !member.is_sup() {
                return error(format!("worker `{}` needs in=SUPERVISOR", member.id));
            }
            if above.is_none() && top.replace(&member.id).is_some() {
                return error(format!(
                    "`{}` has no in=, and so has another supervisor: only one is the top one",
                    member.id
                ));
            }
            for _ in 0..=self.members.len() {
                match above {
                    None => break,
                    Some(sup) => match parents.get(sup) {
                        Some(next) => above = *next,
                        None => return error(format!("`{}` is in `{sup}`, which is no supervisor", member.id)),
                    },
                }
            }
            if above.is_some() {
                return error(format!("`{}` is not below the top supervisor", member.id));
            }
        }
        match top {
            Some(_) => Ok(()),
            None => Err(ReadError { line: 1, what: "there is no supervisor without in=".to_owned() }),
        }
    }

    fn check_event(&self, event: &Event, labels: &HashSet<String>) -> Result<(), String> {
        let known = |id: &String| {
            let known = self.member(id).is_some() || labels.contains(id);
            if known { Ok(()) } else { Err(format!("`{id}` is not declared")) }
        };
        let is_sup = |id: &String| match self.member(id) {
            Some(member) if member.is_sup() => Ok(()),
            _ => Err(format!("`{id}` is no supervisor")),
        };
        match event {
            Event::Crash(x, _) | Event::FailNext(x, ..) | Event::CrashLoop(x, ..) => known(x),
            Event::Terminate(x) | Event::Restart(x) | Event::Delete(x) | Event::Start(x) => {
                known(x)?;
                let top = self.top();
                if *x == top.id { Err(format!("`{x}` is the top one: it has no supervisor")) } else { Ok(()) }
            }
            Event::Spawn(sup, _) | Event::Which(sup) => is_sup(sup),
            Event::Together(sup, all, _) => is_sup(sup).and_then(|()| all.iter().try_for_each(known)),
            Event::During(x, event) => {
                known(x)?;
                match **event {
                    Event::Crash(..)
                    | Event::FailNext(..)
                    | Event::CrashLoop(..)
                    | Event::Together(..)
                    | Event::During(..)
                    | Event::Wait(_) => Err("`during` takes a management call, `which` or `stop`".to_owned()),
                    ref event => self.check_event(event, labels),
                }
            }
            Event::Wait(_) | Event::Stop => Ok(()),
        }
    }
}

impl Member {
    /// Whether this is a `sup` line.
    pub(crate) fn is_sup(&self) -> bool {
        matches!(self.role, Role::Sup { .. })
    }
}

impl Event {
    /// The name that a `spawn` gives.
    fn label(&self) -> Option<String> {
        match self {
            Event::Spawn(_, label) => Some(label.clone()),
            Event::During(_, event) => event.label(),
            _ => None,
        }
    }
}

fn read_member(text: &str, line: usize) -> Result<Member, String> {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let id = words.next().ok_or_else(|| format!("`{kind}` needs a name"))?.to_owned();
    if id.contains(['/', '[', ']', '=', '#', ',']) {
        return Err(format!("`{id}` cannot be a name"));
    }
    let mut keys: HashMap<&str, &str> = HashMap::new();
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is not KEY=VALUE"))?;
        if keys.insert(key, value).is_some() {
            return Err(format!("`{key}=` is given twice"));
        }
    }
    let mut take = |key: &str, default: &str| keys.remove(key).unwrap_or(default).to_owned();
    let parent = Some(take("in", "")).filter(|parent| !parent.is_empty());
    let restart = take("restart", "permanent");
    let shutdown = Some(take("shutdown", "")).filter(|shutdown| !shutdown.is_empty());
    let significant = take("significant", "false");
    let boot = match take("boot", "yes").as_str() {
        "yes" => true,
        "no" => false,
        other => return Err(format!("`boot={other}`: only `boot=no` is known")),
    };
    let role = match kind {
        "sup" => Role::Sup {
            strategy: take("strategy", "one_for_one"),
            intensity: take("intensity", "1"),
            period: take("period", "5"),
            auto_shutdown: take("auto_shutdown", "never"),
        },
        "worker" => Role::Worker { stop: read_stop(&take("stop", "clean"))?, start: read_start(&take("start", "ok"))? },
        other => return Err(format!("`{other}` is no statement: `sup`, `worker` and `>` are")),
    };
    match keys.keys().next() {
        Some(key) => Err(format!("`{key}=` is no key of a {kind}")),
        None => Ok(Member { id, parent, restart, shutdown, significant, boot, role, line }),
    }
}

fn read_event(words: &[&str]) -> Result<Event, String> {
    let own = |word: &str| word.to_owned();
    Ok(match words {
        ["crash", x, reason] => Event::Crash(own(x), read_reason(reason)?),
        ["terminate", x] => Event::Terminate(own(x)),
        ["restart", x] => Event::Restart(own(x)),
        ["delete", x] => Event::Delete(own(x)),
        ["start", x] => Event::Start(own(x)),
        ["spawn", sup, label] => Event::Spawn(own(sup), own(label)),
        ["failnext", x, n, mode] => Event::FailNext(own(x), read_number(n)?, read_mode(mode)?),
        ["crashloop", x, n, reason] => Event::CrashLoop(own(x), read_number(n)?, read_reason(reason)?),
        ["together", sup, all, reason] => {
            Event::Together(own(sup), all.split(',').map(own).collect(), read_reason(reason)?)
        }
        ["during", x, event @ ..] => Event::During(own(x), Box::new(read_event(event)?)),
        ["which", sup] => Event::Which(own(sup)),
        ["wait", ms] => Event::Wait(Duration::from_millis(read_number(ms)?.into())),
        ["stop"] => Event::Stop,
        [] => return Err("an event is missing".to_owned()),
        [word, ..] => return Err(format!("`{word}` is no event, or not with these arguments")),
    })
}

fn read_number(word: &str) -> Result<u32, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

fn read_mode(word: &str) -> Result<Mode, String> {
    Ok(match word {
        "error" => Mode::Error,
        "exit" => Mode::Exit,
        "badret" => Mode::BadRet,
        "ignore" => Mode::Ignore,
        _ => return Err(format!("`{word}` is no way for a start to fail: error, exit, badret, ignore are")),
    })
}

fn read_reason(word: &str) -> Result<ExitReason, String> {
    Ok(match (word, word.split_once(':')) {
        ("normal", _) => ExitReason::Normal,
        ("shutdown", _) => ExitReason::Shutdown,
        ("error", _) => ExitReason::Error("error".to_owned()),
        ("kill", _) => ExitReason::Signal { signal: 9, core: false },
        (_, Some(("shutdown", word))) => ExitReason::ShutdownWith(word.to_owned()),
        _ => return Err(format!("`{word}` is no exit reason: normal, shutdown, shutdown:T, error, kill are")),
    })
}

fn read_stop(word: &str) -> Result<StopStyle, String> {
    Ok(match (word, word.split_once(':')) {
        ("clean" | "notrap", _) => StopStyle::Exit(ExitReason::Shutdown),
        ("ignore", _) => StopStyle::Ignore,
        (_, Some(("slow", ms))) => StopStyle::Slow(Duration::from_millis(read_number(ms)?.into())),
        (_, Some(("exit", reason))) => StopStyle::Exit(read_reason(reason)?),
        _ => return Err(format!("`stop={word}`: clean, notrap, ignore, slow:MS, exit:REASON are known")),
    })
}

fn read_start(word: &str) -> Result<StartStyle, String> {
    Ok(match word {
        "ok" => StartStyle::Ok,
        "info" => StartStyle::Info,
        mode => StartStyle::Fail(
            read_mode(mode).map_err(|_| format!("`start={mode}`: ok, info, error, ignore, exit, badret are known"))?,
        ),
    })
}
