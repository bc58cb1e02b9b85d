//! OTP's words: exit reasons and refusals as terms, and plans from members, or the term with which OTP refuses them.

use std::time::Duration;

use rclust_core::ExitReason;
use rclust_core::tree::machine::Tree;
use rclust_core::tree::plan::{
    AutoShutdown, ChildKind, ChildPlan, Intensity, PlanError, Restart, Shutdown, Strategy, SupervisorKind,
    SupervisorPlan,
};

use super::scenario::{Member, Mode, Role, Scenario};

/// The start of a worker that hangs is no scenario's subject.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// An exit reason as OTP prints it.
pub(crate) fn reason(reason: &ExitReason) -> String {
    match reason {
        ExitReason::Normal => "normal".to_owned(),
        ExitReason::Shutdown => "shutdown".to_owned(),
        ExitReason::ShutdownWith(word) => format!("{{shutdown,{word}}}"),
        ExitReason::Signal { signal: 9, .. } => "killed".to_owned(),
        ExitReason::Error(text) => text.clone(),
        other => format!("{{{other}}}"),
    }
}

/// The name of a failure in the trace.
pub(crate) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Error => "error",
        Mode::Exit => "exit",
        Mode::BadRet => "badret",
        Mode::Ignore => "ignore",
    }
}

/// The recorder's error term of a failure.
pub(crate) fn failure(mode: Mode) -> &'static str {
    match mode {
        Mode::Error => "boom",
        Mode::Exit => "{'EXIT',boom}",
        Mode::BadRet => "nonsense",
        Mode::Ignore => "undefined",
    }
}

/// What a start that fails so ends with.
pub(crate) fn failure_reason(mode: Mode) -> ExitReason {
    match mode {
        Mode::Ignore => ExitReason::Ignored,
        mode => ExitReason::Error(failure(mode).to_owned()),
    }
}

/// A supervisor's plan. `refused` is called for each supervisor below it that OTP would refuse when it starts it: it
/// goes into the plan without children.
///
/// # Errors
/// The term with which OTP refuses this one.
pub(crate) fn supervisor(
    scenario: &Scenario,
    sup: &Member,
    refused: &mut dyn FnMut(&str, String),
) -> Result<SupervisorPlan, String> {
    let Role::Sup { strategy, intensity, period, auto_shutdown } = &sup.role else {
        return Err("no_supervisor".into());
    };
    let bad = |what: &str, value: &str| Err(format!("{{supervisor_data,{{invalid_{what},{value}}}}}"));
    let (strategy, dynamic) = match strategy.as_str() {
        "one_for_one" => (Strategy::OneForOne, false),
        "one_for_all" => (Strategy::OneForAll, false),
        "rest_for_one" => (Strategy::RestForOne, false),
        "simple_one_for_one" => (Strategy::OneForOne, true),
        other => return bad("strategy", other),
    };
    let Ok(restarts) = intensity.parse::<u32>() else { return bad("intensity", intensity) };
    let Ok(seconds) = period.parse::<u64>() else { return bad("period", period) };
    let auto = match auto_shutdown.as_str() {
        "never" => AutoShutdown::Never,
        "any_significant" => AutoShutdown::AnySignificant,
        "all_significant" => AutoShutdown::AllSignificant,
        // OTP looks at the period first, and our own check is to find that one.
        _ if seconds == 0 => AutoShutdown::Never,
        other => return bad("auto_shutdown", other),
    };
    let max_children = u32::MAX;
    let mut plan = SupervisorPlan {
        strategy,
        intensity: Intensity::Limited { restarts, within: Duration::from_secs(seconds) },
        auto_shutdown: auto,
        kind: if dynamic { SupervisorKind::Dynamic { max_children } } else { SupervisorKind::Tree },
        children: Vec::new(),
    };
    for member in scenario.children(&sup.id).filter(|member| member.boot) {
        match child(scenario, member, refused) {
            Ok(child) => plan.children.push(child),
            // The first complaint counts, and ours may be about an earlier child.
            Err(term) => return refusal(&plan, scenario, sup).and(Err(format!("{{start_spec,{term}}}"))),
        }
    }
    refusal(&plan, scenario, sup)?;
    Ok(plan)
}

/// A child's plan.
///
/// # Errors
/// The term with which OTP refuses its specification, where our types cannot even say such a thing.
pub(crate) fn child(
    scenario: &Scenario,
    member: &Member,
    refused: &mut dyn FnMut(&str, String),
) -> Result<ChildPlan, String> {
    let restart = match member.restart.as_str() {
        "permanent" => Restart::Permanent,
        "transient" => Restart::Transient,
        "temporary" => Restart::Temporary,
        other => return Err(format!("{{invalid_restart_type,{other}}}")),
    };
    let significant = match member.significant.as_str() {
        "true" => true,
        "false" => false,
        other => return Err(format!("{{invalid_significant,{other}}}")),
    };
    let shutdown = match member.shutdown.as_deref() {
        None if member.is_sup() => Shutdown::Infinity,
        None => Shutdown::Timeout(Duration::from_secs(5)),
        Some("infinity") => Shutdown::Infinity,
        Some("brutal_kill") => Shutdown::BrutalKill,
        Some(ms) => match ms.parse() {
            Ok(ms) => Shutdown::Timeout(Duration::from_millis(ms)),
            Err(_) => return Err(format!("{{invalid_shutdown,{ms}}}")),
        },
    };
    let kind = if member.is_sup() {
        let nothing = SupervisorPlan {
            strategy: Strategy::OneForOne,
            intensity: Intensity::Limited { restarts: 1, within: Duration::from_secs(5) },
            auto_shutdown: AutoShutdown::Never,
            kind: SupervisorKind::Tree,
            children: Vec::new(),
        };
        ChildKind::Supervisor(supervisor(scenario, member, refused).unwrap_or_else(|term| {
            refused(&member.id, term);
            nothing
        }))
    } else {
        let at = scenario.members.iter().position(|other| std::ptr::eq(other, member)).unwrap_or_default();
        ChildKind::Worker { launch: u32::try_from(at).unwrap_or_default() }
    };
    let (name, start_timeout) = (member.id.clone(), START_TIMEOUT);
    Ok(ChildPlan { name, restart, shutdown, significant, start_timeout, backoff: None, kind })
}

/// Asks our own machine whether it takes this plan, and says its refusal in OTP's words.
fn refusal(plan: &SupervisorPlan, scenario: &Scenario, sup: &Member) -> Result<(), String> {
    let Err(error) = Tree::new(plan.clone(), 0) else { return Ok(()) };
    Err(match error {
        PlanError::ZeroPeriod { .. } => "{supervisor_data,{invalid_period,0}}".to_owned(),
        PlanError::DuplicateName { path } => format!("{{start_spec,{{duplicate_child_name,{path}}}}}"),
        PlanError::Significant { path, .. } => format!("{{start_spec,{}}}", bad_combination(scenario, sup, &path)),
        PlanError::Dynamic { .. } if plan.children.len() != 1 => format!("{{bad_start_spec,{}}}", plan.children.len()),
        PlanError::Dynamic { .. } => {
            let Role::Sup { auto_shutdown, .. } = &sup.role else { return Err("no_supervisor".to_owned()) };
            format!(
                "{{supervisor_data,{{bad_combination,[{{auto_shutdown,{auto_shutdown}}},{{strategy,simple_one_for_one}}]}}}}"
            )
        }
        other => format!("{{start_spec,{{{other}}}}}"),
    })
}

/// Why a child cannot be significant (RULES 5: the complaint about `auto_shutdown` comes first).
pub(crate) fn bad_combination(scenario: &Scenario, sup: &Member, child: &str) -> String {
    let never = matches!(&sup.role, Role::Sup { auto_shutdown, .. } if auto_shutdown == "never");
    let restart = scenario.member(child).map_or("permanent", |child| child.restart.as_str());
    let (key, value) = if never { ("auto_shutdown", "never") } else { ("restart", restart) };
    format!("{{bad_combination,[{{{key},{value}}},{{significant,true}}]}}")
}
