//! What is inside a compound: its fields, elements, entries and variants, one asked for after the other.

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::graph::{Kind, Slot, Step, Tracer};
use super::probe::{Probe, Stop};

/// A compound that is being decoded.
pub(super) struct Inside<'a> {
    pub(super) tracer: &'a mut Tracer,
    /// The node and its arm.
    pub(super) at: Step,
    pub(super) offer: u8,
    /// The step of the plan that leads inside.
    pub(super) follow: Option<usize>,
    /// The place that comes next.
    pub(super) next: usize,
}

impl Inside<'_> {
    fn step(&self) -> Option<Step> {
        self.follow.map(|n| self.tracer.plan[n])
    }

    /// Whether an option, sequence or map has an element this time. As a rule not: it costs, and teaches nothing new.
    pub(super) fn element(&self) -> bool {
        let new = self.offer > 0 || self.tracer.arm(self.at).slots.iter().any(Slot::open);
        self.follow.is_some() || (new && self.tracer.worth_building(self.at))
    }

    /// Lets `ask` ask for what is at one of the places.
    pub(super) fn fill<T>(&mut self, slot: usize, ask: impl FnOnce(Probe<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let follow = self.follow.filter(|&n| self.tracer.plan[n].slot == slot).map(|n| n + 1);
        self.tracer.fill(Step { slot, ..self.at }, self.offer, follow, ask)
    }

    /// The content of a newtype.
    pub(super) fn newtype<T>(&mut self, ask: impl FnOnce(Probe<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        if self.follow.is_none() && !self.tracer.worth_building(self.at) {
            return self.tracer.stop();
        }
        let outcome = self.fill(0, ask);
        self.tracer.reprice(self.at);
        outcome
    }

    /// The content of a struct or tuple. The fields of a struct have names.
    pub(super) fn product<'de, V: Visitor<'de>>(
        mut self,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        match self.step() {
            Some(step) if step.by_name => return self.by_name(names.get(step.slot).copied(), visitor),
            Some(_) => {}
            None if self.tracer.worth_building(self.at) => {}
            None => return self.tracer.stop(),
        }
        let outcome = visitor.visit_seq(&mut self);
        if outcome.is_ok() && !self.tracer.stopping {
            // What it has not asked for does not exist: among the names are aliases.
            self.tracer.truncate(self.at, self.next);
        }
        self.tracer.reprice(self.at);
        outcome
    }

    /// A struct that is given one field, with its name: so nothing has to be built of the ones before it. There can be no
    /// value, and nobody needs one.
    fn by_name<'de, V: Visitor<'de>>(&mut self, name: Option<&'static str>, visitor: V) -> Result<V::Value, Stop> {
        let Some(name) = name else { return self.tracer.stop() };
        let mut field = ByName { inside: self, name, asked: false };
        let _ = visitor.visit_map(&mut field);
        if !field.asked && !field.inside.tracer.stopping {
            self.tracer.only_in_order(self.at);
        }
        self.tracer.stop()
    }
}

impl<'de> SeqAccess<'de> for Inside<'_> {
    type Error = Stop;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let (slot, arm) = (self.next, self.tracer.arm(self.at));
        if slot >= arm.slots.len() {
            return if arm.cut { self.tracer.stop() } else { Ok(None) };
        }
        let past = self.step().is_some_and(|step| slot > step.slot);
        if past && !arm.slots[slot..].iter().any(Slot::open) {
            return self.tracer.stop();
        }
        self.next += 1;
        self.fill(slot, |probe| seed.deserialize(probe)).map(Some)
    }
}

impl<'de> MapAccess<'de> for Inside<'_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if self.next > 0 {
            return Ok(None);
        }
        self.next = 1;
        self.fill(0, |probe| seed.deserialize(probe)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        self.fill(1, |probe| seed.deserialize(probe))
    }
}

impl<'de> EnumAccess<'de> for Inside<'_> {
    type Error = Stop;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        // By number, as on the wire.
        let number: serde::de::value::U32Deserializer<Stop> = (self.at.arm as u32).into_deserializer();
        match seed.deserialize(number) {
            Ok(variant) => Ok((variant, self)),
            Err(Stop) => {
                self.tracer.no_such_variant(self.at);
                self.tracer.stop()
            }
        }
    }
}

impl<'de> VariantAccess<'de> for Inside<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.tracer.shape(self.at, Kind::Unit, &[], 0);
        self.tracer.reprice(self.at);
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Stop> {
        self.tracer.shape(self.at, Kind::NewtypeStruct, &[], 1);
        self.newtype(|probe| seed.deserialize(probe))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.tracer.shape(self.at, Kind::Tuple, &[], len);
        self.product(&[], visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Stop> {
        self.tracer.shape(self.at, Kind::Struct, fields, fields.len());
        self.product(fields, visitor)
    }
}

/// One field and its name.
struct ByName<'a, 'b> {
    inside: &'b mut Inside<'a>,
    name: &'static str,
    asked: bool,
}

impl<'de> MapAccess<'de> for ByName<'_, '_> {
    type Error = Stop;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        if std::mem::replace(&mut self.asked, true) {
            return self.inside.tracer.stop();
        }
        seed.deserialize(BorrowedStrDeserializer::<Stop>::new(self.name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let Some(step) = self.inside.step() else { return self.inside.tracer.stop() };
        self.inside.fill(step.slot, |probe| seed.deserialize(probe))
    }
}
