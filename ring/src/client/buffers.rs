//! A ring of provided buffers for multishot receives.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::{Submitter, types::BufRingEntry};

/// The group number of the only buffer ring of a reactor.
pub(super) const GROUP: u16 = 0;

/// Buffers that the kernel fills in turn and the reactor gives back one by one.
pub(super) struct Buffers {
    entries: Mapping,
    data: Mapping,
    count: u16,
    bytes_each: u32,
    /// Buffers given back so far, published or not; wraps like the kernel's tail.
    tail: u16,
}

impl Buffers {
    /// Maps and registers `count` (a power of two) buffers of `bytes_each`.
    pub(super) fn register(submitter: &Submitter<'_>, count: u16, bytes_each: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel masks buffer positions");
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let data = Mapping::new(usize::from(count) * bytes_each as usize)?;
        let mut buffers = Self { entries, data, count, bytes_each, tail: 0 };
        // SAFETY: the mapping is page-aligned, holds `count` entries, and is unmapped only
        // after `unregister`.
        unsafe {
            let address = buffers.entries.start.as_ptr() as u64;
            submitter.register_buf_ring_with_flags(address, count, GROUP, 0)?;
        }
        for buffer in 0..count {
            buffers.give_back(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Takes the ring of buffers from the kernel; must come before the memory is unmapped.
    pub(super) fn unregister(submitter: &Submitter<'_>) {
        // Can only fail if the group is not registered, and then there is nothing to undo.
        let _ = submitter.unregister_buf_ring(GROUP);
    }

    /// The first `filled` bytes of a buffer that a completion has named.
    ///
    /// # Safety
    /// The completion must have been read from the ring these buffers are registered with, and
    /// the buffer must not have been given back since: only then does the kernel leave it alone.
    pub(super) unsafe fn filled(&self, buffer: u16, filled: usize) -> &[u8] {
        assert!(buffer < self.count && filled <= self.bytes_each as usize);
        let offset = usize::from(buffer) * self.bytes_each as usize;
        // SAFETY: inside the mapping by the assertion; not written by the kernel, says the caller.
        unsafe { std::slice::from_raw_parts(self.data.start.as_ptr().add(offset), filled) }
    }

    /// Writes a buffer into the next free entry; the kernel sees it after `publish`.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        let address = self.data.start.as_ptr() as u64 + u64::from(buffer) * u64::from(self.bytes_each);
        // SAFETY: `place` is below `count`, so the entry is inside the mapping; the kernel does
        // not read entries beyond the published tail. Fields are written singly because the tail
        // lies in an unused field of entry 0.
        unsafe {
            let entry = &mut *self.entries.start.cast::<BufRingEntry>().as_ptr().add(place);
            entry.set_addr(address);
            entry.set_len(self.bytes_each);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see every buffer given back.
    pub(super) fn publish(&mut self) {
        // SAFETY: the base of the mapping is the base of the registered ring; the tail is only
        // written here and read by the kernel, which the atomic store allows.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.cast().as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Zeroed anonymous memory: address space now, pages when touched.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` with this length and nobody else knows it; the
        // reactor has unregistered its buffers before.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
