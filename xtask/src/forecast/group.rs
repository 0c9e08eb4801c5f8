//! A control group with a bound of memory, of version 2 or 1, for a program to be started in.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Removed when dropped; whoever was in it is gone by then.
pub(super) struct Group(PathBuf);

impl Group {
    /// Below the group of this process.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let path = |start: &str, mount: &str| {
            let own = groups.lines().find_map(|line| line.split_once(start)).map(|(_, own)| own);
            own.map(|own| Path::new(mount).join(own.trim_start_matches('/')))
        };
        let name = format!("halley-forecast-{}", std::process::id());
        let version_1 = path(":memory:", "/sys/fs/cgroup/memory");
        let (above, bound) = match version_1 {
            Some(above) => (above, "memory.limit_in_bytes"),
            None => (path("0::", "/sys/fs/cgroup").ok_or(io::ErrorKind::NotFound)?, "memory.max"),
        };
        let group = Self(above.join(name));
        fs::create_dir(&group.0)?;
        // What a group of version 2 may bound is for the one above it to say.
        let _ = fs::write(above.join("cgroup.subtree_control"), "+memory");
        fs::write(group.0.join(bound), bytes.to_string())?;
        Ok(group)
    }

    /// What starts a program in it.
    pub(super) fn enter(&self) -> Vec<String> {
        let script = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
        ["sh", "-c", script, &self.0.to_string_lossy()].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
