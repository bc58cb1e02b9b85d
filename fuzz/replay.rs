//! The corpus of a fuzz target, and mutations of it, without libFuzzer: a part of the ordinary tests of the crate whose target
//! it is, on any toolchain. `RCLUST_FUZZ_RUNS` says how many mutations; the same ones each time.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

/// Runs `target` on everything in its corpus, and on mutations.
pub(super) fn corpus(name: &str, target: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    // The order of a folder is nobody's promise.
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    let runs = std::env::var("RCLUST_FUZZ_RUNS").map_or(2_000, |runs| runs.parse().expect("a number of runs"));
    for input in &inputs {
        run(&target, input);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..runs {
        let mut input = inputs[random.below(inputs.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, &inputs, &mut random);
        }
        run(&target, &input);
    }
    eprintln!("{name}: {} inputs of the corpus and {runs} mutations", inputs.len());
}

fn run(target: &impl Fn(&[u8]), input: &[u8]) {
    if let Err(cause) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        eprintln!("the input was {input:02x?}");
        resume_unwind(cause);
    }
}

fn mutate(input: &mut Vec<u8>, inputs: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(6) {
        0 => input.insert(at, random.next() as u8),
        1 => input.truncate(at),
        2 => {
            let other = &inputs[random.below(inputs.len())];
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        kind if at < input.len() => match kind {
            3 => input[at] ^= 1 << random.below(8),
            4 => input[at] = [0, 1, 7, 8, 0x7f, 0x80, 0xf8, 0xff][random.below(8)],
            _ => drop(input.remove(at)),
        },
        _ => {}
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
