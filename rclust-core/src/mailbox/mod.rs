//! Mailboxes: ordered, bounded messages of one slot, in memory that outlives the processes on both sides.

pub(crate) mod answers;
pub(crate) mod bell;
pub(crate) mod beside;
pub(crate) mod dead;
pub(crate) mod depot;
pub(crate) mod endpoint;
pub(crate) mod lane;
pub(crate) mod linger;
pub(crate) mod pending;
pub(crate) mod receiver;
pub(crate) mod ring;
pub(crate) mod sender;
pub(crate) mod switchboard;
