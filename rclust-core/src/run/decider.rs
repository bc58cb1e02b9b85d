//! Who decides: the tree of this process, or a player that holds the tree elsewhere and has real processes beneath it.

use std::sync::mpsc;

use crate::id::{Slot, WorkerId};
use crate::tree::event::{Action, Event, State, Time};
use crate::tree::machine::{Place, Tree};

/// See the module.
pub(crate) enum Decider {
    /// The tree itself.
    Tree(Box<Tree>),
    /// Events go there; actions come as commands.
    Player(mpsc::Sender<Event>),
}

impl Decider {
    pub(crate) fn handle(&mut self, now: Time, event: Event) {
        match self {
            Decider::Tree(tree) => tree.handle(now, event),
            // A player that has ended hears no more.
            Decider::Player(player) => drop(player.send(event)),
        }
    }

    /// Whether it is the tree itself.
    pub(crate) fn is_tree(&self) -> bool {
        matches!(self, Decider::Tree(_))
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        match self {
            Decider::Tree(tree) => tree.poll_action(),
            Decider::Player(_) => None,
        }
    }

    pub(crate) fn poll_wakeup(&self) -> Option<Time> {
        match self {
            Decider::Tree(tree) => tree.poll_wakeup(),
            Decider::Player(_) => None,
        }
    }

    pub(crate) fn place(&self, slot: Slot) -> Option<Place> {
        match self {
            Decider::Tree(tree) => tree.place(slot),
            Decider::Player(_) => None,
        }
    }

    pub(crate) fn template(&self, slot: Slot) -> Option<u32> {
        match self {
            Decider::Tree(tree) => tree.template(slot),
            Decider::Player(_) => None,
        }
    }

    pub(crate) fn state(&self, slot: Slot) -> Option<State> {
        match self {
            Decider::Tree(tree) => tree.state(slot),
            Decider::Player(_) => None,
        }
    }

    pub(crate) fn worker(&self, slot: Slot) -> Option<WorkerId> {
        match self {
            Decider::Tree(tree) => tree.worker(slot),
            Decider::Player(_) => None,
        }
    }

    pub(crate) fn children(&self, slot: Slot) -> Vec<Slot> {
        match self {
            Decider::Tree(tree) => tree.children(slot),
            Decider::Player(_) => Vec::new(),
        }
    }
}
