//! Sources: where jobs come from besides the API's direct way, each on its own thread.

pub mod cpus;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(not(feature = "kafka"))]
#[path = "without_kafka.rs"]
pub mod kafka;
pub mod nodes;
pub mod stats;

use halley_protocol::job::{Job, JobLimits, JobTarget};

use crate::dispatch::Target;
use crate::limits;

/// The maxima of a push, as they are for jobs.
pub const JOB_LIMITS: JobLimits = JobLimits {
    payload_bytes_max: limits::PAYLOAD_BYTES_MAX,
    room_bytes_max: limits::ROOM_NAME_BYTES_MAX,
    key_bytes_max: limits::KEY_BYTES_MAX,
    targets_max: limits::PUSH_TARGETS_MAX,
};

/// A push as a job.
pub fn job(target: Target, operation: i32, body: &[u8]) -> Job<'_> {
    let target = match target {
        Target::Keys(keys) => JobTarget::Keys(keys),
        Target::Members(members) => JobTarget::Members(members),
        Target::Room(room) => JobTarget::Room(room),
        Target::All => JobTarget::All,
    };
    Job { target, operation, payload: body.into() }
}
