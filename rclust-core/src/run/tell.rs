//! Tells stories, and what workers write, on the main thread, where blocking holds up nobody but the program's own body.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::output::Line;
use crate::sys::readiness;
use crate::trace::{self, Story};

/// How long a story waits for a standard error that is full. A worker that floods it fills it in no time; one that nobody reads must
/// not hold up the stories behind this one for long.
const PATIENCE: Duration = Duration::from_millis(100);

/// Tells all that comes, to the end of both.
pub(crate) async fn tell(
    mut stories: mpsc::Receiver<Story>,
    mut written: mpsc::UnboundedReceiver<Line>,
    missed: Arc<AtomicU64>,
    has_process: bool,
) {
    let say = if has_process { trace::say } else { trace::print };
    loop {
        tokio::select! {
            biased;
            Some(story) = stories.recv() => {
                // In time or not: what it then does not find room for is not told.
                let _ = tokio::time::timeout(PATIENCE, room()).await;
                story.tell(say);
                let missed = missed.swap(0, Ordering::Relaxed);
                if missed > 0 {
                    Story::Missed { stories: missed }.tell(say);
                }
            }
            // Lines wait where there is a bound for each worker: who writes little loses nothing to who writes much.
            Some(line) = async { room().await; written.recv().await } => wrote(line, say),
            else => return,
        }
    }
}

fn wrote(line: Line, say: fn(&str) -> bool) {
    let (worker, name, lines) = (line.worker, line.name.to_string(), line.dropped());
    if lines > 0 && !(Story::Dropped { worker, name, lines }).tell(say) {
        line.are_dropped(lines);
    }
    let story = Story::Wrote { line };
    if let (false, Story::Wrote { line }) = (story.tell(say), &story) {
        line.are_dropped(1);
    }
}

/// Waits until standard error has room for a line, if that is where lines go.
async fn room() {
    if tracing::dispatcher::has_been_set() || trace::has_room() {
        return;
    }
    let stderr =
        rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).map_err(Into::into).and_then(readiness::register);
    // A file is never full, and whatever cannot be waited for is found full or not when it is written.
    let Ok(stderr) = stderr else { return };
    while let Ok(mut ready) = stderr.writable().await {
        if trace::has_room() {
            return;
        }
        ready.clear_ready();
    }
}
