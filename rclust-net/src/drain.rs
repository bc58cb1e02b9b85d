//! Stop taking, finish what is open, by a deadline: when last calls end. Pure.

use std::time::{Duration, Instant};

/// How long no connection may have had traffic before they are closed, unless a listener says otherwise.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// The deadline of connections whose worker has none.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A deadline that no clock runs over; longer ones are taken for it.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// One worker's drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    began: Instant,
    quiet: Duration,
    deadline: Option<Duration>,
}

/// What a look comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Close what is open.
    Close,
    /// Look again then, or when a connection has ended.
    Until(Instant),
}

impl Drain {
    pub(crate) fn new(now: Instant, quiet: Duration, deadline: Option<Duration>) -> Drain {
        Drain { began: now, quiet, deadline }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// So many connections are open, and this long after its begin one of them last had traffic (the begin counts as traffic).
    pub(crate) fn look(&self, now: Instant, open: u64, last: Duration) -> Look {
        let half = self.deadline.map_or(DEADLINE, |deadline| deadline.min(LONGEST)) / 2;
        let end = self.began + last.saturating_add(self.quiet).min(half);
        if open == 0 || now >= end { Look::Close } else { Look::Until(end) }
    }

    /// When connections are cut that still go on; `None`: the process ends before that.
    pub(crate) fn cut(&self) -> Option<Instant> {
        self.deadline.is_none().then_some(self.began + DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn drain(deadline: Option<Duration>) -> (Drain, Instant) {
        let now = Instant::now();
        (Drain::new(now, QUIET, deadline), now)
    }

    #[test]
    fn without_open_connections_there_is_nothing_to_wait_for() {
        let (drain, began) = drain(Some(ms(30_000)));
        assert_eq!(drain.look(began, 0, ms(0)), Look::Close);
        assert_eq!(drain.look(began + ms(10), 0, ms(9)), Look::Close);
    }

    #[test]
    fn the_close_comes_one_window_after_the_last_traffic_and_not_before() {
        let (drain, began) = drain(Some(ms(30_000)));
        assert_eq!(drain.look(began, 5, ms(0)), Look::Until(began + ms(1000)));
        assert_eq!(drain.look(began + ms(999), 5, ms(0)), Look::Until(began + ms(1000)));
        assert_eq!(drain.look(began + ms(1000), 5, ms(0)), Look::Close);
        assert_eq!(drain.look(began + ms(1000), 5, ms(700)), Look::Until(began + ms(1700)));
        assert_eq!(drain.look(began + ms(1700), 1, ms(700)), Look::Close);
    }

    #[test]
    fn traffic_puts_it_off_until_half_the_deadline() {
        let (drain, began) = drain(Some(ms(4000)));
        assert_eq!(drain.look(began + ms(1600), 1, ms(1590)), Look::Until(began + ms(2000)));
        assert_eq!(drain.look(began + ms(2000), 1, ms(1999)), Look::Close);
        // A deadline that is shorter than two windows.
        let short = Drain::new(began, QUIET, Some(ms(400)));
        assert_eq!(short.look(began, 1, ms(0)), Look::Until(began + ms(200)));
        let endless = Drain::new(began, Duration::MAX, Some(ms(400)));
        assert_eq!(endless.look(began, 1, ms(7)), Look::Until(began + ms(200)));
        let both = Drain::new(began, Duration::MAX, Some(Duration::MAX));
        assert_eq!(both.look(began, 1, Duration::MAX), Look::Until(began + LONGEST / 2));
    }

    #[test]
    fn connections_of_a_worker_without_a_deadline_have_one() {
        let (bounded, _) = drain(Some(ms(4000)));
        assert_eq!(bounded.cut(), None);
        let (endless, began) = drain(None);
        assert_eq!(endless.look(began + ms(14_500), 1, ms(14_400)), Look::Until(began + DEADLINE / 2));
        assert_eq!(endless.look(began + DEADLINE / 2, 1, ms(14_999)), Look::Close);
        assert_eq!(endless.cut(), Some(began + DEADLINE));
    }
}
