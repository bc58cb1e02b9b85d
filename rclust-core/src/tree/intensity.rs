//! How many restarts in which window.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::Time;

/// The restarts of one supervisor node that still count, oldest first.
///
/// It holds at most one entry more than are allowed, whatever the history: with the one too many the node
/// ends and the window with it (RULES 18, 48).
#[derive(Debug, Default)]
pub(super) struct Window {
    at: VecDeque<Time>,
}

impl Window {
    /// Notes a restart that is about to be made, and says whether it may be.
    ///
    /// # Source
    /// RULES 15 to 17: one window for all children and all causes; entries as old as the period no longer count;
    /// so `allowed` restarts are made in a window and the next death ends the supervisor.
    pub(super) fn note(&mut self, now: Time, allowed: u32, within: Duration) -> bool {
        while let Some(oldest) = self.at.front() {
            if now.saturating_sub(*oldest) < within {
                break;
            }
            self.at.pop_front();
        }
        if self.at.len() > allowed as usize {
            return false;
        }
        self.at.push_back(now);
        self.at.len() <= allowed as usize
    }

    /// Forgets everything: the node begins again (RULES 48).
    pub(super) fn clear(&mut self) {
        self.at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn n_restarts_in_the_window_and_not_one_more() {
        let mut window = Window::default();
        assert!(window.note(ms(0), 2, ms(100)));
        assert!(window.note(ms(99), 2, ms(100)));
        assert!(!window.note(ms(99), 2, ms(100)));
    }

    #[test]
    fn an_entry_as_old_as_the_period_no_longer_counts() {
        let mut window = Window::default();
        assert!(window.note(ms(0), 1, ms(100)));
        assert!(window.note(ms(100), 1, ms(100)));
        assert!(!window.note(ms(199), 1, ms(100)));
    }

    #[test]
    fn intensity_zero_allows_none() {
        assert!(!Window::default().note(ms(5), 0, ms(100)));
    }

    #[test]
    fn memory_is_bounded_by_what_is_allowed() {
        let mut window = Window::default();
        for n in 0..20_000 {
            window.note(ms(n * 10), 3, ms(25));
            assert!(window.at.len() <= 4);
        }
        for _ in 0..100 {
            window.note(ms(200_000), 3, ms(25));
        }
        assert!(window.at.len() <= 4);
    }
}
