//! Restart type × exit reason, as a table.

use super::plan::Restart;
use crate::exit::ExitReason;

/// What follows from the end of a child that nobody asked to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is started again, with whom the strategy says.
    Restart,
    /// Its specification stays, without a process.
    Down,
    /// Its specification goes too.
    Forget,
}

/// Looks the pair up.
///
/// # Source
/// RULES 11: permanent always, transient after an abnormal end, temporary never; a temporary child's
/// specification is deleted with its process.
pub(super) fn verdict(restart: Restart, reason: &ExitReason) -> Verdict {
    match (restart, reason.is_normal()) {
        (Restart::Permanent, _) | (Restart::Transient, false) => Verdict::Restart,
        (Restart::Transient, true) => Verdict::Down,
        (Restart::Temporary, _) => Verdict::Forget,
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Down, Forget, Restart as Again};
    use super::*;

    #[test]
    fn the_table_of_rule_11() {
        let word = || ExitReason::ShutdownWith("done".into());
        let normal = [ExitReason::Normal, ExitReason::Shutdown, word()];
        let kill = ExitReason::Signal { signal: 9, core: false };
        let abnormal = [ExitReason::Error("x".into()), ExitReason::Code(3), kill, ExitReason::Unknown];
        for reason in &normal {
            assert_eq!(verdict(Restart::Permanent, reason), Again);
            assert_eq!(verdict(Restart::Transient, reason), Down);
            assert_eq!(verdict(Restart::Temporary, reason), Forget);
        }
        for reason in &abnormal {
            assert_eq!(verdict(Restart::Permanent, reason), Again);
            assert_eq!(verdict(Restart::Transient, reason), Again);
            assert_eq!(verdict(Restart::Temporary, reason), Forget);
        }
    }
}
