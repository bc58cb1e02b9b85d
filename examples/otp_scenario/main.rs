//! Plays scenario files on the tree, and prints what its supervisors did as OTP's would have.
//!
//!     cargo run --example otp_scenario -- tests/scenarios/*.scn
//!     cargo run --example otp_scenario -- --processes tests/scenarios/h01*.scn
//!
//! Without `--processes` no process is started and time jumps. With it, every worker of a scenario is a process, and a
//! wait is a wait; what you see is the same, and on standard error the supervisor's own stories. Standard output is the
//! traces only.

mod calls;
mod player;
mod processes;
mod scenario;
mod terms;
mod trace;
mod who;
mod world;

use std::path::Path;
use std::process::ExitCode;

use player::{play, play_in};
use processes::{Actor, Stage};
use rclust::cluster;
use scenario::Scenario;

#[cluster::main(workers(Actor))]
async fn main() -> ExitCode {
    // A player holds its thread while it waits, and the supervisor tells its stories on this one.
    tokio::task::spawn_blocking(play_all).await.unwrap_or(ExitCode::FAILURE)
}

fn play_all() -> ExitCode {
    let (options, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word == "--processes");
    // One process has one tree thread, so all files have their processes on one stage, one after the other.
    let mut stage = match (!options.is_empty()).then(Stage::open).transpose() {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("no processes can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut failed = false;
    for file in files {
        let name = Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let scenario = std::fs::read_to_string(&file)
            .map_err(|error| error.to_string())
            .and_then(|text| Scenario::read(&name, &text).map_err(|error| error.to_string()));
        match (scenario, &mut stage) {
            (Ok(scenario), None) => print!("{}", play(&scenario)),
            (Ok(scenario), Some(stage)) => print!("{}", play_in(&scenario, stage.world())),
            (Err(error), _) => {
                eprintln!("{file}: {error}");
                failed = true;
            }
        }
        if stage.as_ref().is_some_and(Stage::is_spoilt) {
            failed = true;
            break;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
