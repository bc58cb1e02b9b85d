//! What travels beside the socket: the peer's address, and the key that a sticky policy found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a note: family, port, flow and scope, address, key.
pub(crate) const LEN: usize = 36;

/// A packet without a connection: is somebody there? Its reader says so in its load page.
pub(crate) const QUESTION: [u8; LEN] = [0; LEN];

/// Writes a note.
pub(crate) fn encode(peer: Option<SocketAddr>, key: u64) -> [u8; LEN] {
    let mut note = [0; LEN];
    note[28..36].copy_from_slice(&key.to_le_bytes());
    match peer {
        None => note[0] = 1,
        Some(SocketAddr::V4(peer)) => {
            note[0] = 4;
            note[2..4].copy_from_slice(&peer.port().to_le_bytes());
            note[12..16].copy_from_slice(&peer.ip().octets());
        }
        Some(SocketAddr::V6(peer)) => {
            note[0] = 6;
            note[2..4].copy_from_slice(&peer.port().to_le_bytes());
            note[4..8].copy_from_slice(&peer.flowinfo().to_le_bytes());
            note[8..12].copy_from_slice(&peer.scope_id().to_le_bytes());
            note[12..28].copy_from_slice(&peer.ip().octets());
        }
    }
    note
}

/// Reads a note: who (a Unix socket's peer has no address), and the key.
pub(crate) fn decode(note: &[u8]) -> Option<(Option<SocketAddr>, u64)> {
    let note: &[u8; LEN] = note.try_into().ok()?;
    let word = |at: usize| u32::from_le_bytes([note[at], note[at + 1], note[at + 2], note[at + 3]]);
    let port = u16::from_le_bytes([note[2], note[3]]);
    let key = u64::from(word(28)) | u64::from(word(32)) << 32;
    match note[0] {
        1 => Some((None, key)),
        4 => Some((Some((IpAddr::V4(Ipv4Addr::new(note[12], note[13], note[14], note[15])), port).into()), key)),
        6 => {
            let address: [u8; 16] = note[12..28].try_into().ok()?;
            Some((Some(SocketAddrV6::new(Ipv6Addr::from(address), port, word(4), word(8)).into()), key))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_keep_every_part_of_an_address_and_the_key() {
        for peer in ["127.0.0.1:80", "[::1]:65535", "[fe80::1%7]:3"] {
            let peer: SocketAddr = peer.parse().unwrap();
            assert_eq!(decode(&encode(Some(peer), u64::MAX - 1)), Some((Some(peer), u64::MAX - 1)));
        }
        assert_eq!(decode(&encode(None, 7)), Some((None, 7)));
        assert_eq!(decode(&[9; LEN]), None);
        assert_eq!(decode(&QUESTION), None);
        assert_eq!(decode(&[4; 5]), None);
    }
}
