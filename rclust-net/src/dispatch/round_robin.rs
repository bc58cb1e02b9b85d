//! In turn.

use super::Candidate;

pub(super) fn pick(candidates: &[Candidate], last: Option<u32>) -> Option<u32> {
    next(candidates.iter(), last)
}

/// The first slot behind `last`, else the first.
pub(super) fn next<'a>(candidates: impl Iterator<Item = &'a Candidate>, last: Option<u32>) -> Option<u32> {
    let mut first = None;
    for candidate in candidates {
        if last.is_none_or(|last| candidate.slot > last) {
            return Some(candidate.slot);
        }
        first = first.or(Some(candidate.slot));
    }
    first
}

#[cfg(test)]
mod tests {
    use crate::dispatch::tests::{ANYBODY, candidate};
    use crate::dispatch::{How, Picker};

    #[test]
    fn the_turn_skips_who_has_no_room_and_goes_on_behind() {
        let mut picker = Picker::new(How::RoundRobin);
        let of = |slots: &[u32]| slots.iter().map(|slot| candidate(*slot, 9)).collect::<Vec<_>>();
        assert_eq!(picker.pick(&ANYBODY, &of(&[2, 5, 7])), Some(2));
        assert_eq!(picker.pick(&ANYBODY, &of(&[2, 7])), Some(7));
        assert_eq!(picker.pick(&ANYBODY, &of(&[2, 5, 7])), Some(2));
        assert_eq!(picker.pick(&ANYBODY, &[]), None);
        assert_eq!(picker.pick(&ANYBODY, &of(&[2, 5, 7])), Some(5));
    }
}
