//! The fewest connections; ties in turn.

use super::{Candidate, round_robin};

pub(super) fn pick(candidates: &[Candidate], last: Option<u32>) -> Option<u32> {
    let fewest = candidates.iter().map(Candidate::load).min()?;
    round_robin::next(candidates.iter().filter(|candidate| candidate.load() == fewest), last)
}

#[cfg(test)]
mod tests {
    use crate::dispatch::tests::{ANYBODY, candidate};
    use crate::dispatch::{How, Picker};

    #[test]
    fn long_lived_connections_stay_even_whatever_ends() {
        let mut picker = Picker::new(How::Balanced);
        let mut loads = [0u64; 5];
        for step in 0..10_000usize {
            let candidates: Vec<_> = (0..5).map(|slot| candidate(slot, loads[slot as usize])).collect();
            let picked = picker.pick(&ANYBODY, &candidates).unwrap() as usize;
            loads[picked] += 1;
            if step % 3 == 0 {
                let ends = step * 7 % 5;
                loads[ends] = loads[ends].saturating_sub(1);
            }
        }
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= 1, "{loads:?}");
    }

    #[test]
    fn ties_go_in_turn() {
        let mut picker = Picker::new(How::Balanced);
        let idle: Vec<_> = (0..3).map(|slot| candidate(slot, 0)).collect();
        let picks: Vec<_> = (0..6).map(|_| picker.pick(&ANYBODY, &idle).unwrap()).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }
}
