//! A deserializer without input: notes what it is asked for, and answers with values of its own making.

use std::any::type_name;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};

use super::graph::{DEPTH, Kind, OFFERS, PASS, Step, Tracer, WORK};
use super::inside::Inside;

// What is offered, in this order, until it is accepted. No largest numbers: one may be taken for a length, and memory for so
// many elements be asked for. Texts and bytes are what common crates take for a version, a time, an address, an id.
const NUMBERS: [u16; OFFERS as usize] = [0, 1, 2, 100, 200, 1000];
const CHARS: [char; OFFERS as usize] = ['a', '0', 'A', ' ', '/', '\n'];
const TEXTS: [&str; OFFERS as usize] = ["", "a", "0", "0.0.0", "1970-01-01T00:00:00Z", "http://a.a/"];
const BYTES: [&[u8]; OFFERS as usize] = [b"", &[0; 16], &[0; 4], &[0; 32], &[1], &[0; 8]];

/// Looks at everything in `T` that can be seen.
pub(super) fn explore<T: DeserializeOwned>(tracer: &mut Tracer) {
    let root = Step { node: 0, arm: 0, slot: 0, by_name: false };
    pass::<T>(tracer, root, &[None]);
    loop {
        let (open, way) = tracer.survey();
        if open.is_empty() {
            return;
        }
        for target in open {
            if tracer.visits >= WORK {
                return;
            }
            if tracer.open(target) {
                pass::<T>(tracer, target, &way);
            }
        }
    }
}

/// One decoding, made to come by `target`. `way` leads there, from its end.
fn pass<T: DeserializeOwned>(tracer: &mut Tracer, target: Step, way: &[Option<Step>]) {
    let mut plan = vec![target];
    while let Some(step) = plan.last().and_then(|step| way[step.node]) {
        plan.push(step);
    }
    plan.reverse();
    let root = plan[0];
    tracer.plan = plan;
    tracer.path.clear();
    tracer.stopping = false;
    tracer.pass_end = tracer.visits + PASS;
    let facts = tracer.facts;
    // An implementation may panic at a value that no encoder would have written.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _ = tracer.fill(root, 0, Some(1), |probe| T::deserialize(probe));
    }));
    if outcome.is_err() {
        if let Some(&last) = tracer.path.last() {
            tracer.refused(last);
        }
    }
    if tracer.facts == facts {
        tracer.close(target);
    }
}

/// The end of a pass, ours or the type's.
#[derive(Debug)]
pub(super) struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the schema of this type is being traced")
    }
}

impl std::error::Error for Stop {}

impl Error for Stop {
    fn custom<T: fmt::Display>(_: T) -> Stop {
        Stop
    }
}

impl Tracer {
    pub(super) fn stop<T>(&mut self) -> Result<T, Stop> {
        self.stopping = true;
        Err(Stop)
    }

    /// Lets `ask` ask for what belongs at this place. An error that comes back is a refusal, unless we were the ones that
    /// stopped.
    pub(super) fn fill<T>(
        &mut self,
        at: Step,
        offer: u8,
        follow: Option<usize>,
        ask: impl FnOnce(Probe<'_>) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let depth = self.path.len();
        if self.stopping || depth >= DEPTH || self.visits >= self.pass_end {
            return self.stop();
        }
        self.visits += 1;
        self.path.push(at);
        let facts = self.facts;
        let offer = offer.max(self.slot(at).refused).min(OFFERS - 1);
        let outcome = ask(Probe { tracer: self, at, offer, follow });
        self.path.truncate(depth);
        if self.stopping {
            return outcome;
        }
        match outcome {
            Ok(value) => {
                if self.slot(at).node.is_none() {
                    self.asked(at, (Kind::Nothing, "", &[]), 0, "");
                }
                Ok(value)
            }
            Err(Stop) => {
                // While it teaches something, another value may come by itself.
                if self.facts == facts {
                    self.refused(at);
                }
                self.stop()
            }
        }
    }
}

/// What a `Deserialize` of the type gets to read from.
pub(super) struct Probe<'a> {
    tracer: &'a mut Tracer,
    at: Step,
    /// Which of the made-up values to offer.
    offer: u8,
    /// Which step of the plan is to be taken here.
    follow: Option<usize>,
}

impl<'a> Probe<'a> {
    fn leaf(&mut self, kind: Kind) -> usize {
        self.tracer.asked(self.at, (kind, "", &[]), 0, "");
        usize::from(self.offer)
    }

    fn never<T>(self, kind: Kind) -> Result<T, Stop> {
        self.tracer.asked(self.at, (kind, "", &[]), 0, "");
        self.tracer.close(self.at);
        self.tracer.stop()
    }

    /// Notes a compound of `slots` places; gives where its content is to be noted, and the plan's step if it leads inside.
    fn enter<V>(self, what: (Kind, &str, &[&str]), slots: usize) -> Inside<'a> {
        let node = self.tracer.asked(self.at, what, slots, type_name::<V>());
        let follow = self.follow.filter(|&n| self.tracer.plan.get(n).is_some_and(|step| step.node == node));
        let at = Step { node, arm: 0, slot: 0, by_name: false };
        Inside { tracer: self.tracer, at, offer: self.offer, follow, next: 0 }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $kind:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
            // The largest is 1000: in the small types it is another number, which does as well.
            let offer = self.leaf(Kind::$kind);
            visitor.$visit(NUMBERS[offer] as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    numbers! {
        deserialize_i8 visit_i8 i8, I8;
        deserialize_i16 visit_i16 i16, I16;
        deserialize_i32 visit_i32 i32, I32;
        deserialize_i64 visit_i64 i64, I64;
        deserialize_i128 visit_i128 i128, I128;
        deserialize_u8 visit_u8 u8, U8;
        deserialize_u16 visit_u16 u16, U16;
        deserialize_u32 visit_u32 u32, U32;
        deserialize_u64 visit_u64 u64, U64;
        deserialize_u128 visit_u128 u128, U128;
    }

    fn deserialize_f32<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let offer = self.leaf(Kind::F32);
        visitor.visit_f32(f32::from(NUMBERS[offer]))
    }

    fn deserialize_f64<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let offer = self.leaf(Kind::F64);
        visitor.visit_f64(f64::from(NUMBERS[offer]))
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let offer = self.leaf(Kind::Bool);
        visitor.visit_bool(offer % 2 == 1)
    }

    fn deserialize_char<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let offer = self.leaf(Kind::Char);
        visitor.visit_char(CHARS[offer])
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let offer = self.leaf(Kind::Str);
        visitor.visit_borrowed_str(TEXTS[offer])
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        let offer = self.leaf(Kind::Bytes);
        visitor.visit_borrowed_bytes(BYTES[offer])
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stop> {
        self.leaf(Kind::Unit);
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        self.tracer.asked(self.at, (Kind::UnitStruct, name, &[]), 0, "");
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut inside = self.enter::<V>((Kind::Option, "", &[]), 1);
        if inside.element() { inside.fill(0, |probe| visitor.visit_some(probe)) } else { visitor.visit_none() }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Stop> {
        let mut inside = self.enter::<V>((Kind::NewtypeStruct, name, &[]), 1);
        inside.newtype(|probe| visitor.visit_newtype_struct(probe))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut inside = self.enter::<V>((Kind::Seq, "", &[]), 1);
        inside.next = if inside.element() { 0 } else { 1 };
        visitor.visit_seq(inside)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let mut inside = self.enter::<V>((Kind::Map, "", &[]), 2);
        inside.next = if inside.element() { 0 } else { 2 };
        visitor.visit_map(inside)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.enter::<V>((Kind::Tuple, "", &[]), len).product(&[], visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.enter::<V>((Kind::TupleStruct, name, &[]), len).product(&[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.enter::<V>((Kind::Struct, name, fields), fields.len()).product(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let mut inside = self.enter::<V>((Kind::Enum, name, variants), variants.len());
        let planned = inside.follow.map(|n| inside.tracer.plan[n].arm);
        match planned.or_else(|| inside.tracer.any_arm(inside.at.node, inside.offer)) {
            Some(arm) => {
                inside.at.arm = arm;
                inside.tracer.try_arm(inside.at);
                visitor.visit_enum(inside)
            }
            None => inside.tracer.stop(),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.never(Kind::Any)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.never(Kind::Identifier)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        self.never(Kind::Ignored)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}
