//! Halley's envelope: a header with length and checksum, then an archive of rkyv that is checked and read in place.
//!
//! ```text
//!  0          4         6          8        12         16
//! ┌──────────┬─────────┬──────────┬────────┬──────────┬───────────┐
//! │ FF H J 0 │ version │ reserved │ length │ crc32c   │ body      │
//! └──────────┴─────────┴──────────┴────────┴──────────┴───────────┘
//! ```
//!
//! Integers are little-endian. `length` is that of the body; the checksum is over everything but itself. The body of version 1
//! is an archive of [`V1`] by rkyv 0.8: little-endian, unaligned, 32-bit relative pointers, the root at its end.
//! rkyv's formats do not evolve: another shape is another version, and every version keeps its golden files.

use std::borrow::Cow;

use rkyv::rancor::Failure;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Serialize};

use super::{Job, JobReject, JobTarget};

/// How an envelope begins. `FF` is no first byte of UTF-8 text, and as a protobuf tag it has a wire type that there is not.
pub const MAGIC: [u8; 4] = *b"\xffHJ0";

/// The version that is written.
pub const VERSION: u16 = 1;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 16;

/// The body of version 1.
#[derive(Archive, Serialize, Debug)]
pub struct V1 {
    /// Whom it is for.
    pub target: TargetV1,
    /// The operation that clients see.
    pub operation: i32,
    /// The message.
    pub payload: Vec<u8>,
}

/// A target of version 1.
#[derive(Archive, Serialize, Debug)]
pub enum TargetV1 {
    /// Connection keys.
    Keys(Vec<String>),
    /// Members.
    Members(Vec<i64>),
    /// A room.
    Room(String),
    /// Everybody.
    All,
}

/// Reads an envelope that fills `value`.
pub fn read(value: &[u8]) -> Result<Job<'_>, JobReject> {
    let body = open(MAGIC, VERSION, value)?;
    let archived = rkyv::access::<ArchivedV1, Failure>(body).map_err(|Failure| JobReject::EnvelopeBody)?;
    let target = match &archived.target {
        ArchivedTargetV1::Keys(keys) => JobTarget::Keys(keys.iter().map(|key| key.as_str().into()).collect()),
        ArchivedTargetV1::Members(members) => JobTarget::Members(members.iter().map(|m| m.to_native()).collect()),
        ArchivedTargetV1::Room(room) => JobTarget::Room(room.as_str().into()),
        ArchivedTargetV1::All => JobTarget::All,
    };
    Ok(Job { target, operation: archived.operation.to_native(), payload: Cow::Borrowed(&archived.payload) })
}

/// Writes a job as an envelope. `None`: the job has 4 GiB or more.
pub fn write(job: &Job<'_>) -> Option<Vec<u8>> {
    let target = match &job.target {
        JobTarget::Keys(keys) => TargetV1::Keys(keys.clone()),
        JobTarget::Members(members) => TargetV1::Members(members.clone()),
        JobTarget::Room(room) => TargetV1::Room(room.clone()),
        JobTarget::All => TargetV1::All,
    };
    let body = V1 { target, operation: job.operation, payload: job.payload.to_vec() };
    let body: AlignedVec = rkyv::to_bytes::<Failure>(&body).ok()?;
    seal(MAGIC, VERSION, &body)
}

/// The body of an envelope of this kind and version that fills `value`.
pub(crate) fn open(magic: [u8; 4], version: u16, value: &[u8]) -> Result<&[u8], JobReject> {
    let (header, body) = value.split_first_chunk::<HEADER_BYTES>().ok_or(JobReject::EnvelopeLength)?;
    if header[..4] != magic {
        return Err(JobReject::UnknownFormat);
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if word(4) != u32::from(version) {
        return Err(JobReject::EnvelopeVersion);
    }
    if usize::try_from(word(8)) != Ok(body.len()) {
        return Err(JobReject::EnvelopeLength);
    }
    if word(12) != checksum(&header[..12], body) {
        return Err(JobReject::EnvelopeChecksum);
    }
    Ok(body)
}

/// Puts a body into an envelope. `None`: it has 4 GiB or more.
pub(crate) fn seal(magic: [u8; 4], version: u16, body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend(magic);
    out.extend(u32::from(version).to_le_bytes());
    out.extend(u32::try_from(body.len()).ok()?.to_le_bytes());
    out.extend(checksum(&out, body).to_le_bytes());
    out.extend_from_slice(body);
    Some(out)
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), body)
}
