//! Where threads beside the shards run.

/// Runs this thread, and those it starts, on the CPUs that no shard has, if there are any.
pub fn leave(cpus: &[usize]) {
    let Ok(mut free) = rustix::thread::sched_getaffinity(None) else { return };
    for cpu in cpus {
        free.unset(*cpu);
    }
    if free.count() > 0
        && let Err(error) = rustix::thread::sched_setaffinity(None, &free)
    {
        tracing::warn!(%error, "a thread shares the shards' CPUs");
    }
}
