//! Who is who: names of the scenario, slots and incarnations of the tree.

use rclust_core::tree::event::State;
use rclust_core::{Slot, WorkerId};

use super::player::Player;
use super::scenario::{Event, Member, Role};
use super::world::World;

impl<'a, W: World> Player<'a, W> {
    /// Remembers which name the slot has in the scenario.
    pub(super) fn label(&mut self, slot: Slot) {
        let Some(place) = self.tree.place(slot) else { return };
        if self.labels.contains_key(&slot) {
            return;
        }
        let sup = place.supervisor.and_then(|sup| self.sup_label(sup)).and_then(|sup| self.scenario.member(&sup));
        let label = if sup.is_some_and(is_dynamic) {
            self.copy_of.extend(place.supervisor.map(|sup| (slot, sup)));
            self.spawning.take().unwrap_or(place.name)
        } else {
            place.name
        };
        self.supervisors.extend(place.supervisor.map(|sup| (slot, sup)));
        self.labels.insert(slot, label);
    }

    pub(super) fn sup_label(&self, slot: Slot) -> Option<String> {
        if slot == Slot::SUPERVISOR { Some(self.scenario.top().id.clone()) } else { self.labels.get(&slot).cloned() }
    }

    pub(super) fn name(&self, worker: WorkerId) -> String {
        self.names.get(&worker).cloned().unwrap_or_else(|| worker.to_string())
    }

    /// The line that describes `x`: its own, or for a copy its template's.
    pub(super) fn template(&self, x: &str) -> Option<&'a Member> {
        let scenario = self.scenario;
        scenario.member(x).or_else(|| scenario.children(self.parent(x)?).next())
    }

    pub(super) fn launch(&self, member: &Member) -> Option<u32> {
        let at = self.scenario.members.iter().position(|other| std::ptr::eq(other, member))?;
        u32::try_from(at).ok()
    }

    /// The supervisor that `x` belongs to: a copy belongs to the one it was spawned under.
    pub(super) fn parent(&self, x: &str) -> Option<&'a str> {
        let scenario = self.scenario;
        if let Some(member) = scenario.member(x) {
            return member.parent.as_deref();
        }
        scenario.events.iter().find_map(|(_, event)| match event {
            Event::Spawn(sup, label) if label == x => Some(sup.as_str()),
            Event::During(_, event) => match &**event {
                Event::Spawn(sup, label) if label == x => Some(sup.as_str()),
                _ => None,
            },
            _ => None,
        })
    }

    /// The slot of `x`, if it has one now.
    pub(super) fn slot(&self, x: &str) -> Option<Slot> {
        let Some(mut member) = self.scenario.member(x) else {
            return self.latest.get(x).map(|worker| worker.slot);
        };
        let mut path = Vec::new();
        while let Some(parent) = member.parent.as_deref() {
            path.push(member.id.as_str());
            member = self.scenario.member(parent)?;
        }
        path.reverse();
        self.tree.find(&path.join("/"))
    }

    pub(super) fn state(&self, x: &str) -> Option<State> {
        self.tree.state(self.slot(x)?)
    }

    /// The slot of a supervisor that is up.
    pub(super) fn up(&self, sup: &str) -> Option<Slot> {
        match self.state(sup) {
            Some(State::Up(worker)) => Some(worker.slot),
            _ => None,
        }
    }
}

/// Whether this is a `simple_one_for_one`.
pub(super) fn is_dynamic(member: &Member) -> bool {
    matches!(&member.role, Role::Sup { strategy, .. } if strategy == "simple_one_for_one")
}
