#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rclust_core::fuzzing::settle(data));
