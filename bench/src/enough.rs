//! Whether this machine has enough for a number of connections: files, memory, `io_uring`, and the
//! addresses they should come from.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use halley_ring::client::{Reactor, Sizes};

use crate::machine;

/// Files that are open beside the rings of the clients.
const FILES_BESIDE: u64 = 48;

/// What the kernel holds for one end of an idle TCP connection, measured on Linux 6.18, with a reserve.
const KERNEL_BYTES_PER_END: u64 = 3600;

/// What this program holds for a client at most.
const USER_BYTES_PER_CLIENT: u64 = 200;

/// What a run needs and what there is.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Connections.
    pub clients: u32,
    /// Threads of clients, each with a ring.
    pub threads: u32,
    /// The server's ends are on this machine too.
    pub both_ends: bool,
    /// `RLIMIT_NOFILE`.
    pub nofile: u64,
    /// Memory that programs may still take, none if it cannot be told.
    pub available_bytes: Option<u64>,
}

impl Needs {
    /// Compares them.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn check(&self) -> Result<(), String> {
        self.files()?;
        self.memory()
    }

    fn files(&self) -> Result<(), String> {
        let Self { clients, threads, nofile, .. } = *self;
        let fits = |nofile: u64| u64::from(clients).div_ceil(nofile) + FILES_BESIDE <= nofile;
        if nofile >= u64::from(threads) + FILES_BESIDE {
            return Ok(());
        }
        let enough = (6..32).map(|power| 1 << power).find(|nofile| fits(*nofile)).unwrap_or(u64::MAX);
        Err(format!(
            "{clients} connections need {threads} threads, each with a ring, and RLIMIT_NOFILE {nofile} is too low for \
             that: raise it to {enough} or more (ulimit -n {enough}, LimitNOFILE= of a unit)"
        ))
    }

    fn memory(&self) -> Result<(), String> {
        let Some(available) = self.available_bytes else { return Ok(()) };
        let ends = if self.both_ends { 2 } else { 1 };
        let each = KERNEL_BYTES_PER_END * ends + USER_BYTES_PER_CLIENT;
        let needed = each * u64::from(self.clients);
        if needed <= available {
            return Ok(());
        }
        let (needed, fit) = (mib(needed), available / each);
        let ends = if self.both_ends { "both ends are here" } else { "one end is here" };
        Err(format!(
            "{} connections need about {needed} MiB ({each} bytes each, {ends}) and {} MiB are available: take --connections \
             {fit} or fewer, or add memory",
            self.clients,
            mib(available)
        ))
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Whether connections can come from these addresses.
///
/// # Errors
/// A sentence that names the first that is not of this machine.
pub fn sources(sources: &[IpAddr]) -> Result<(), String> {
    match sources.iter().find(|source| !machine::is_local(**source)) {
        Some(source) => Err(format!(
            "--source {source} is no address of this machine: add it (ip addr add {source} dev …) or leave it out"
        )),
        None => Ok(()),
    }
}

/// Whether clients' rings can be made at all.
///
/// # Errors
/// A sentence with the remedy.
pub fn rings() -> Result<(), String> {
    let sizes = Sizes { clients_max: 1, buffers: 8, buffer_bytes: 2048, gather: Duration::ZERO };
    let made = std::thread::spawn(move || Reactor::new(sizes).map(drop)).join();
    made.unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).map_err(|error| ring_failed(&error))
}

/// Why a ring could not be made, or broke, and what helps.
pub fn ring_failed(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": allow it (sysctl kernel.io_uring_disabled=0, or the container's seccomp profile)"
        }
        io::ErrorKind::Unsupported => ": this kernel has none, or the container's seccomp profile hides it",
        io::ErrorKind::InvalidInput => ": clients need Linux 6.1 or later, and 6.11 to come from given addresses",
        io::ErrorKind::OutOfMemory => ": raise RLIMIT_MEMLOCK (ulimit -l), or take fewer --threads",
        _ if error.raw_os_error() == Some(24) => ": raise RLIMIT_NOFILE (ulimit -n)",
        _ => "",
    };
    format!("the clients' io_uring failed: {error}{remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs =
        Needs { clients: 100_000, threads: 5, both_ends: true, nofile: 20_000, available_bytes: Some(2 << 30) };

    #[test]
    fn what_is_enough_is_accepted() {
        assert_eq!(NEEDS.check(), Ok(()));
        assert_eq!(Needs { available_bytes: None, clients: u32::MAX, ..NEEDS }.check(), Ok(()), "untold is no reason");
    }

    #[test]
    fn too_few_files_are_refused_with_how_many_would_do() {
        let sentence = Needs { threads: 1563, nofile: 64, ..NEEDS }.check().unwrap_err();
        assert!(sentence.contains("RLIMIT_NOFILE 64 is too low") && sentence.contains("ulimit -n 512"), "{sentence}");
        assert_eq!(Needs { threads: 196, nofile: 512, ..NEEDS }.check(), Ok(()));
    }

    #[test]
    fn too_little_memory_is_refused_with_how_many_would_fit() {
        let sentence = Needs { clients: 1_000_000, ..NEEDS }.check().unwrap_err();
        assert!(sentence.contains("7058 MiB") && sentence.contains("2048 MiB are available"), "{sentence}");
        let fit: u32 = sentence.split("--connections ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(Needs { clients: fit, ..NEEDS }.check(), Ok(()));
        assert!(Needs { clients: fit + 1, ..NEEDS }.check().is_err());
        assert_eq!(Needs { clients: 500_000, both_ends: false, ..NEEDS }.check(), Ok(()), "the other end is elsewhere");
    }

    #[test]
    fn addresses_of_other_machines_are_refused() {
        assert_eq!(sources(&["127.0.0.1".parse().unwrap(), "127.9.9.9".parse().unwrap()]), Ok(()));
        let sentence = sources(&["127.0.0.1".parse().unwrap(), "192.0.2.7".parse().unwrap()]).unwrap_err();
        assert!(sentence.contains("--source 192.0.2.7"), "{sentence}");
    }

    #[test]
    fn each_failure_of_a_ring_says_what_helps() {
        for (errno, word) in
            [(1, "io_uring_disabled"), (38, "kernel"), (22, "6.1"), (12, "ulimit -l"), (24, "ulimit -n")]
        {
            let sentence = ring_failed(&io::Error::from_raw_os_error(errno));
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}
