//! Frames on the control link: header layout and version; bytes to frames and back. Pure.
//!
//! ```text
//! u32 length of the body | u16 version | u16 number of descriptors that came with the first byte | body (postcard)
//! ```
//! All little endian. The two sides run the same program, so a version that differs is an error, not a negotiation.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The wire version; part of a program's identity.
pub(crate) const VERSION: u16 = 1;

/// Bytes in front of a body.
pub(crate) const HEAD: usize = 8;

/// The largest body that a worker accepts from its supervisor (a worker's arguments are in it).
pub(crate) const LARGEST_DOWN: usize = 16 << 20;

/// The largest body that the supervisor accepts from a worker.
pub(crate) const LARGEST_UP: usize = 1 << 20;

/// What came over a control link cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// Longer than this side accepts.
    #[error("a control frame of {len} bytes, the limit is {limit}")]
    TooLong {
        /// The body's length.
        len: usize,
        /// This side's limit.
        limit: usize,
    },
    /// Another version.
    #[error("a control frame of wire version {0}, this program speaks {VERSION}: both sides must be the same build")]
    Version(u16),
    /// Bytes that are no such message.
    #[error("a control frame that cannot be decoded ({0})")]
    Body(postcard::Error),
}

/// Encodes a frame.
pub(crate) fn encode<T: Serialize>(value: &T, descriptors: usize) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(value, vec![0; HEAD])?;
    let len = (bytes.len() - HEAD) as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[6..8].copy_from_slice(&(descriptors as u16).to_le_bytes());
    Ok(bytes)
}

/// Collects bytes and cuts them into frames.
#[derive(Debug)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    start: usize,
    limit: usize,
}

impl Decoder {
    /// Accepts bodies of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Decoder {
        Decoder { bytes: Vec::new(), start: 0, limit }
    }

    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > 64 * 1024 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame and how many descriptors belong to it; `None` until more bytes come.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(T, usize)>, FrameError> {
        let rest = &self.bytes[self.start..];
        let Some(head) = rest.first_chunk::<HEAD>() else { return Ok(None) };
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let version = u16::from_le_bytes([head[4], head[5]]);
        let descriptors = usize::from(u16::from_le_bytes([head[6], head[7]]));
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if len > self.limit {
            return Err(FrameError::TooLong { len, limit: self.limit });
        }
        let Some(body) = rest.get(HEAD..HEAD + len) else { return Ok(None) };
        let value = match postcard::take_from_bytes::<T>(body) {
            Ok((value, [])) => value,
            Ok(_) => return Err(FrameError::Body(postcard::Error::DeserializeBadEncoding)),
            Err(error) => return Err(FrameError::Body(error)),
        };
        self.start += HEAD + len;
        if self.start == self.bytes.len() {
            // An idle link keeps no memory.
            self.bytes = Vec::new();
            self.start = 0;
        }
        Ok(Some((value, descriptors)))
    }

    /// Bytes of memory that it holds.
    #[cfg(any(fuzzing, all(test, not(rclust_loom))))]
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut bytes = Vec::new();
        for n in 0..20u32 {
            bytes.extend(encode(&(n, "x".repeat(n as usize)), n as usize % 3).unwrap());
        }
        for step in 1..40 {
            let mut decoder = Decoder::new(1000);
            let mut seen = 0;
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(((n, text), descriptors)) = decoder.next::<(u32, String)>().unwrap() {
                    assert_eq!((n, text.len(), descriptors), (seen, seen as usize, seen as usize % 3));
                    seen += 1;
                }
            }
            assert_eq!(seen, 20, "step {step}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_anything_is_kept() {
        for len in [1001u32, 1 << 31, u32::MAX] {
            let mut decoder = Decoder::new(1000);
            let mut head = len.to_le_bytes().to_vec();
            head.extend(VERSION.to_le_bytes());
            head.extend([0, 0]);
            decoder.push(&head);
            assert!(matches!(decoder.next::<u8>(), Err(FrameError::TooLong { .. })));
        }
    }

    #[test]
    fn garbage_never_panics() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..20_000 {
            let mut decoder = Decoder::new(256);
            let garbage: Vec<u8> = (0..rng.usize(0..64)).map(|_| rng.u8(0..4)).collect();
            decoder.push(&garbage);
            while let Ok(Some(_)) = decoder.next::<crate::wire::control::ToSupervisor>() {}
        }
    }
}
