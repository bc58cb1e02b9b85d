//! The *net* thread of the supervisor: owns every listener, and hears what happens to workers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use rclust_core::extension::{Event, Extension, Supervisor, os};
use tokio::sync::mpsc;

use crate::answer;
use crate::desk;
use crate::house::{House, Shared};
use crate::inherited;
use crate::serve;

/// The extension of the supervisor.
pub(crate) struct Net;

impl Extension for Net {
    fn prepare(&mut self) {
        // Not for workers, nor for what the program starts otherwise.
        inherited::look(os::take_env);
    }

    fn run(self: Box<Self>, events: mpsc::UnboundedReceiver<Event>, supervisor: Supervisor) {
        let runtime =
            match tokio::runtime::Builder::new_current_thread().enable_all().max_io_events_per_tick(64).build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    // Without it every bind is refused by the core ("no such extension"), which says where to look.
                    supervisor.troubled("the net thread".to_owned(), format!("it has no runtime: {error}"));
                    return;
                }
            };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, hear(events, supervisor));
    }
}

async fn hear(mut events: mpsc::UnboundedReceiver<Event>, supervisor: Supervisor) {
    let house = Rc::new(RefCell::new(House::new(supervisor)));
    tokio::task::spawn_local(serve::watch_stalls(house.clone()));
    let mut questions = desk::open();
    loop {
        tokio::select! {
            // Who asks after something happened hears of it.
            biased;
            event = events.recv() => match event {
                Some(event) => handle(&house, event),
                None => return,
            },
            // Its sender stays in its place.
            Some(question) = questions.recv() => {
                // Who asked may have stopped waiting.
                let _ = question.send(house.borrow().all_stats());
            }
        }
    }
}

fn handle(house: &Shared, event: Event) {
    match event {
        Event::Started { worker, name, index } => house.borrow_mut().started(worker, name, index),
        Event::Ready { worker } => house.borrow_mut().set_ready(worker, true),
        Event::Replaced { worker, by } => house.borrow_mut().replaced(worker, by),
        Event::Draining { worker, quiet } => {
            let mut own = house.borrow_mut();
            own.set_ready(worker, false);
            own.take_back(worker, true);
            own.draining(worker, quiet);
        }
        Event::Gone { worker } => {
            let mut own = house.borrow_mut();
            own.set_ready(worker, false);
            own.take_back(worker, false);
            own.gone(worker);
        }
        Event::Forgotten { slot } => house.borrow_mut().forget(slot.0),
        Event::Request { worker, id, body } => answer::request(house, worker, id, &body),
        Event::Room { worker, told } => {
            told.store(false, Ordering::Release);
            house.borrow_mut().heard_of(worker);
        }
        Event::Quiet(told) => house.borrow_mut().be_quiet(told),
        _ => {}
    }
}
