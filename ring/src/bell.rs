//! Waking a ring's thread: a message between rings without a ring of one's own, or an eventfd.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes the thread that waits on a ring. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub enum Bell {
    /// A ring of the kernel.
    Kernel {
        /// The target; its owner keeps it open as long as the process rings.
        ring: RawFd,
        /// Polled by the target: the way of kernels before 6.13, and of a message that failed.
        event: Arc<OwnedFd>,
        /// Whether this kernel takes messages without a ring of the sender's.
        messages: bool,
    },
    /// A simulated ring.
    Flag(Arc<AtomicBool>),
}

/// What a doorbell's completion carries.
pub(crate) const DOORBELL: u64 = 0x0f << 56;

/// `IORING_REGISTER_SEND_MSG_RING`, Linux 6.13 (`include/uapi/linux/io_uring.h`).
const REGISTER_SEND_MSG_RING: libc::c_uint = 31;

/// The submission entry of a message, as the kernel lays it out.
#[repr(C)]
#[derive(Default)]
struct MessageEntry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    /// Becomes the completion's `user_data`.
    off: u64,
    addr: u64,
    /// Becomes the completion's result.
    len: u32,
    rest: [u32; 9],
}

const _: () = assert!(size_of::<MessageEntry>() == 64, "the kernel's struct io_uring_sqe");

impl Bell {
    /// Wakes the thread, now or when it next waits.
    pub fn ring(&self) {
        match self {
            Self::Kernel { ring, event, messages } => {
                if !(*messages && send_message(*ring).is_ok()) {
                    ring_event(event);
                }
            }
            Self::Flag(flag) => flag.store(true, Ordering::SeqCst),
        }
    }
}

/// Posts a doorbell completion to another ring.
pub(crate) fn send_message(ring: RawFd) -> std::io::Result<()> {
    const OP_MSG_RING: u8 = 40;
    let entry = MessageEntry { opcode: OP_MSG_RING, fd: ring, off: DOORBELL, ..MessageEntry::default() };
    // SAFETY: the call reads one entry of 64 bytes, which `entry` is, and keeps no reference to it.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, -1, REGISTER_SEND_MSG_RING, &raw const entry, 1) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the eventfd readable.
fn ring_event(event: &OwnedFd) {
    let one = 1u64;
    // SAFETY: writes the 8 bytes of `one` to a descriptor that `event` keeps open. A full counter
    // (EAGAIN) is as good as success: the eventfd is readable.
    let _ = unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
}
