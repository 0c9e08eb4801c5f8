//! The allocator: mimalloc, counting the allocations of each thread.
//!
//! A shard must not allocate on the way of a message; the counter shows it, in tests and in `/v1/stats`.
//! Under sanitizers (`--cfg system_allocator`) it is the system's, which they watch.

#![allow(unsafe_code, reason = "a global allocator cannot be written without it")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

#[cfg(not(any(miri, system_allocator)))]
use mimalloc::MiMalloc as Inner;
#[cfg(any(miri, system_allocator))]
use std::alloc::System as Inner;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Allocations that this thread has made.
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Gives memory that this thread has freed back to the system: a table that grew leaves its old halves
/// behind, which would stay resident for ever in a process that is idle afterwards.
pub fn give_back() {
    #[cfg(not(any(miri, system_allocator)))]
    // SAFETY: touches only the allocator's own state of this thread and its shared pages, which it locks.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    };
}

fn count() {
    // A thread that is ending has no counter any more, and needs none.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed to the allocator within unchanged; counting touches a thread-local without a
// destructor and does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is that of the one within.
        unsafe { Inner.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { Inner.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`; the block came from there.
        unsafe { Inner.realloc(block, layout, bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from there with this layout.
        unsafe { Inner.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_counted_on_its_own_thread() {
        let before = allocations();
        let block = std::hint::black_box(Box::new(1u64));
        assert_eq!(allocations(), before + 1);
        std::thread::spawn(move || drop(std::hint::black_box(block))).join().expect("no panic");
        let other = std::thread::spawn(allocations).join().expect("no panic");
        assert!(other < 100, "{other}");
    }
}
