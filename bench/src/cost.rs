//! What a process has spent, from `/proc`: CPU of all its threads, memory; and what the kernel
//! dropped meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::Serialize;

/// What `/proc/PID/stat` counts in: `USER_HZ` of every Linux.
const TICK_SECONDS: f64 = 0.01;

/// What a process had spent at one moment.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Nanoseconds on a CPU and nanoseconds waiting for one, by thread: (name, run, wait).
    threads: BTreeMap<u32, (String, u64, u64)>,
    user_ticks: u64,
    system_ticks: u64,
    rss_bytes: u64,
}

/// What a process spent between two moments.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Spent {
    /// Seconds on a CPU, all threads.
    pub cpu_seconds: f64,
    /// Seconds in user mode, in clock ticks of 10 ms.
    pub user_seconds: f64,
    /// Seconds in the kernel, in clock ticks of 10 ms.
    pub system_seconds: f64,
    /// Resident set at the end.
    pub rss_bytes: u64,
    /// Each thread that ran.
    pub threads: Vec<ThreadSpent>,
}

/// What a thread spent.
#[derive(Clone, Debug, Serialize)]
pub struct ThreadSpent {
    /// Its name.
    pub name: String,
    /// Seconds on a CPU.
    pub cpu_seconds: f64,
    /// Seconds it was ready to run and waited for a CPU.
    pub wait_seconds: f64,
}

impl Spent {
    /// Seconds that its threads were ready to run and waited for a CPU, together.
    pub fn wait_seconds(&self) -> f64 {
        self.threads.iter().map(|thread| thread.wait_seconds).sum()
    }
}

impl ThreadSpent {
    /// What the calling thread has spent since it was started; zero if `/proc` cannot be read.
    #[allow(clippy::cast_precision_loss, reason = "times of a run")]
    pub fn here(name: String) -> Self {
        let line = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let (run_ns, wait_ns) = schedstat(&line).unwrap_or((0, 0));
        Self { name, cpu_seconds: run_ns as f64 / 1e9, wait_seconds: wait_ns as f64 / 1e9 }
    }
}

/// Nanoseconds on a CPU and nanoseconds waiting for one.
fn schedstat(line: &str) -> Option<(u64, u64)> {
    let mut numbers = line.split_ascii_whitespace().map_while(|word| word.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

impl Usage {
    /// Reads the process with this id.
    ///
    /// # Errors
    /// If there is none, or `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Self> {
        let mut usage = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            // A thread may end between the listing and the reading.
            let Ok(line) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Some((run_ns, wait_ns)) = schedstat(&line) else { continue };
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(id) = id else { continue };
            usage.threads.insert(id, (name.trim_end().to_owned(), run_ns, wait_ns));
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let mut ticks = fields.split_ascii_whitespace().skip(11).map_while(|word| word.parse().ok());
        usage.user_ticks = ticks.next().unwrap_or(0);
        usage.system_ticks = ticks.next().unwrap_or(0);
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        usage.rss_bytes = field(&status, "VmRSS:").unwrap_or(0) * 1024;
        Ok(usage)
    }

    /// What was spent since an earlier moment of the same process.
    #[allow(clippy::cast_precision_loss, reason = "times of a run")]
    pub fn since(&self, earlier: &Self) -> Spent {
        let mut threads = Vec::new();
        for (id, (name, run_ns, wait_ns)) in &self.threads {
            let (run_before, wait_before) =
                earlier.threads.get(id).map_or((0, 0), |(_, run_ns, wait_ns)| (*run_ns, *wait_ns));
            let seconds = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1e9;
            threads.push(ThreadSpent {
                name: name.clone(),
                cpu_seconds: seconds(*run_ns, run_before),
                wait_seconds: seconds(*wait_ns, wait_before),
            });
        }
        let ticks = |now: u64, before: u64| now.saturating_sub(before) as f64 * TICK_SECONDS;
        let user_seconds = ticks(self.user_ticks, earlier.user_ticks);
        let system_seconds = ticks(self.system_ticks, earlier.system_ticks);
        // Threads that have ended are only in the ticks of the process, which are coarse.
        let ticked = user_seconds + system_seconds - 2.0 * TICK_SECONDS;
        Spent {
            cpu_seconds: threads.iter().map(|thread| thread.cpu_seconds).sum::<f64>().max(ticked),
            user_seconds,
            system_seconds,
            rss_bytes: self.rss_bytes,
            threads,
        }
    }
}

/// A number behind a name at the start of a line of `/proc` text.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Counters of the kernel that mean lost packets or connections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NetCounters(BTreeMap<String, u64>);

/// Any of these growing during a run is a reason to doubt it.
const DROPS: [&str; 6] =
    ["ListenOverflows", "ListenDrops", "TCPBacklogDrop", "PFMemallocDrop", "TCPReqQFullDrop", "TCPRcvQDrop"];

impl NetCounters {
    /// Reads them.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/net/netstat").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let mut counters = BTreeMap::new();
        while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
            let pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
            for (name, value) in pairs.filter(|(name, _)| DROPS.contains(name)) {
                counters.insert(name.to_owned(), value.parse().unwrap_or(0));
            }
        }
        Self(counters)
    }

    /// Those that have grown since, by how much.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let grown = self.0.iter().filter_map(|(name, now)| {
            let before = earlier.0.get(name).copied().unwrap_or(0);
            (*now > before).then(|| (name.clone(), now - before))
        });
        Self(grown.collect())
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_another_thread_is_counted_with_its_name() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let (done, wait) = std::sync::mpsc::channel();
        let worker = std::thread::Builder::new().name("worker".into()).spawn(move || {
            let until = std::time::Instant::now() + std::time::Duration::from_millis(60);
            while std::time::Instant::now() < until {}
            done.send(()).unwrap();
            std::thread::park();
        });
        wait.recv().unwrap();
        let spent = Usage::of(pid).unwrap().since(&before);
        let worker = worker.unwrap();
        worker.thread().unpark();
        worker.join().unwrap();
        let thread = spent.threads.iter().find(|thread| thread.name == "worker").unwrap();
        assert!(thread.cpu_seconds + thread.wait_seconds > 0.03, "{thread:?}");
        assert!(spent.cpu_seconds >= thread.cpu_seconds);
        assert!(spent.rss_bytes > 0);
    }

    #[test]
    fn only_drops_that_grew_are_reported() {
        let text = |overflows: u64| {
            format!("TcpExt: SyncookiesSent ListenOverflows TCPBacklogDrop\nTcpExt: 5 {overflows} 3\n")
        };
        let (before, after) = (NetCounters::parse(&text(1)), NetCounters::parse(&text(4)));
        let grown: Vec<_> = after.since(&before).0.into_iter().collect();
        assert_eq!(grown, [("ListenOverflows".to_owned(), 3)]);
    }
}
