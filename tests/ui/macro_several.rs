// Mistakes that do not depend on each other are reported together.
use rclust::cluster;

#[cluster::main(thread = 2, workers = 0)]
fn main(cx: cluster::Context, port: u16) {}
