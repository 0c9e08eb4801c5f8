//! The time slice of the calling thread: a thread with a short one runs as soon as it is woken.

use std::io;
use std::time::Duration;

/// The kernel's `struct sched_attr` in its first version (`include/uapi/linux/sched/types.h`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Nanoseconds; for a thread of the normal policy its slice, 0.1 to 100 ms, since Linux 6.12.
    runtime: u64,
    deadline: u64,
    period: u64,
}

const _: () = assert!(size_of::<Attributes>() == 48, "SCHED_ATTR_SIZE_VER0");

/// Asks for short slices for the calling thread. Its share of a CPU stays what it was; woken beside
/// a thread with longer slices on the same CPU, it goes first. Kernels before 6.12 ignore it.
///
/// # Errors
/// What the kernel or a seccomp filter says. The thread runs as before.
pub fn shorten_slice(slice: Duration) -> io::Result<()> {
    let mut attributes = Attributes::default();
    let bytes = libc::c_uint::try_from(size_of::<Attributes>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `bytes` bytes to `attributes`, all fields of which are plain numbers.
    check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, bytes, 0) })?;
    attributes.runtime = u64::try_from(slice.as_nanos()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads `attributes.size` bytes of it, which the call above has set to its length.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_policy_and_nice_value_and_gets_the_slice() {
        let read = || {
            let mut attributes = Attributes::default();
            // SAFETY: as above.
            check(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, 48, 0) }).unwrap();
            attributes
        };
        let before = read();
        shorten_slice(Duration::from_micros(100)).unwrap();
        let after = read();
        assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        // Before 6.12 the kernel reports none.
        assert!(after.runtime == 100_000 || after.runtime == 0, "{}", after.runtime);
    }
}
