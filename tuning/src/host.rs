//! A host's limits as the kernel shows them under `/proc` and `/sys`.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

/// A resource limit of this process (setrlimit(2)). `None` is `unlimited`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// In force.
    pub soft: Option<u64>,
    /// How far the process may raise it by itself.
    pub hard: Option<u64>,
}

/// What bounds a gateway on this host. Everywhere `None` means that nothing is known to set a bound:
/// an unlimited limit, a kernel without the setting, or a `/proc` that hides it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Host {
    /// `RLIMIT_NOFILE`: descriptors of the process, and entries in the file table of each ring.
    pub files: Limit,
    /// `RLIMIT_MEMLOCK` in bytes: memory of all rings of a user without `CAP_IPC_LOCK`.
    pub memlock: Limit,
    /// fs.file-max: open files of the whole host.
    pub file_max: Option<u64>,
    /// fs.file-nr: files open now.
    pub files_open: Option<u64>,
    /// `fs.nr_open`: ceiling of `RLIMIT_NOFILE`.
    pub nr_open: Option<u64>,
    /// net.core.somaxconn: ceiling of a listener's backlog.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: outgoing connections to one address and port, which matters to load generators.
    pub port_range: Option<[u64; 2]>,
    /// `net.ipv4.tcp_mem`: low, pressure and high mark, in pages of unread and unsent bytes.
    pub tcp_mem: Option<[u64; 3]>,
    /// `MemAvailable`, in bytes.
    pub memory_available: Option<u64>,
    /// Bytes left under the tightest `memory.max` of this process's control groups (cgroup v2).
    pub cgroup_available: Option<u64>,
    /// kernel.osrelease.
    pub kernel: Option<String>,
    /// `kernel.io_uring_disabled` (6.6+): 0 everybody, 1 only `CAP_SYS_ADMIN` and `kernel.io_uring_group`, 2 nobody.
    pub io_uring_disabled: Option<u64>,
}

/// Why a host could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file that every Linux has is missing or may not be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the read.
        cause: io::Error,
    },
    /// A file does not say what proc(5) promises.
    #[error("{} does not read as proc(5) describes it", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
    },
}

impl Host {
    /// Reads the `proc` and `sys` trees below `root`; `/` is this host and this process.
    ///
    /// # Errors
    /// If `proc/self/limits` is missing, or any of the files holds something else than proc(5) says.
    pub fn read(root: &Path) -> Result<Self, HostError> {
        let tree = Tree { root };
        let limits = tree.text("proc/self/limits")?;
        let limit = |name| limit_line(&limits, name).ok_or_else(|| tree.unexpected("proc/self/limits"));
        Ok(Self {
            files: limit("Max open files")?,
            memlock: limit("Max locked memory")?,
            file_max: tree.numbers("proc/sys/fs/file-max")?.map(|[max]| max),
            files_open: tree.numbers("proc/sys/fs/file-nr")?.map(|[open, _, _]| open),
            nr_open: tree.numbers("proc/sys/fs/nr_open")?.map(|[max]| max),
            somaxconn: tree.numbers("proc/sys/net/core/somaxconn")?.map(|[max]| max),
            port_range: tree.numbers("proc/sys/net/ipv4/ip_local_port_range")?,
            tcp_mem: tree.numbers("proc/sys/net/ipv4/tcp_mem")?,
            memory_available: tree.memory_available()?,
            cgroup_available: tree.cgroup_available()?,
            kernel: tree.optional("proc/sys/kernel/osrelease")?.map(|text| text.trim().to_owned()),
            io_uring_disabled: tree.numbers("proc/sys/kernel/io_uring_disabled")?.map(|[value]| value),
        })
    }

    /// Major and minor number of the kernel, if its release begins with them.
    pub fn kernel_version(&self) -> Option<(u64, u64)> {
        let mut numbers = self.kernel.as_deref()?.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }
}

/// The files below a root.
struct Tree<'a> {
    root: &'a Path,
}

impl Tree<'_> {
    fn text(&self, path: &str) -> Result<String, HostError> {
        let path = self.root.join(path);
        fs::read_to_string(&path).map_err(|cause| HostError::Unreadable { path, cause })
    }

    /// None where the file is missing or hidden: kernels and sandboxes differ.
    fn optional(&self, path: &str) -> Result<Option<String>, HostError> {
        match self.text(path) {
            Ok(text) => Ok(Some(text)),
            Err(HostError::Unreadable { cause, .. })
                if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// A file of exactly `N` numbers.
    fn numbers<const N: usize>(&self, path: &str) -> Result<Option<[u64; N]>, HostError> {
        let Some(text) = self.optional(path)? else { return Ok(None) };
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Some).ok_or_else(|| self.unexpected(path))
    }

    fn memory_available(&self) -> Result<Option<u64>, HostError> {
        let path = "proc/meminfo";
        let Some(text) = self.optional(path)? else { return Ok(None) };
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.map(|kib| Some(kib.saturating_mul(1024))).ok_or_else(|| self.unexpected(path))
    }

    /// The group of this process and every group above it may set a maximum; the least that is left counts.
    fn cgroup_available(&self) -> Result<Option<u64>, HostError> {
        let groups = self.optional("proc/self/cgroup")?.unwrap_or_default();
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let mut left = None;
        let mut group = Some(Path::new(own));
        while let Some(path) = group {
            let folder = Path::new("sys/fs/cgroup").join(path).display().to_string();
            let maximum = self.optional(&format!("{folder}/memory.max"))?;
            if let Some(maximum) = maximum.filter(|text| text.trim() != "max") {
                let unexpected = |_| self.unexpected(&format!("{folder}/memory.max"));
                let maximum: u64 = maximum.trim().parse().map_err(unexpected)?;
                let [used] = self.numbers(&format!("{folder}/memory.current"))?.unwrap_or([0]);
                let here = maximum.saturating_sub(used);
                left = Some(left.map_or(here, |above: u64| above.min(here)));
            }
            group = path.parent();
        }
        Ok(left)
    }

    fn unexpected(&self, path: &str) -> HostError {
        HostError::Unexpected { path: self.root.join(path) }
    }
}

/// `Max open files            20000                20000                files`
fn limit_line(limits: &str, name: &str) -> Option<Limit> {
    let mut words = limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let mut value = || match words.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some(Limit { soft: value()?, hard: value()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const LIMITS: (&str, &str) = (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            1024                 524288               files     \n\
         Max locked memory         8388608              unlimited            bytes     \n",
    );

    #[test]
    fn a_whole_host_is_read() {
        let root = tree(&[
            LIMITS,
            ("proc/sys/fs/file-max", "2466170\n"),
            ("proc/sys/fs/file-nr", "521\t0\t2466170\n"),
            ("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
            ("proc/meminfo", "MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\n"),
            ("proc/sys/kernel/osrelease", "6.18.44-fc\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
        ]);
        let host = Host::read(root.path()).unwrap();
        assert_eq!(host.files, Limit { soft: Some(1024), hard: Some(524_288) });
        assert_eq!(host.memlock, Limit { soft: Some(8 << 20), hard: None });
        assert_eq!((host.file_max, host.files_open), (Some(2_466_170), Some(521)));
        assert_eq!(host.tcp_mem, Some([287_898, 383_867, 575_796]));
        assert_eq!(host.memory_available, Some(20_480_000_000));
        assert_eq!((host.kernel_version(), host.io_uring_disabled), (Some((6, 18)), Some(0)));
        assert_eq!((host.somaxconn, host.cgroup_available), (None, None));
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tree(&[
            LIMITS,
            ("proc/self/cgroup", "1:name=systemd:/x\n0::/system.slice/halley.service\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1000\n"),
            ("sys/fs/cgroup/system.slice/memory.current", "900\n"),
            ("sys/fs/cgroup/system.slice/halley.service/memory.max", "max\n"),
        ]);
        assert_eq!(Host::read(root.path()).unwrap().cgroup_available, Some(100));
    }

    #[test]
    fn what_is_not_as_documented_is_named() {
        let no_limits = Host::read(tree(&[]).path()).unwrap_err().to_string();
        assert!(no_limits.contains("proc/self/limits cannot be read"), "{no_limits}");
        let root = tree(&[LIMITS, ("proc/sys/fs/file-nr", "521\n")]);
        let short = Host::read(root.path()).unwrap_err().to_string();
        assert!(short.contains("proc/sys/fs/file-nr does not read"), "{short}");
    }

    #[test]
    fn this_host_can_be_read() {
        let host = Host::read(Path::new("/")).unwrap();
        assert!(host.kernel_version().is_some_and(|version| version > (2, 6)), "{host:?}");
    }
}
