//! What it costs to make a value of what was seen, and so where to look next.

use super::graph::{Arm, DEPTH, Kind, Node, Slot, Step, Tracer};

/// What may be built to get at the field behind it, in values.
const BUILD: u32 = 1 << 10;
/// From here on a field is rather asked for by name, if that is possible, than the ones before it built.
const CHEAP: u32 = 8;

impl Tracer {
    fn slot_price(&self, slot: &Slot) -> Option<u32> {
        if slot.closed { None } else { slot.node.and_then(|node| self.nodes[node].price) }
    }

    fn arm_price(&self, arm: &Arm) -> Option<u32> {
        if arm.closed || arm.cut || arm.shape.is_none() {
            return None;
        }
        arm.slots.iter().try_fold(1u32, |sum, slot| Some(sum.saturating_add(self.slot_price(slot)?)))
    }

    /// An arm was built: its node may have become cheaper.
    pub(super) fn reprice(&mut self, at: Step) {
        if let Some(price) = self.arm_price(self.arm(at)) {
            let node = &mut self.nodes[at.node];
            node.price = Some(node.price.map_or(price, |old| old.min(price)));
        }
    }

    /// All prices anew, from the leaves up: what is recursive has a price through the variant that is not.
    fn price_all(&mut self) {
        let free = |node: &Node| matches!(node.kind, Kind::Option | Kind::Seq | Kind::Map);
        for node in &mut self.nodes {
            node.price = free(node).then_some(1);
        }
        let mut changed = true;
        while changed {
            changed = false;
            // Children are mostly younger than their parents.
            for at in (0..self.nodes.len()).rev().filter(|&at| !free(&self.nodes[at])).collect::<Vec<_>>() {
                let price = self.nodes[at].arms.iter().filter_map(|arm| self.arm_price(arm)).min();
                changed |= price != self.nodes[at].price;
                self.nodes[at].price = price;
            }
        }
    }

    /// The variant to build when any will do: the cheapest; when that was refused, another; when no price is known, one
    /// that was not tried yet.
    pub(super) fn any_arm(&self, node: usize, offer: u8) -> Option<usize> {
        let arms = &self.nodes[node].arms;
        let priced = || arms.iter().enumerate().filter_map(|(n, arm)| Some((self.arm_price(arm)?, n)));
        let best = match offer {
            0 => priced().min(),
            offer => priced().nth(usize::from(offer) % priced().count().max(1)),
        };
        best.map(|(_, n)| n).or_else(|| arms.iter().position(|arm| !arm.tried && !arm.closed))
    }

    /// Whether building this arm, place after place, gives a value or leads to something new.
    pub(super) fn worth_building(&self, at: Step) -> bool {
        let mut sum = 0u32;
        for slot in &self.arm(at).slots {
            match self.slot_price(slot) {
                Some(price) => sum = sum.saturating_add(price),
                None => return slot.open() && sum <= BUILD,
            }
        }
        sum <= BUILD
    }

    /// Everything that is to be seen and can be got at, nearest first, and for each node the step that leads to it.
    pub(super) fn survey(&mut self) -> (Vec<Step>, Vec<Option<Step>>) {
        self.price_all();
        let mut open = Vec::new();
        let mut way: Vec<Option<Step>> = vec![None; self.nodes.len()];
        let mut queue = vec![(0, 0)];
        let mut next = 0;
        while let Some(&(node, depth)) = queue.get(next) {
            next += 1;
            for (n, arm) in self.nodes[node].arms.iter().enumerate().filter(|(_, arm)| !arm.closed && depth < DEPTH) {
                if !arm.tried {
                    open.push(Step { node, arm: n, slot: 0, by_name: false });
                }
                let mut before = Some(0u32);
                for (slot, place) in arm.slots.iter().enumerate() {
                    let by_name = arm.by_name && before.is_none_or(|price| price > CHEAP);
                    let step = Step { node, arm: n, slot, by_name };
                    let reach = by_name || before.is_some_and(|price| price <= BUILD);
                    before = before.and_then(|sum| Some(sum.saturating_add(self.slot_price(place)?)));
                    match place.node {
                        _ if !reach => {}
                        None if place.open() => open.push(step),
                        Some(child) if child != 0 && way[child].is_none() => {
                            way[child] = Some(step);
                            queue.push((child, depth + 1));
                        }
                        _ => {}
                    }
                }
            }
        }
        (open, way)
    }
}
