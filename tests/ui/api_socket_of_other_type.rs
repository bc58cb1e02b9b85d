// What is in a `Socket` is no socket.
use rclust::cluster::Socket;

fn main() {
    let socket = Socket::new(String::from("127.0.0.1:3000"));
    drop(socket);
}
