//! Twins of Node's own tests of its cluster: each scenario is named after one and checks the same guarantee, with processes.

mod datagrams;
mod ends;
mod life;
mod listening;
mod messages;
mod passing;
mod scene;
mod serve;
mod settings;
mod worker;

use anyhow::bail;
use rclust::ProcessRole;
use rclust::cluster;
use rustix::thread::CapabilitySet;

use scene::Outcome;
use worker::Twin;

/// Makes a module's scenarios known by their names.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        /// The scenario of this name, if it is one of this module's.
        pub(crate) fn find(name: &str) -> Option<std::pin::Pin<Box<dyn Future<Output = $crate::scene::Outcome>>>> {
            match name {
                $(stringify!($name) => Some(Box::pin($name())),)*
                _ => None,
            }
        }
    };
}

/// Without the right to bind ports of the system's, for the scenarios that are refused one.
fn init(_: &ProcessRole) -> cluster::Result<()> {
    if std::env::args().nth(1).is_some_and(|name| name.contains("privileged")) {
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective.remove(CapabilitySet::NET_BIND_SERVICE);
        sets.permitted.remove(CapabilitySet::NET_BIND_SERVICE);
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}

#[cluster::main(workers(Twin), init = init)]
async fn main() -> Outcome {
    let name = std::env::args().nth(1).unwrap_or_default();
    let found = life::find(&name)
        .or_else(|| ends::find(&name))
        .or_else(|| listening::find(&name))
        .or_else(|| datagrams::find(&name))
        .or_else(|| messages::find(&name))
        .or_else(|| passing::find(&name))
        .or_else(|| settings::find(&name));
    let Some(scenario) = found else { bail!("no scenario `{name}`") };
    scenario.await?;
    println!("held");
    Ok(())
}
