//! The same slot for the same key: rendezvous hashing (Thaler and Ravishankar, 1998).

use std::net::{IpAddr, SocketAddr};

use super::Candidate;

/// The candidate with the highest score: a slot that comes or goes moves only the keys that it wins.
pub(super) fn pick(candidates: &[Candidate], key: u64) -> Option<u32> {
    candidates.iter().map(|candidate| candidate.slot).max_by_key(|slot| mix(key ^ mix(u64::from(*slot))))
}

/// The key of a client's address, without its port.
pub(crate) fn key(peer: Option<SocketAddr>) -> u64 {
    match peer.map(|peer| peer.ip().to_canonical()) {
        None => 0,
        Some(IpAddr::V4(ip)) => mix(u64::from(u32::from(ip))),
        Some(IpAddr::V6(ip)) => {
            let ip = u128::from(ip);
            mix((ip >> 64) as u64 ^ mix(ip as u64))
        }
    }
}

/// A good spread of all bits: the finaliser of SplitMix64.
fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests::candidate;

    #[test]
    fn a_slot_that_goes_moves_its_own_clients_and_nobody_elses() {
        let all: Vec<_> = (0..8).map(|slot| candidate(slot, 0)).collect();
        let without: Vec<_> = all.iter().filter(|slot| slot.slot != 3).cloned().collect();
        let mut counts = [0; 8];
        for client in 0..8000u32 {
            let key = key(Some((client.to_be_bytes(), 1).into()));
            let picked = pick(&all, key).unwrap();
            counts[picked as usize] += 1;
            let then = pick(&without, key).unwrap();
            assert!(if picked == 3 { then != 3 } else { then == picked });
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
        assert_eq!(pick(&[], 9), None);
    }

    #[test]
    fn the_port_does_not_count_and_a_mapped_address_is_the_same_client() {
        let key = |address: &str| key(Some(address.parse().unwrap()));
        assert_eq!(key("10.0.0.1:5"), key("10.0.0.1:6"));
        assert_eq!(key("10.0.0.1:5"), key("[::ffff:10.0.0.1]:7"));
        assert_ne!(key("10.0.0.1:5"), key("10.0.0.2:5"));
        assert_ne!(key("[2001:db8::1]:5"), key("[2001:db8::2]:5"));
    }
}
