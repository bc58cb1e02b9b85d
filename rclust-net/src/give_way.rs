//! Whether the *net* thread lets others run before it goes to sleep. Pure: the time is an argument.
//!
//! Going to sleep and being woken for each connection costs more than the connection: on a busy machine it pays to let those run who bring
//! the next ones, and to accept several then. Where somebody computes, giving way costs a time slice of theirs (milliseconds, in which
//! clients wait), so it is left alone then, for longer each time.

use std::time::{Duration, Instant};

/// Who gave way for longer may have met somebody who computes.
const LONG: Duration = Duration::from_micros(500);

/// Or many clients and workers of ours, in turn. Then so many connections wait afterwards that each has cost less than this.
const EACH: Duration = Duration::from_micros(100);

/// How long it is left alone after the first time that did not pay. Doubled each time.
const PAUSE: Duration = Duration::from_millis(100);

/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The memory of a thread that gives way.
#[derive(Debug, Default)]
pub(crate) struct GiveWay {
    /// How long the last time took that is not judged.
    took: Option<Duration>,
    /// Connections that came since then.
    came: u32,
    /// Not before then, and how long the pause was that ends there.
    after: Option<(Instant, Duration)>,
}

impl GiveWay {
    /// A connection was accepted.
    pub(crate) fn came(&mut self) {
        self.came = self.came.saturating_add(1);
    }

    /// Nobody waits any more: whether it is worth a try.
    pub(crate) fn may(&mut self, now: Instant) -> bool {
        self.judge(now);
        self.after.is_none_or(|(at, _)| now >= at)
    }

    /// Judges the last try by what has come since.
    pub(crate) fn judge(&mut self, now: Instant) {
        if let Some(took) = self.took.take() {
            let paid = took <= LONG.max(EACH.saturating_mul(self.came));
            let last = self.after.map(|(_, pause)| pause);
            self.after = (!paid).then(|| {
                let pause = last.map_or(PAUSE, |last| (last * 2).min(LONGEST_PAUSE));
                (now + pause, pause)
            });
        }
    }

    /// It was tried.
    pub(crate) fn tried(&mut self, took: Duration) {
        (self.took, self.came) = (Some(took), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often it is tried in a minute in which a connection comes each millisecond, and a try takes so long and brings so many.
    fn tries(took: Duration, bring: u32) -> u32 {
        let (mut way, mut now, mut tries) = (GiveWay::default(), Instant::now(), 0);
        for _ in 0..60_000 {
            now += Duration::from_millis(1);
            way.came();
            if way.may(now) {
                tries += 1;
                way.tried(took);
                (0..bring).for_each(|_| way.came());
            }
        }
        tries
    }

    #[test]
    fn beside_somebody_who_computes_it_is_tried_ever_less() {
        assert_eq!(tries(Duration::from_millis(4), 0), 12, "after 0, 0.1, 0.3, 0.7 .. 12.7 s, then every ten seconds");
        assert_eq!(tries(Duration::from_millis(4), 20), 12);
    }

    #[test]
    fn where_it_is_short_or_brings_enough_it_is_always_tried() {
        assert_eq!(tries(LONG, 0), 60_000);
        assert_eq!(tries(Duration::from_millis(4), 64), 60_000);
    }

    #[test]
    fn one_that_paid_makes_the_next_pause_a_short_one() {
        let (mut way, now) = (GiveWay::default(), Instant::now());
        for _ in 0..9 {
            way.tried(3 * LONG);
            way.may(now);
        }
        way.tried(LONG);
        assert!(way.may(now));
        way.tried(3 * LONG);
        assert!(!way.may(now) && way.may(now + PAUSE));
    }
}
