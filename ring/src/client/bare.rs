//! One `io_uring` with a table of direct descriptors, and the two ways of entering it.

use std::io;
use std::time::Duration;

use io_uring::{EnterFlags, IoUring, cqueue, squeue, types};

/// Submission entries of a ring; a longer batch is submitted in parts.
const SUBMISSIONS: u32 = 1024;

/// A ring without knowledge of what runs on it.
pub(super) struct Bare {
    ring: IoUring,
}

impl Bare {
    /// Makes a ring for `files_max` direct descriptors, to be used by the calling thread only.
    ///
    /// # Errors
    /// What the kernel says: `EMFILE` if `files_max` is above `RLIMIT_NOFILE`, `ENOMEM` if
    /// `RLIMIT_MEMLOCK` is too low, `EINVAL` on kernels before 6.1.
    pub(super) fn new(files_max: u32, completions: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag() // tells whether a second look at the kernel is worth a call
            .setup_submit_all() // one bad entry must not hold up the rest of its batch
            .setup_cqsize(completions)
            .build(SUBMISSIONS)?;
        ring.submitter().register_files_sparse(files_max)?;
        Ok(Self { ring })
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues one entry, submitting first if there is no room.
    ///
    /// # Safety
    /// What the entry points to must stay valid until the kernel has consumed it: until
    /// `unsubmitted` is 0, and for data that an operation reads later, until it completes.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller keeps what the entry points to.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }

    /// Queues a chain of linked entries that must not be cut by a submission.
    ///
    /// # Safety
    /// As for `push`, for every entry.
    pub(super) unsafe fn push_chain(&mut self, entries: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: the caller keeps what the entries point to.
        while unsafe { self.ring.submission().push_multiple(entries) }.is_err() {
            self.submit()?;
        }
        Ok(())
    }

    /// Entries that the kernel has not consumed yet.
    pub(super) fn unsubmitted(&mut self) -> usize {
        self.ring.submission().len()
    }

    /// Hands all queued entries to the kernel without running deferred completions.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        loop {
            let queued = as_u32(self.unsubmitted());
            if queued == 0 {
                return Ok(());
            }
            // SAFETY: no argument is passed, and `queued` entries are in the queue.
            let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) };
            ignore_interruptions(entered)?;
        }
    }

    /// Hands all queued entries to the kernel, takes what has completed (up to about
    /// `harvest` completions), and only if there was nothing sleeps until something completes:
    /// for `gather` until `harvest` completions are there, then until the first one.
    ///
    /// Without gathering a reader that is faster than its writer falls asleep after every
    /// message, and the writer pays for waking it every time.
    pub(super) fn wait(&mut self, harvest: u32, gather: Duration, sleep: Duration) -> io::Result<()> {
        let submission = self.ring.submission();
        let busy = !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
        drop(submission);
        if busy {
            self.enter(harvest, Duration::ZERO, Duration::ZERO)?;
        }
        if !self.ring.completion().is_empty() {
            return Ok(());
        }
        if gather.is_zero() || !self.ring.params().is_feature_min_timeout() {
            return self.enter(1, Duration::ZERO, sleep);
        }
        self.enter(harvest, gather, sleep)
    }

    fn enter(&mut self, completions_min: u32, gather: Duration, sleep: Duration) -> io::Result<()> {
        let queued = as_u32(self.unsubmitted());
        let timeout = types::Timespec::from(sleep);
        let gather_us = u32::try_from(gather.as_micros()).unwrap_or(u32::MAX);
        let arguments = types::SubmitArgs::new().timespec(&timeout).min_wait_usec(gather_us);
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: EXT_ARG says that the argument is what SubmitArgs is: a getevents argument,
        // alive, like the time it points to, until the call returns.
        let entered = unsafe { self.ring.submitter().enter(queued, completions_min, flags.bits(), Some(&arguments)) };
        ignore_interruptions(entered)
    }

    /// The next completion that is already there.
    #[inline]
    pub(super) fn next(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }
}

fn as_u32(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A signal, a timeout, or a kernel short of resources for a moment: look again.
fn ignore_interruptions(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
            _ => Err(error),
        },
    }
}
