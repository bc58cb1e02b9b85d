//! Who has connections and takes none. Pure: the time is an argument.
//!
//! What is counted here the kernel knows (how much is in the queue): a worker's own word is asked for one connection, the one that its
//! program has in hand.

use std::time::{Duration, Instant};

/// How long a slot may have untaken connections and take none before others get them.
pub(crate) const LIMIT: Duration = Duration::from_millis(150);

/// The memory of one slot's queue at one listener.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// Since when it has had untaken connections, and how many it had taken then.
    since: Option<(Instant, u64)>,
    /// Its connections were moved away, and it was asked whether it is there.
    away: bool,
}

/// What a look at a queue came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing is untaken, or nobody reads it at all: no need to look again.
    Quiet,
    /// To be looked at again then.
    Until(Instant),
    /// It has taken nothing for too long.
    Stalled,
}

impl Stall {
    /// It was given a connection, while it was not waited for.
    pub(crate) fn given(&mut self, now: Instant, taken: u64) {
        self.since = Some((now, taken));
    }

    /// Whether it is of interest how much is untaken.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.since.is_some()
    }

    /// Looks at what it has taken meanwhile.
    pub(crate) fn look(&mut self, now: Instant, untaken: u64, taken: u64) -> Look {
        let Some((since, before)) = self.since else { return Look::Quiet };
        if untaken == 0 || self.away {
            self.since = None;
            return Look::Quiet;
        }
        if taken != before {
            self.since = Some((now, taken));
            return Look::Until(now + LIMIT);
        }
        if now < since + LIMIT { Look::Until(since + LIMIT) } else { Look::Stalled }
    }

    /// What it had was moved away: it is given nothing until it has read the question that is in its queue now.
    pub(crate) fn moved(&mut self) {
        self.since = None;
        self.away = true;
    }

    /// It has read the question.
    pub(crate) fn is_back(&mut self) {
        self.away = false;
    }

    /// Whether it is given nothing.
    pub(crate) fn is_away(&self) -> bool {
        self.away
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_for_the_limit_is_stalled_and_who_takes_one_is_not() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        assert_eq!(stall.look(start, 3, 0), Look::Quiet, "nothing was given");
        stall.given(start, 7);
        let soon = start + LIMIT / 2;
        assert_eq!(stall.look(soon, 3, 7), Look::Until(start + LIMIT));
        assert_eq!(stall.look(soon, 2, 8), Look::Until(soon + LIMIT));
        assert_eq!(stall.look(soon + LIMIT, 2, 8), Look::Stalled);
        assert_eq!(stall.look(soon + LIMIT, 0, 10), Look::Quiet);
        assert_eq!(stall.look(soon + 9 * LIMIT, 1, 10), Look::Quiet, "given again, it counts anew");
    }

    #[test]
    fn who_was_moved_away_is_given_nothing_until_it_is_back() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        stall.given(start, 5);
        stall.moved();
        assert!(stall.is_away() && !stall.is_waited_for());
        assert_eq!(stall.look(start + LIMIT, 4, 5), Look::Quiet);
        stall.is_back();
        assert!(!stall.is_away());
    }
}
