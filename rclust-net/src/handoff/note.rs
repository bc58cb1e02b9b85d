//! What travels beside the socket: the peer's address, the key that a sticky policy found, and the packet's number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of a note: family, deaths, port, flow and scope, address, key, number.
pub(crate) const LEN: usize = 40;

/// A packet without a connection: is somebody there? Its reader says so in its load page.
pub(crate) const QUESTION: [u8; LEN] = [0; LEN];

/// What is said of a connection in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// A Unix socket's has none.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) key: u64,
    /// How many workers have died with it in their hands.
    pub(crate) deaths: u8,
    /// Tells it from the others in its queue; never 0.
    pub(crate) number: u32,
}

/// Writes a note.
pub(crate) fn encode(Note { peer, key, deaths, number }: Note) -> [u8; LEN] {
    let mut note = [0; LEN];
    note[1] = deaths;
    note[28..36].copy_from_slice(&key.to_le_bytes());
    note[36..40].copy_from_slice(&number.to_le_bytes());
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

/// Reads a note.
pub(crate) fn decode(note: &[u8]) -> Option<Note> {
    let note: &[u8; LEN] = note.try_into().ok()?;
    let word = |at: usize| u32::from_le_bytes([note[at], note[at + 1], note[at + 2], note[at + 3]]);
    let port = u16::from_le_bytes([note[2], note[3]]);
    let key = u64::from(word(28)) | u64::from(word(32)) << 32;
    let peer = match note[0] {
        1 => None,
        4 => Some((IpAddr::V4(Ipv4Addr::new(note[12], note[13], note[14], note[15])), port).into()),
        6 => {
            let address: [u8; 16] = note[12..28].try_into().ok()?;
            Some(SocketAddrV6::new(Ipv6Addr::from(address), port, word(4), word(8)).into())
        }
        _ => return None,
    };
    Some(Note { peer, key, deaths: note[1], number: word(36) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_keep_every_part_of_an_address_the_key_and_the_number() {
        for peer in [Some("127.0.0.1:80"), Some("[::1]:65535"), Some("[fe80::1%7]:3"), None] {
            let peer = peer.map(|peer| peer.parse::<SocketAddr>().unwrap());
            let note = Note { peer, key: u64::MAX - 1, deaths: 2, number: u32::MAX - 2 };
            assert_eq!(decode(&encode(note)), Some(note));
        }
        assert_eq!(decode(&[9; LEN]), None);
        assert_eq!(decode(&QUESTION), None);
        assert_eq!(decode(&[4; 5]), None);
    }
}
