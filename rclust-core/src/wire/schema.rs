//! The fingerprint of a message type: what tells two programs apart that would read the same bytes differently.
//!
//! It is traced from the type's own `Deserialize`, by a [`Deserializer`](probe::Probe) that has no input: it notes what is
//! asked of it and answers with made-up values, again and again, until every variant and field was seen. So it follows
//! renames, skipped fields and hand-written implementations just as decoding does, and knows a type by the names that
//! serde knows: the module it stands in is not among them.
//!
//! **By hand.** A type that hides its shape (a length-prefixed blob of its own making, a validation that refuses every
//! made-up value) changes its fingerprint when its name does, and a name costs no byte on the wire:
//! `#[serde(rename = "Job.v2")]`, or `deserialize_newtype_struct("Job.v2", ..)` where `Deserialize` is written by hand. The name
//! is part of the message type, so that both ends of a lane know it; a worker's would be known at one end only.
//!
//! **Not seen**: what is inside the `T` of a `Reply<T>` and the `M` of a `WorkerRef<M>` (no bound says that they can be traced: they
//! are known by their names, without modules); what a
//! `Deserialize` would ask for after another value, where it decides by values; the meaning of any field. Visitors of one
//! type are taken to ask for the same things (so recursion ends): one that carries state shows only its first face.
//! An alias counts as a name, though the wire has none.

mod graph;
mod hash;
mod inside;
mod probe;
mod survey;
#[cfg(test)]
mod tests;

use std::any::{TypeId, type_name};
use std::collections::BTreeMap;
use std::fmt;

use parking_lot::RwLock;
use serde::Deserializer;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::wire::payload;
use graph::{Kind, Tracer};

/// What a message type looks like on the wire, in 64 bits: the same in every process, compilation and architecture.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint(pub(crate) u64);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Nothing at all is known of the type: its `Deserialize` asked for nothing, or for whatever may come (which the encoding
/// cannot give). All such types would have the same fingerprint, so they have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Untraceable;

impl fmt::Display for Untraceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("its `Deserialize` does not tell what it reads")
    }
}

impl std::error::Error for Untraceable {}

/// What came of tracing a type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Traced {
    /// The fingerprint.
    pub(crate) fingerprint: Fingerprint,
    /// Places whose content was not seen, because no value got past what stands before them or because of a limit. Only
    /// their number and position are in the fingerprint: a change there goes unnoticed.
    pub(crate) unseen: usize,
    /// How many values were made up for it: its cost.
    pub(crate) visits: usize,
}

/// The fingerprint of `T`.
///
/// A type that refuses made-up values still has one, of what could be seen: of the names and the order always. One that
/// panics at them refuses them, though its panic goes through the hook, and aborts where panics do. Costs some
/// microseconds for usual types, 65536 visits (some 20 ms) at most: to be called once for each type and kept.
///
/// # Errors
/// See [`Untraceable`].
#[cfg(test)]
pub(crate) fn fingerprint<T: DeserializeOwned>() -> Result<Fingerprint, Untraceable> {
    trace::<T>().map(|traced| traced.fingerprint)
}

/// The fingerprint of `T`, and what is to be said of it.
#[cfg(test)]
pub(crate) fn trace<T: DeserializeOwned>() -> Result<Traced, Untraceable> {
    seen(&traced::<T>())
}

fn traced<T: DeserializeOwned>() -> Tracer {
    payload::tracing(|| {
        let mut tracer = Tracer::new();
        probe::explore::<T>(&mut tracer);
        tracer
    })
}

fn seen(tracer: &Tracer) -> Result<Traced, Untraceable> {
    match tracer.root() {
        None | Some(Kind::Any | Kind::Identifier | Kind::Ignored | Kind::Nothing) => Err(Untraceable),
        Some(_) => {
            let (value, unseen) = hash::of(tracer);
            Ok(Traced { fingerprint: Fingerprint(value), unseen, visits: tracer.visits })
        }
    }
}

/// What a process knows of a message type, traced once and kept.
#[derive(Clone, Copy)]
struct Known {
    fingerprint: u64,
    asks_for_any: bool,
}

fn known<M: DeserializeOwned + 'static>() -> Known {
    static KNOWN: RwLock<BTreeMap<TypeId, Known>> = RwLock::new(BTreeMap::new());
    if let Some(known) = KNOWN.read().get(&TypeId::of::<M>()) {
        return *known;
    }
    let tracer = traced::<M>();
    let by_name = |_| hash::Fnv::new().text(type_name::<M>()).end();
    let fingerprint = seen(&tracer).map_or_else(by_name, |traced| traced.fingerprint.0);
    let known = Known { fingerprint, asks_for_any: tracer.asks_for_any() };
    KNOWN.write().insert(TypeId::of::<M>(), known);
    known
}

/// The fingerprint of a message type as lanes compare it. What cannot be traced is known by the name that the compiler gives it.
pub(crate) fn of<M: DeserializeOwned + 'static>() -> u64 {
    known::<M>().fingerprint
}

/// Whether the type, or something in it, asks for whatever may come: its messages could be sent, and never be read.
pub(crate) fn asks_for_any<M: DeserializeOwned + 'static>() -> bool {
    known::<M>().asks_for_any
}

/// Called by the `Deserialize` of our own types in place of reading, when [`payload::is_tracing`]: they are known by name and by
/// the name of their parameter `T`, which no bound lets us trace. The caller then makes a placeholder, which must do nothing
/// when dropped.
pub(crate) fn name<'de, T, D: Deserializer<'de>>(name: &str, deserializer: D) -> Result<(), D::Error> {
    deserializer
        .deserialize_unit_struct(interned(format!("{name}<{}>", unplaced(type_name::<T>()))), IgnoredAny)
        .map(drop)
}

/// A type's name without the modules that it and its parameters stand in.
fn unplaced(name: &str) -> String {
    let mut short = String::new();
    let mut word = String::new();
    for c in name.chars() {
        match c {
            ':' => word.clear(),
            c if c.is_alphanumeric() || c == '_' => word.push(c),
            c => {
                short.push_str(&word);
                word.clear();
                short.push(c);
            }
        }
    }
    short + &word
}

/// serde wants names that live for ever: one for each type that is a parameter somewhere.
fn interned(name: String) -> &'static str {
    static NAMES: RwLock<BTreeMap<String, &'static str>> = RwLock::new(BTreeMap::new());
    let mut names = NAMES.write();
    if let Some(known) = names.get(&name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.clone().into_boxed_str());
    names.insert(name, kept);
    kept
}
