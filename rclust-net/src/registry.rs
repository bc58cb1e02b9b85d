//! The program's own policies and key functions, by name: a worker names one when it binds, the supervisor has its code.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dispatch::custom::Policy;
use crate::dispatch::{Dispatch, How};

type Make = Arc<dyn Fn() -> Box<dyn Policy> + Send + Sync>;

/// The key of a client by its first bytes; `None` asks for more of them.
pub(crate) type KeyOf = Arc<dyn Fn(&[u8]) -> Option<u64> + Send + Sync>;

static POLICIES: Mutex<BTreeMap<String, Make>> = Mutex::new(BTreeMap::new());
static KEYS: Mutex<BTreeMap<String, KeyOf>> = Mutex::new(BTreeMap::new());

/// Gives a dispatch policy a name, for [`Dispatch::custom`]. `make` is called once for each listener.
///
/// Workers bind, and the supervisor decides: the name must be given *in the supervisor's process*, and by the same line in
/// every process is the easiest way. Where the body is the worker (`async fn main(cx: Context)`), that is the `init` function of
/// `#[cluster::main(init = ..)]`, or what stands before [`boot`](crate::boot) in a `main` of one's own; where the body is the
/// supervisor's, its first lines will do too. A name that is given again means the newest from the next bind on.
///
/// ```no_run
/// # use rclust_core::{Context, ProcessRole, Result, Settings};
/// use rclust_net::{Arrival, Candidate, Dispatch, Policy, TcpListener};
///
/// struct First;
///
/// impl Policy for First {
///     fn pick(&mut self, _: &Arrival, _: &[Candidate]) -> Option<usize> {
///         Some(0)
///     }
/// }
///
/// fn init(_: &ProcessRole) -> Result<()> {          // #[cluster::main(init = init)]
///     rclust_net::register("first", || First);
///     Ok(())
/// }
///
/// async fn body(cx: Context) -> Result<()> {
///     let listener = TcpListener::builder().dispatch(Dispatch::custom("first")).bind("127.0.0.1:3000").await?;
///     # let _ = listener;
///     cx.shutdown().await;
///     Ok(())
/// }
/// ```
pub fn register<P: Policy + 'static>(name: impl Into<String>, make: impl Fn() -> P + Send + Sync + 'static) {
    let make: Make = Arc::new(move || Box::new(make()));
    POLICIES.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), make);
}

/// Gives a function over a client's first bytes a name, for [`Dispatch::sticky_by`]; where to call it, [`register`] says.
///
/// The function is shown what the client has sent so far, from its first byte on, and never takes anything away: the worker reads
/// the same bytes. `Some(key)` decides; clients with equal keys go to the same slot. `None` asks for more: it is called again with
/// more bytes. A client that has not sent enough within 1 s, that sends 4096 bytes without a key, or that closes its side goes
/// by its address, as with [`Dispatch::Sticky`]; so do those that come while 1024 are waited for, and a call that panics (it is
/// counted in [`Stats::panics`](crate::Stats::panics)). Connections wait beside each other, and accepting goes on.
///
/// It runs on the supervisor's *net* thread, which does nothing else meanwhile: it must not wait.
///
/// ```
/// // One byte says which tenant it is.
/// rclust_net::register_key("tenant", |first| first.first().map(|byte| u64::from(*byte)));
/// ```
pub fn register_key(name: impl Into<String>, key: impl Fn(&[u8]) -> Option<u64> + Send + Sync + 'static) {
    KEYS.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), Arc::new(key));
}

/// The code behind a dispatch policy: how to pick, and by which bytes.
pub(crate) fn resolve(dispatch: &Dispatch) -> io::Result<(How, Option<KeyOf>)> {
    match dispatch {
        Dispatch::Balanced => Ok((How::Balanced, None)),
        Dispatch::RoundRobin => Ok((How::RoundRobin, None)),
        Dispatch::Sticky => Ok((How::Sticky, None)),
        Dispatch::StickyBy(name) => {
            let keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
            let key = keys.get(name).cloned().ok_or_else(|| unknown(name, "register_key", keys.keys()))?;
            Ok((How::Sticky, Some(key)))
        }
        Dispatch::Shared | Dispatch::PerSlot => Err(io::Error::other("workers accept themselves")),
        Dispatch::Custom(name) => {
            let make = {
                let policies = POLICIES.lock().unwrap_or_else(PoisonError::into_inner);
                policies.get(name).cloned().ok_or_else(|| unknown(name, "register", policies.keys()))?
            };
            let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make()));
            let policy = made.map_err(|_| io::Error::other(format!("the maker of the policy `{name}` panicked")))?;
            Ok((How::Custom(policy), None))
        }
    }
}

fn unknown<'a>(name: &str, function: &str, known: impl Iterator<Item = &'a String>) -> io::Error {
    let known: Vec<_> = known.map(|name| format!("`{name}`")).collect();
    let known: &dyn fmt::Display = if known.is_empty() { &"nothing" } else { &known.join(", ") };
    io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "the supervisor knows no `{name}`: call cluster::net::{function} in the `init` of #[cluster::main] or at the top of a \
             supervisor's body (known there: {known})"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nobody_registered_is_an_error_that_says_where_to() {
        register_key("tests: a key", |_| None);
        let error = resolve(&Dispatch::sticky_by("tests: no key")).err().unwrap().to_string();
        assert!(error.contains("register_key") && error.contains("`tests: a key`"), "{error}");
        assert!(resolve(&Dispatch::sticky_by("tests: a key")).is_ok());
        assert!(resolve(&Dispatch::custom("tests: no policy")).is_err());
    }
}
