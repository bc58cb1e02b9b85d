// The attribute is on something that is not a function.
use rclust::cluster;

#[cluster::main]
struct Web;

fn main() {
    let _ = Web;
}
