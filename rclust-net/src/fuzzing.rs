//! What a worker asks of the net thread, and the note beside a socket, from bytes that nobody vouches for.
//!
//! `fuzz/` runs it under libFuzzer; the test below runs its corpus on any toolchain.

use crate::bind::Ask;
use crate::handoff::note;

/// A question and a note are refused, or say what their own encoding says again.
pub fn request(data: &[u8]) {
    if let Ok(ask) = postcard::from_bytes::<Ask>(data) {
        let bytes = postcard::to_allocvec(&ask).expect("what was decoded can be encoded");
        let again: Ask = postcard::from_bytes(&bytes).expect("what was encoded can be decoded");
        assert_eq!(format!("{again:?}"), format!("{ask:?}"));
    }
    if let Some(note) = note::decode(data) {
        assert_eq!(note::decode(&note::encode(note)), Some(note));
    }
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
#[test]
fn the_corpus_holds_and_so_do_mutations_of_it() {
    replay::corpus("request", request);
}
