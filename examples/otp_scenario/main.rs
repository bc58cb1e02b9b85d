//! Plays scenario files on the pure machine: `cargo run --example otp_scenario -- FILE...`

mod calls;
mod player;
mod scenario;
mod terms;
mod trace;
mod who;
mod world;

use std::path::Path;
use std::process::ExitCode;

use player::play;
use scenario::Scenario;

fn main() -> ExitCode {
    let mut failed = false;
    for file in std::env::args().skip(1) {
        let name = Path::new(&file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let scenario = std::fs::read_to_string(&file)
            .map_err(|error| error.to_string())
            .and_then(|text| Scenario::read(&name, &text).map_err(|error| error.to_string()));
        match scenario {
            Ok(scenario) => print!("{}", play(&scenario)),
            Err(error) => {
                eprintln!("{file}: {error}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
