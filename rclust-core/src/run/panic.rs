//! What a panic said, kept for the supervisor.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::sync::{Arc, Once};

use crate::ipc::control::Control;
use crate::mailbox::endpoint;
use crate::wire::control::{Ending, ToSupervisor};

/// At most so many bytes of a text go to the supervisor.
const LONGEST: usize = 16 << 10;

/// A panic's own account.
#[derive(Clone, Debug)]
pub(crate) struct Panic {
    pub(crate) message: String,
    location: Option<String>,
    backtrace: Option<String>,
}

thread_local! {
    static LAST: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// Notes every panic of this process, each thread's for itself. Where panics abort, the supervisor is told at once.
pub(crate) fn note_panics(control: Arc<Control>) {
    note(
        || true,
        move |panic| {
            if cfg!(panic = "abort") {
                control.say(&ToSupervisor::Ending(panic.clone().into()));
            }
        },
    );
}

/// Notes the panics of the threads that play workers, in a process that is not ours (a test's).
pub(crate) fn note_panics_of_threads() {
    static NOTED: Once = Once::new();
    NOTED.call_once(|| note(endpoint::is_seated, |_| {}));
}

/// Installs a hook that runs before the one that stood here.
fn note(whether: fn() -> bool, tell: impl Fn(&Panic) + Send + Sync + 'static) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if whether() {
            let panic = account(info);
            tell(&panic);
            LAST.with(|last| *last.borrow_mut() = Some(panic));
        }
        before(info);
    }));
}

/// The last panic of this thread, which had this payload.
pub(crate) fn last(payload: &dyn Any) -> Panic {
    // A hook that somebody installed after ours may not call it.
    LAST.with(|last| last.borrow_mut().take()).unwrap_or_else(|| Panic {
        message: cut(text(payload)),
        location: None,
        backtrace: None,
    })
}

fn account(info: &PanicHookInfo<'_>) -> Panic {
    let backtrace = Backtrace::capture();
    Panic {
        message: cut(text(info.payload())),
        location: info.location().map(ToString::to_string),
        backtrace: (backtrace.status() == BacktraceStatus::Captured).then(|| cut(&backtrace.to_string())),
    }
}

/// A panic's message, for the two types that `panic!` makes.
fn text(payload: &dyn Any) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "(not a text)",
    }
}

/// Cuts a text to what is sent.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl From<Panic> for Ending {
    fn from(panic: Panic) -> Ending {
        Ending::Panic { message: panic.message, location: panic.location, backtrace: panic.backtrace }
    }
}
