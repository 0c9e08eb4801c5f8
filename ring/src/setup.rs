//! Making a ring: the flags, the file table, a probe by doing, and errors that say what to change.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::{IoUring, opcode, squeue, types};

use crate::bell;

/// What one shard's ring is made for.
#[derive(Clone, Debug)]
pub struct RingSettings {
    /// Places in the table of direct descriptors; the kernel checks it against RLIMIT_NOFILE.
    pub slots: u32,
    /// Listening sockets, shared with other shards; kept open by the caller as long as the ring lives.
    pub listeners: Vec<RawFd>,
    /// Accepts that may be in flight at a time, over all listeners.
    pub accepts: u16,
    /// Written by [`crate::Ring::notify`]; `None` where nobody is to be told.
    pub notify: Option<RawFd>,
}

/// Entries of the submission queue.
const SUBMISSIONS: u32 = 1024;

/// Entries of the completion queue: what one `wait` runs, four times over.
const COMPLETIONS: u32 = 4096;

/// Why no ring could be made. The text is one sentence for an operator.
#[derive(Debug)]
pub struct SetupError {
    what: &'static str,
    cause: io::Error,
}

impl std::error::Error for SetupError {}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hint = match self.cause.raw_os_error() {
            Some(libc::EPERM) => {
                "io_uring is not permitted: see kernel.io_uring_disabled, or the container's seccomp profile"
            }
            Some(libc::ENOSYS) => "this kernel or container profile has no io_uring; 6.1 or newer is needed",
            Some(libc::EINVAL) => "this kernel is too old; 6.1 or newer is needed",
            Some(libc::ENOMEM) => "locked memory is limited: raise LimitMEMLOCK (ulimit -l) for this user",
            Some(libc::EMFILE) => {
                "the table is larger than RLIMIT_NOFILE: lower connections_max or raise shards or LimitNOFILE"
            }
            Some(libc::ENFILE) => "the system's file limit is reached: raise fs.file-max",
            _ => "unexpected",
        };
        write!(f, "io_uring: {}: {} ({hint}; running kernel {})", self.what, self.cause, kernel_release())
    }
}

impl SetupError {
    /// What was tried, and how it failed.
    pub fn new(what: &'static str, cause: io::Error) -> Self {
        Self { what, cause }
    }
}

/// Turns a step's error into one that names the step.
pub(crate) fn step<T>(what: &'static str, result: io::Result<T>) -> Result<T, SetupError> {
    result.map_err(|cause| SetupError::new(what, cause))
}

/// The running kernel, as `uname -r` says it.
fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |text| text.trim().into())
}

/// Makes the ring with its file table.
pub(crate) fn build(slots: u32) -> Result<IoUring, SetupError> {
    let ring = step(
        "making the ring",
        IoUring::builder()
            .setup_single_issuer() // one thread submits: the shard
            .setup_defer_taskrun() // completions run when the shard asks, never in the middle of a flush
            .setup_taskrun_flag() // the shard sees that completions are due without a system call
            .setup_submit_all() // one bad entry must not hold back the batch behind it
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS),
    )?;
    step("making the table of direct descriptors", ring.submitter().register_files_sparse(slots.max(1)))?;
    Ok(ring)
}

/// Tries what the reactor relies on, on a socket pair in slot 0, and says whether messages between rings work.
pub(crate) fn probe(ring: &mut IoUring) -> Result<bool, SetupError> {
    let (ours, theirs) = step("making a socket pair", socket_pair())?;
    step("putting a socket into the table", ring.submitter().register_files_update(0, &[ours.as_raw_fd()]).map(drop))?;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let words = b"probe";
    let send = opcode::Send::new(types::Fixed(0), words.as_ptr(), 5)
        .flags(flags | libc::MSG_WAITALL)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS);
    run(ring, &send)?;
    let mut got = [0u8; 8];
    expect("a send that succeeds must leave no completion", ring.completion().next().is_none())?;
    // SAFETY: reads at most 8 bytes into `got`, which outlives the call.
    let read = unsafe { libc::read(theirs.as_raw_fd(), got.as_mut_ptr().cast(), 8) };
    expect("a send must have run when enter returns", read == 5)?;
    let recv = opcode::Recv::new(types::Fixed(0), got.as_mut_ptr(), 8).flags(flags).build();
    run(ring, &recv)?;
    let result = ring.completion().next().map(|entry| entry.result());
    expect("a receive without data must complete at once", result == Some(-libc::EAGAIN))?;
    let close = opcode::Close::new(types::Fixed(0)).build();
    run(ring, &close)?;
    let result = ring.completion().next().map(|entry| entry.result());
    expect("a close must complete at once", result == Some(0))?;
    let messages = bell::send_message(ring.as_raw_fd()).is_ok();
    if messages {
        let brief = types::Timespec::new().sec(1);
        step("waiting", ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&brief)))?;
        let arrived = ring.completion().next().is_some_and(|entry| entry.user_data() == bell::DOORBELL);
        expect("a message to the ring must arrive", arrived)?;
    }
    Ok(messages)
}

/// Submits one entry and waits for nothing.
fn run(ring: &mut IoUring, entry: &squeue::Entry) -> Result<(), SetupError> {
    // SAFETY: the buffers of the probe live until `probe` returns, and its operations finish within `enter`.
    let pushed = unsafe { ring.submission().push(entry) };
    expect("the queue must have room", pushed.is_ok())?;
    // SAFETY: no argument is passed.
    step("submitting", unsafe { ring.submitter().enter::<libc::sigset_t>(1, 0, 0, None) }).map(drop)
}

fn expect(what: &'static str, holds: bool) -> Result<(), SetupError> {
    if holds { Ok(()) } else { Err(SetupError::new(what, io::Error::from_raw_os_error(libc::EINVAL))) }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut pair = [0; 2];
    // SAFETY: the call writes two descriptors into `pair`.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0, pair.as_mut_ptr()) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and has no other owner.
    let ours = unsafe { OwnedFd::from_raw_fd(pair[0]) };
    // SAFETY: as above.
    let theirs = unsafe { OwnedFd::from_raw_fd(pair[1]) };
    Ok((ours, theirs))
}

/// An eventfd that never blocks.
pub(crate) fn event() -> Result<OwnedFd, SetupError> {
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(SetupError::new("making an eventfd", io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
