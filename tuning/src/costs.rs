//! What a connection and a delivery cost, as measured; a test compares each number with the bench's raw data.

/// Kernel memory of one idle connection: socket, inode, file, directory entry, armed poll, place in the file table.
/// `kernel.server_bytes` of the bench's `idle`, Linux 6.18, x86-64.
pub const KERNEL_BYTES: u64 = 4_000;

/// The gateway's own memory of one idle connection (`server.bytes_per_connection`), logged in, a member of one room.
pub const USER_BYTES: u64 = 270;

/// Both together.
pub const CONNECTION_BYTES: u64 = KERNEL_BYTES + USER_BYTES;

/// Of these, what no control group is charged for on kernels before 6.12 and in groups of version 1: the socket itself, which
/// the kernel makes before anybody accepts it, and part of the armed poll. Measured by `cargo xtask forecast`.
pub const UNCHARGED_BYTES: u64 = 2_570;

/// The process before its first client (`server.rss_bytes_at_start`), with one shard.
pub const PROCESS_BYTES: u64 = 9 << 20;

/// What a further shard adds to the resident set: its ring's two queues, its stack, its pools (from the bench's runs
/// with 1 and 51 shards).
pub const SHARD_BYTES: u64 = 1_200_000;

/// Locked memory of one shard's ring, which counts against `RLIMIT_MEMLOCK`: 1,024 submissions of 64 bytes, 16,384
/// completions of 16 bytes, their index and head.
pub const RING_LOCKED_BYTES: u64 = 336 << 10;

/// Locked memory of control's own small ring.
pub const CONTROL_LOCKED_BYTES: u64 = 32 << 10;

/// CPU time of one delivery that is not joined with others, nanoseconds, over loopback: the receiver's protocol work is
/// in it (`server.cpu_us_per_delivery`).
pub const DELIVERY_NS: u64 = 7_500;

/// Idle connections that so many bytes hold, beside the process itself and its shards.
pub fn connections_in(bytes: u64, shards: u64) -> u64 {
    bytes.saturating_sub(PROCESS_BYTES + shards * SHARD_BYTES) / CONNECTION_BYTES
}
