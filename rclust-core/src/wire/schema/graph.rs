//! What was seen of a type so far.

use std::collections::HashMap;

use super::hash::Fnv;

/// Levels of types within types that are looked at. What is deeper counts as not seen.
pub(super) const DEPTH: usize = 64;
/// Values made up for one type, at most: some milliseconds.
pub(super) const WORK: usize = 1 << 16;
/// Values made up in one pass, at most.
pub(super) const PASS: usize = 1 << 12;
/// Elements of a tuple or array that are looked at.
const WIDE: usize = 1 << 10;
/// How many values are offered before a place counts as refusing all.
pub(super) const OFFERS: u8 = 6;

/// What a `Deserialize` asked for. The numbers are hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Root = 0,
    Bool = 1,
    I8 = 2,
    I16 = 3,
    I32 = 4,
    I64 = 5,
    I128 = 6,
    U8 = 7,
    U16 = 8,
    U32 = 9,
    U64 = 10,
    U128 = 11,
    F32 = 12,
    F64 = 13,
    Char = 14,
    Str = 15,
    Bytes = 16,
    Option = 17,
    Unit = 18,
    UnitStruct = 19,
    NewtypeStruct = 20,
    Seq = 21,
    Tuple = 22,
    TupleStruct = 23,
    Map = 24,
    Struct = 25,
    Enum = 26,
    /// `deserialize_any`, `_identifier`, `_ignored_any`: the encoding has no answer, and neither has the tracer.
    Any = 27,
    Identifier = 28,
    Ignored = 29,
    /// It made a value without asking for anything.
    Nothing = 30,
}

/// Something that `Deserialize` can ask for, with its content.
pub(super) struct Node {
    /// The hash of its kind and names.
    pub(super) label: u64,
    pub(super) kind: Kind,
    /// Which visitor asked: this is what tells types apart, but it is never hashed, because modules are in it.
    visitor: &'static str,
    /// How many places, or variants, it was said to have.
    asked_for: usize,
    /// Its variants; one if it is no enum.
    pub(super) arms: Vec<Arm>,
    /// How many values make up the smallest value of it; `None`: none can be made, or none is known yet.
    pub(super) price: Option<u32>,
}

/// One form of a node: a variant, or all there is.
pub(super) struct Arm {
    /// Its hash; `None`: not seen. Non-enums have 0.
    pub(super) shape: Option<u64>,
    /// What it contains, in the order of the wire.
    pub(super) slots: Vec<Slot>,
    /// It has more than is looked at.
    pub(super) cut: bool,
    /// It was asked for.
    pub(super) tried: bool,
    /// Asking for it again is useless.
    pub(super) closed: bool,
    /// Its fields can be given by name, in any order: true of what is derived. False when that has failed.
    pub(super) by_name: bool,
}

/// A place inside: a field, an element, a key, a value.
#[derive(Clone, Default)]
pub(super) struct Slot {
    /// What was asked for here; `None`: not seen.
    pub(super) node: Option<usize>,
    /// How many of the values that were made up for it were refused, in a row that taught nothing else.
    pub(super) refused: u8,
    /// No value for it can be made.
    pub(super) closed: bool,
}

/// A place, and how to get at it.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) node: usize,
    pub(super) arm: usize,
    pub(super) slot: usize,
    pub(super) by_name: bool,
}

/// The graph, and the state of the pass over it.
pub(super) struct Tracer {
    pub(super) nodes: Vec<Node>,
    known: HashMap<(u64, &'static str), usize>,
    /// The way to the place that this pass is to look at.
    pub(super) plan: Vec<Step>,
    /// Where the pass is.
    pub(super) path: Vec<Step>,
    /// The pass has seen what there was to see: every error from now on is ours.
    pub(super) stopping: bool,
    /// Counts what was learnt. Each pass learns something, and there is an end to what can be: so there is to the passes.
    pub(super) facts: usize,
    /// Values made up.
    pub(super) visits: usize,
    /// Where `visits` may be at the end of this pass.
    pub(super) pass_end: usize,
}

impl Arm {
    fn new(tried: bool) -> Arm {
        Arm { shape: None, slots: Vec::new(), cut: false, tried, closed: false, by_name: false }
    }

    fn shaped(&mut self, shape: u64, slots: usize, by_name: bool) {
        self.shape = Some(shape);
        self.slots = vec![Slot::default(); slots.min(WIDE)];
        self.cut = slots > WIDE;
        self.by_name = by_name;
    }
}

impl Slot {
    /// Whether it is still to be looked at.
    pub(super) fn open(&self) -> bool {
        self.node.is_none() && !self.closed
    }
}

impl Tracer {
    pub(super) fn new() -> Tracer {
        let mut arm = Arm::new(true);
        arm.shaped(0, 1, false);
        let root = Node {
            label: Kind::Root as u64,
            kind: Kind::Root,
            visitor: "",
            asked_for: 1,
            arms: vec![arm],
            price: None,
        };
        Tracer {
            nodes: vec![root],
            known: HashMap::new(),
            plan: Vec::new(),
            path: Vec::new(),
            stopping: false,
            facts: 0,
            visits: 0,
            pass_end: 0,
        }
    }

    /// What the type itself asked for.
    pub(super) fn root(&self) -> Option<Kind> {
        self.nodes[0].arms[0].slots[0].node.map(|node| self.nodes[node].kind)
    }

    /// Whether the type, or something in it, asks for whatever may come, or (`flatten`) for the names of its fields.
    pub(super) fn asks_for_any(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.kind, Kind::Any | Kind::Identifier))
    }

    pub(super) fn arm(&self, at: Step) -> &Arm {
        &self.nodes[at.node].arms[at.arm]
    }

    pub(super) fn arm_mut(&mut self, at: Step) -> &mut Arm {
        &mut self.nodes[at.node].arms[at.arm]
    }

    pub(super) fn slot(&self, at: Step) -> &Slot {
        &self.arm(at).slots[at.slot]
    }

    pub(super) fn slot_mut(&mut self, at: Step) -> &mut Slot {
        &mut self.arm_mut(at).slots[at.slot]
    }

    /// At this place, `visitor` asks for this: what is seen there first stays.
    pub(super) fn asked(
        &mut self,
        at: Step,
        (kind, name, names): (Kind, &str, &[&str]),
        slots: usize,
        visitor: &'static str,
    ) -> usize {
        // Most places are come by many times: then the names, which may be many, are not hashed again.
        if let Some(node) = self.slot(at).node {
            let was = &self.nodes[node];
            if (was.kind, was.visitor, was.asked_for) == (kind, visitor, slots) {
                return node;
            }
        }
        let label = Fnv::new().number(kind as u64).text(name).texts(names).number(slots as u64).end();
        let next = self.nodes.len();
        let node = *self.known.entry((label, visitor)).or_insert(next);
        if node == next {
            let arms = if kind == Kind::Enum {
                names.iter().map(|_| Arm::new(false)).collect()
            } else {
                let mut arm = Arm::new(true);
                arm.shaped(0, slots, kind == Kind::Struct);
                vec![arm]
            };
            let price = matches!(kind, Kind::Option | Kind::Seq | Kind::Map) || (slots == 0 && kind != Kind::Enum);
            self.nodes.push(Node { label, kind, visitor, asked_for: slots, arms, price: price.then_some(1) });
        }
        if self.slot(at).node.is_none() {
            self.slot_mut(at).node = Some(node);
            self.facts += 1;
        }
        node
    }

    /// The variant `at` has this form.
    pub(super) fn shape(&mut self, at: Step, kind: Kind, names: &[&str], slots: usize) {
        if self.arm(at).shape.is_none() {
            let shape = Fnv::new().number(kind as u64).texts(names).number(slots as u64).end();
            self.arm_mut(at).shaped(shape, slots, kind == Kind::Struct);
            self.facts += 1;
        }
    }

    /// The variant `at` is asked for.
    pub(super) fn try_arm(&mut self, at: Step) {
        if !std::mem::replace(&mut self.arm_mut(at).tried, true) {
            self.facts += 1;
        }
    }

    /// A value for this place was refused, and nothing was learnt but that.
    pub(super) fn refused(&mut self, at: Step) {
        self.facts += 1;
        let slot = self.slot_mut(at);
        slot.refused = slot.refused.saturating_add(1);
        slot.closed = slot.closed || slot.node.is_none() || slot.refused >= OFFERS;
    }

    /// Whether there is something to see.
    pub(super) fn open(&self, at: Step) -> bool {
        let arm = self.arm(at);
        !arm.closed && (!arm.tried || arm.slots.get(at.slot).is_some_and(Slot::open))
    }

    /// There is no way to see what is at this place.
    pub(super) fn close(&mut self, at: Step) {
        self.facts += 1;
        let arm = self.arm_mut(at);
        match arm.slots.get_mut(at.slot) {
            Some(slot) => slot.closed = true,
            None => arm.closed = true,
        }
    }

    /// A value of this arm was made of its first places alone: unless there was once more, there is no more.
    pub(super) fn truncate(&mut self, at: Step, asked: usize) {
        let slots = &mut self.arm_mut(at).slots;
        let seen = slots.iter().rposition(|slot| slot.node.is_some()).map_or(0, |last| last + 1);
        if asked.max(seen) < slots.len() {
            slots.truncate(asked.max(seen));
            self.facts += 1;
        }
    }

    /// The fields of this arm cannot be given by name.
    pub(super) fn only_in_order(&mut self, at: Step) {
        self.arm_mut(at).by_name = false;
        self.facts += 1;
    }

    /// The type knows no variant of this number: among the names are aliases.
    pub(super) fn no_such_variant(&mut self, at: Step) {
        let arm = self.arm_mut(at);
        (arm.closed, arm.shape) = (true, Some(0));
        self.facts += 1;
    }
}
