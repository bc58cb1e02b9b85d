//! A timer that a busy thread does not pay for each time it sleeps.
//!
//! While a runtime has a timer, every `epoll_wait` has a time-out, and the kernel programs its clock anew each time the thread goes to
//! sleep: in a virtual machine that leaves the guest. A timerfd is programmed once (`timerfd_create(2)`).

use std::io;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
mod timer {
    use std::os::fd::OwnedFd;

    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
    use tokio::io::unix::AsyncFd;

    use super::{Duration, io};
    use crate::sys::readiness;

    /// One timerfd.
    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        pub(super) fn new() -> io::Result<Timer> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
            Ok(Timer(readiness::register_readable(timer)?))
        }

        /// Sets it anew, and waits.
        pub(super) async fn sleep(&self, time: Duration) -> io::Result<()> {
            // Zero would stop it.
            let time = time.max(Duration::from_nanos(1));
            let value = Timespec::try_from(time).map_err(io::Error::other)?;
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval: none, it_value: value };
            rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            loop {
                let mut guard = self.0.readable().await?;
                let mut count = [0; 8];
                match rustix::io::read(self.0.get_ref(), &mut count) {
                    Ok(_) => return Ok(()),
                    Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// See the module. Without a descriptor for it, and on other systems than Linux, it is a timer of the runtime.
#[derive(Debug, Default)]
pub struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<timer::Timer>,
}

impl Alarm {
    /// Makes one for tasks of the current runtime.
    #[must_use]
    pub fn new() -> Alarm {
        Alarm {
            #[cfg(target_os = "linux")]
            timer: timer::Timer::new().ok(),
        }
    }

    /// Waits until then.
    ///
    /// # Cancel safety
    /// Nothing is lost; the next call sets it anew.
    pub async fn sleep_until(&mut self, at: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer {
            if timer.sleep(at.saturating_duration_since(Instant::now())).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep_until(at.into()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_once_and_not_before_its_time() {
        let mut alarm = Alarm::new();
        let at = Instant::now() + Duration::from_millis(20);
        alarm.sleep_until(at).await;
        assert!(Instant::now() >= at);
        // One that was given up is forgotten.
        let soon = Instant::now() + Duration::from_millis(10);
        tokio::select! {
            biased;
            () = alarm.sleep_until(soon) => unreachable!("it cannot be over at once"),
            () = std::future::ready(()) => {}
        }
        let at = Instant::now() + Duration::from_millis(30);
        alarm.sleep_until(at).await;
        assert!(Instant::now() >= at);
        // The past is now.
        alarm.sleep_until(Instant::now()).await;
    }

    #[tokio::test]
    async fn without_a_timer_of_its_own_it_is_one_of_the_runtime() {
        let at = Instant::now() + Duration::from_millis(5);
        Alarm::default().sleep_until(at).await;
        assert!(Instant::now() >= at);
    }
}
