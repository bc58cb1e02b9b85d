//! A policy of the program's own. It runs in the supervisor; its panic is caught.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Arrival, Candidate};

/// A dispatch policy of the program's own; [`register`](crate::register) gives it a name.
///
/// There is one value for each listener, on the supervisor's *net* thread, which does nothing else while it decides: it must
/// not wait. A policy decides by what it is told and by its own memory; connections that end change `open` of the candidates.
///
/// ```
/// use rclust_net::{Arrival, Candidate, Policy};
///
/// /// Clients on this machine go to the first slot, others to the slot with the fewest connections.
/// struct LocalFirst;
///
/// impl Policy for LocalFirst {
///     fn pick(&mut self, arrival: &Arrival, candidates: &[Candidate]) -> Option<usize> {
///         match arrival.peer {
///             Some(peer) if peer.ip().is_loopback() => Some(0),
///             _ => candidates.iter().enumerate().min_by_key(|(_, slot)| slot.open + slot.untaken).map(|(n, _)| n),
///         }
///     }
/// }
/// ```
pub trait Policy {
    /// The place in `candidates` of the slot that gets the connection. There is at least one; all are ready and have room; they
    /// are in the order of their slots' numbers.
    ///
    /// `None`, a place that is not there, and a panic leave the choice to [`Dispatch::Balanced`](crate::Dispatch::Balanced);
    /// panics are counted ([`Stats::panics`](crate::Stats::panics)).
    fn pick(&mut self, arrival: &Arrival, candidates: &[Candidate]) -> Option<usize>;
}

/// The policy panicked.
#[derive(Debug)]
pub(super) struct Panicked;

pub(super) fn pick(
    policy: &mut dyn Policy,
    arrival: &Arrival,
    candidates: &[Candidate],
) -> Result<Option<u32>, Panicked> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let picked = catch_unwind(AssertUnwindSafe(|| policy.pick(arrival, candidates)));
    let Ok(picked) = picked else { return Err(Panicked) };
    Ok(picked.and_then(|place| candidates.get(place)).map(|candidate| candidate.slot))
}

#[cfg(test)]
mod tests {
    use crate::dispatch::tests::{ANYBODY, candidate};
    use crate::dispatch::{Arrival, Candidate, How, Picker, Policy};

    struct Odd(u32);

    impl Policy for Odd {
        fn pick(&mut self, _: &Arrival, candidates: &[Candidate]) -> Option<usize> {
            self.0 += 1;
            match self.0 {
                1 => Some(candidates.len() - 1),
                2 => Some(usize::MAX),
                3 => None,
                _ => panic!("a policy's panic: part of the test"),
            }
        }
    }

    #[test]
    fn what_a_policy_gets_wrong_is_decided_by_balanced() {
        let mut picker = Picker::new(How::Custom(Box::new(Odd(0))));
        let slots = [candidate(3, 5), candidate(4, 1), candidate(9, 7)];
        let picks: Vec<_> = (0..5).map(|_| picker.pick(&ANYBODY, &slots)).collect();
        assert_eq!(picks, [Some(9), Some(4), Some(4), Some(4), Some(4)]);
        assert_eq!(picker.panics, 2);
        assert_eq!(picker.pick(&ANYBODY, &[]), None);
    }
}
