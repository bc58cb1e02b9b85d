//! x
pub use rclust_core::{Body, ProcessRole, Program, Role, Settings, Tree, body, tree};
pub use rclust_net::boot;

pub mod cluster {
    //! x
    pub use rclust_core::*;
    pub use rclust_macros::main;
    pub use rclust_net as net;
}

#[doc(hidden)]
pub mod __private {
    pub use rclust_core::__private::returns;
}
