//! What travels beside the socket: the peer's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a note: family, port, flow and scope, address.
pub(crate) const LEN: usize = 28;

/// A packet without a connection: is somebody there? Its reader says so in its load page.
pub(crate) const QUESTION: [u8; LEN] = [0; LEN];

/// Writes a note.
pub(crate) fn encode(peer: SocketAddr) -> [u8; LEN] {
    let mut note = [0; LEN];
    note[2..4].copy_from_slice(&peer.port().to_le_bytes());
    match peer {
        SocketAddr::V4(peer) => {
            note[0] = 4;
            note[12..16].copy_from_slice(&peer.ip().octets());
        }
        SocketAddr::V6(peer) => {
            note[0] = 6;
            note[4..8].copy_from_slice(&peer.flowinfo().to_le_bytes());
            note[8..12].copy_from_slice(&peer.scope_id().to_le_bytes());
            note[12..28].copy_from_slice(&peer.ip().octets());
        }
    }
    note
}

/// Reads a note.
pub(crate) fn decode(note: &[u8]) -> Option<SocketAddr> {
    let note: &[u8; LEN] = note.try_into().ok()?;
    let word = |at: usize| u32::from_le_bytes([note[at], note[at + 1], note[at + 2], note[at + 3]]);
    let port = u16::from_le_bytes([note[2], note[3]]);
    match note[0] {
        4 => Some((IpAddr::V4(Ipv4Addr::new(note[12], note[13], note[14], note[15])), port).into()),
        6 => {
            let address: [u8; 16] = note[12..28].try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(address), port, word(4), word(8)).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_keep_every_part_of_an_address() {
        for peer in ["127.0.0.1:80", "[::1]:65535", "[fe80::1%7]:3"] {
            let peer: SocketAddr = peer.parse().unwrap();
            assert_eq!(decode(&encode(peer)), Some(peer));
        }
        assert_eq!(decode(&[9; LEN]), None);
        assert_eq!(decode(&[4; 5]), None);
    }
}
