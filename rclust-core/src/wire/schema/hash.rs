//! From what was seen to a number that does not depend on how it was seen.

use super::graph::{Node, Tracer};

/// FNV-1a, 64 bits: the same everywhere and for ever, which the standard library's hashers do not promise.
#[derive(Clone, Copy)]
pub(super) struct Fnv(u64);

impl Fnv {
    pub(super) fn new() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(self, bytes: &[u8]) -> Fnv {
        Fnv(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)))
    }

    pub(super) fn number(self, number: u64) -> Fnv {
        self.bytes(&number.to_le_bytes())
    }

    /// With its length, so that "ab", "c" is not "a", "bc".
    pub(super) fn text(self, text: &str) -> Fnv {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    pub(super) fn texts(self, texts: &[&str]) -> Fnv {
        texts.iter().fold(self.number(texts.len() as u64), |hash, text| hash.text(text))
    }

    pub(super) fn end(self) -> u64 {
        self.0
    }
}

/// Stands for a field or variant whose content was not seen.
const UNSEEN: u64 = 0x0075_6e73_6565_6e00;

/// The hash of everything that can be reached from the root, and how many places of it were not seen.
///
/// Types may be recursive, so this is a graph, and one graph can be met in many forms: a type that is used twice, or two
/// modules' types that are alike. Each node begins with the hash of its own names and is then hashed again and again
/// with those of its children, until that tells no more nodes apart. The root's hash and the set of all hashes then depend
/// on what the graph unfolds to, and on nothing else (partition refinement).
pub(super) fn of(tracer: &Tracer) -> (u64, usize) {
    let reached = reached(&tracer.nodes);
    let mut hashes: Vec<u64> = tracer.nodes.iter().map(|node| node.label).collect();
    let mut classes = set(&reached, &hashes);
    let mut rounds = 0;
    loop {
        rounds += 1;
        let mut next = hashes.clone();
        for &node in &reached {
            next[node] = with_children(hashes[node], &tracer.nodes[node], &hashes);
        }
        let told_apart = set(&reached, &next);
        let stable = told_apart.len() == classes.len();
        (hashes, classes) = (next, told_apart);
        if stable {
            break;
        }
    }
    let root = Fnv::new().number(rounds).number(hashes[0]);
    let all = classes.iter().fold(root, |hash, class| hash.number(*class));
    (all.end(), reached.iter().map(|&node| unseen(&tracer.nodes[node])).sum())
}

fn with_children(own: u64, node: &Node, hashes: &[u64]) -> u64 {
    let mut hash = Fnv::new().number(own);
    for arm in &node.arms {
        hash = hash.number(arm.shape.unwrap_or(UNSEEN)).number(arm.slots.len() as u64);
        for slot in &arm.slots {
            hash = hash.number(slot.node.map_or(UNSEEN, |child| hashes[child]));
        }
    }
    hash.end()
}

fn unseen(node: &Node) -> usize {
    let arm = |arm: &super::graph::Arm| {
        let slots = arm.slots.iter().filter(|slot| slot.node.is_none()).count();
        usize::from(arm.shape.is_none()) + usize::from(arm.cut) + slots
    };
    node.arms.iter().map(arm).sum()
}

fn reached(nodes: &[Node]) -> Vec<usize> {
    let mut seen = vec![false; nodes.len()];
    let mut order = vec![0];
    seen[0] = true;
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for child in nodes[node].arms.iter().flat_map(|arm| &arm.slots).filter_map(|slot| slot.node) {
            if !std::mem::replace(&mut seen[child], true) {
                order.push(child);
            }
        }
    }
    order
}

fn set(reached: &[usize], hashes: &[u64]) -> Vec<u64> {
    let mut set: Vec<u64> = reached.iter().map(|&node| hashes[node]).collect();
    set.sort_unstable();
    set.dedup();
    set
}
