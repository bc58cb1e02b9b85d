//! The thread *output*: reads what workers write into pipes, and cuts it into lines. Started with the first child that wants it.
//!
//! It always reads: a pipe that is full would stop the worker. A worker that floods it loses lines (`output` counts them), and has a
//! turn among others.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::background;
use crate::id::WorkerId;
use crate::output::{Queue, Source, Standard};
use crate::process_spec::{Output, Process};
use crate::sys::readiness;

/// The longest line that is told in one piece, in bytes.
const LONGEST: usize = 3000;

/// Bytes of one read.
const READ: usize = 16 << 10;

/// Reads of one output before others have a turn.
const TURN: usize = 8;

/// Reads after the worker's end: more than a pipe holds (1 MiB, the most that an ordinary user may set).
const LAST_READS: usize = 2 * (1 << 20) / READ;

/// One output of one incarnation.
struct Job {
    pipe: OwnedFd,
    source: Source,
    /// Tells by its end that the worker has ended.
    ended: oneshot::Receiver<()>,
}

/// Kept as long as the worker lives: dropped, its pipes are read empty and closed, whoever else may hold them.
#[derive(Debug, Default)]
pub(crate) struct Attached(Vec<oneshot::Sender<()>>);

/// The way to the thread.
#[derive(Debug)]
pub(crate) struct Collector {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    log: Queue,
    stream: Queue,
}

impl Collector {
    pub(crate) fn new(log: Queue, stream: Queue) -> Collector {
        Collector { jobs: None, log, stream }
    }

    /// Makes the pipes that a process wants: their writing ends, for it.
    pub(crate) fn attach(
        &mut self,
        worker: WorkerId,
        name: &str,
        process: &Process,
    ) -> io::Result<([Option<OwnedFd>; 2], Attached)> {
        let (mut theirs, mut attached) = ([None, None], Attached::default());
        for (place, (from, output)) in theirs.iter_mut().zip(process.outputs()) {
            if let Some((pipe, ended)) = self.pipe(worker, name, from, output)? {
                *place = Some(pipe);
                attached.0.push(ended);
            }
        }
        Ok((theirs, attached))
    }

    fn pipe(
        &mut self,
        worker: WorkerId,
        name: &str,
        from: Standard,
        output: Output,
    ) -> io::Result<Option<(OwnedFd, oneshot::Sender<()>)>> {
        let source = match output {
            Output::Inherit | Output::Null => return Ok(None),
            Output::Log => self.log.source(worker, name, from),
            Output::Stream => self.stream.source(worker, name, from),
        };
        let (pipe, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Ours alone: the worker's end has a file description of its own, and blocks as programs expect it to.
        rustix::io::ioctl_fionbio(&pipe, true)?;
        let (tell, ended) = oneshot::channel();
        let jobs = match &self.jobs {
            Some(jobs) => jobs,
            None => self.jobs.insert(start()?),
        };
        // The thread ends only with this sender.
        let _ = jobs.send(Job { pipe, source, ended });
        Ok(Some((theirs, tell)))
    }
}

/// Starts the thread. It ends when there is nobody left who could give it a pipe, and every pipe has ended.
fn start() -> io::Result<mpsc::UnboundedSender<Job>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
    std::thread::Builder::new().name("rclust-output".to_owned()).stack_size(256 << 10).spawn(move || {
        runtime.block_on(async {
            // Held by every task: its end is theirs.
            let (running, mut all_ended) = mpsc::channel::<()>(1);
            while let Some(job) = jobs.recv().await {
                let running = running.clone();
                background::spawn(async move {
                    collect(job).await;
                    drop(running);
                });
            }
            drop(running);
            all_ended.recv().await;
        });
    })?;
    Ok(sender)
}

/// What a read came to.
#[derive(PartialEq, Eq)]
enum Read {
    /// There may be more.
    More,
    /// Not now.
    Dry,
    /// Never again.
    End,
}

/// Reads one output to its end, or the worker's.
async fn collect(job: Job) {
    let Job { pipe, source, mut ended } = job;
    let mut cutter = Cutter::default();
    // Without a registration (no descriptors, no memory) nothing can be heard: the worker meets a closed pipe.
    let Ok(pipe) = readiness::register_readable(pipe) else { return };
    loop {
        tokio::select! {
            _ = &mut ended => {
                for _ in 0..LAST_READS {
                    if read(&pipe, &mut cutter, &source) != Read::More {
                        break;
                    }
                }
                break;
            }
            ready = pipe.readable() => {
                let Ok(mut ready) = ready else { break };
                let mut last = Read::More;
                for _ in 0..TURN {
                    last = read(&pipe, &mut cutter, &source);
                    if last != Read::More {
                        break;
                    }
                }
                match last {
                    Read::More => tokio::task::yield_now().await,
                    Read::Dry => ready.clear_ready(),
                    Read::End => break,
                }
            }
        }
    }
    cutter.end(|line| source.put(line));
}

fn read(pipe: &AsyncFd<OwnedFd>, cutter: &mut Cutter, source: &Source) -> Read {
    let mut bytes = [0; READ];
    match rustix::io::read(pipe.get_ref(), &mut bytes[..]) {
        Ok(0) => Read::End,
        Ok(n) => {
            cutter.feed(&bytes[..n], |line| source.put(line));
            Read::More
        }
        Err(Errno::INTR) => Read::More,
        Err(Errno::AGAIN) => Read::Dry,
        Err(_) => Read::End,
    }
}

/// Cuts bytes into lines, and long lines into pieces.
#[derive(Default)]
struct Cutter {
    line: Vec<u8>,
}

impl Cutter {
    fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let room = LONGEST - self.line.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(end) = window.iter().position(|byte| *byte == b'\n') {
                self.line.extend_from_slice(&window[..end]);
                line(self.line.strip_suffix(b"\r").unwrap_or(&self.line));
                self.line.clear();
                bytes = &bytes[end + 1..];
            } else {
                let taken = bytes.len().min(room);
                self.line.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
                if !bytes.is_empty() {
                    let cut = whole(&self.line);
                    line(&self.line[..cut]);
                    self.line.drain(..cut);
                }
            }
        }
    }

    /// The last line may have no end.
    fn end(&mut self, mut line: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            line(&self.line);
            self.line.clear();
        }
    }
}

/// How many of these bytes end with a whole character; all of them, where they are no text.
fn whole(bytes: &[u8]) -> usize {
    let begins = |byte: &u8| *byte & 0b1100_0000 != 0b1000_0000;
    let behind = bytes.len().saturating_sub(4);
    match bytes[behind..].iter().rposition(begins) {
        Some(at) if bytes[behind + at] >= 0b1100_0000 && behind + at > 0 => behind + at,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut cutter, mut lines) = (Cutter::default(), Vec::new());
        for chunk in chunks {
            cutter.feed(chunk, |line| lines.push(line.to_vec()));
            assert!(cutter.line.len() <= LONGEST);
        }
        cutter.end(|line| lines.push(line.to_vec()));
        lines
    }

    #[test]
    fn lines_come_whole_however_they_were_written() {
        assert_eq!(cut(&[b"a\nb", b"c\r\n", b"\nlast"]), [&b"a"[..], b"bc", b"", b"last"]);
        assert_eq!(cut(&[b""]), Vec::<Vec<u8>>::new());
        let text = b"one\ntwo\n\nthree\n";
        let bytewise: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(cut(&bytewise), cut(&[text]));
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_nothing_of_it_is_lost() {
        let exact = [vec![b'x'; LONGEST], vec![b'\n']].concat();
        assert_eq!(cut(&[&exact]).len(), 1);
        for text in ["x".repeat(3 * LONGEST + 1), "ä".repeat(2 * LONGEST), format!("x{}", "🦀".repeat(LONGEST))] {
            for size in [1, 7, 4096, text.len()] {
                let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                let lines = cut(&chunks);
                assert!(lines.iter().all(|line| line.len() <= LONGEST && std::str::from_utf8(line).is_ok()));
                assert_eq!(lines.concat(), text.as_bytes());
            }
        }
        // No text at all: it still goes on.
        assert_eq!(cut(&[&[0xbf; 2 * LONGEST]]).concat().len(), 2 * LONGEST);
        assert_eq!(cut(&[&[0xff; 2 * LONGEST]]).concat().len(), 2 * LONGEST);
    }
}
