//! Jobs: pushes as they stand in a log such as Kafka, in four formats, told apart by their first byte or a header.
//!
//! | format | what it is | known by |
//! |---|---|---|
//! | envelope | Halley's own, [`envelope`] | begins with [`envelope::MAGIC`], whose first byte begins neither protobuf nor JSON |
//! | goim v2 | protobuf `PushMsg`, [`goim::v2`] | its first field is one of goim's |
//! | goim v1 | a JSON object, [`goim::v1`] | begins with `{` |
//! | plain | the value is the payload, [`plain`] | a header names the target, or the topic is declared plain |
//!
//! A record of any bytes is a [`Job`] or a [`JobReject`].

pub mod envelope;
pub mod goim;
pub mod plain;

use std::borrow::Cow;

/// Header of a record, of any format, whose value names the message: of two records that carry the same, one is a repeat.
pub const ID_HEADER: &str = "halley-id";

/// Bytes of its value; a longer one is no id.
pub const ID_BYTES_MAX: usize = 256;

/// Whom a job is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobTarget {
    /// These connection keys.
    Keys(Vec<String>),
    /// These members.
    Members(Vec<i64>),
    /// Everybody in the room.
    Room(String),
    /// Everybody.
    All,
}

/// A push as it was asked for. The payload lies in the record where the format allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job<'a> {
    /// Whom it is for; names at least one, none empty.
    pub target: JobTarget,
    /// The operation that clients see.
    pub operation: i32,
    /// The message.
    pub payload: Cow<'a, [u8]>,
}

/// Why a record is no job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobReject {
    /// No bytes, and no header that makes an empty payload of them.
    Empty,
    /// None of the formats.
    UnknownFormat,
    /// An envelope that ends early, or has bytes behind its end.
    EnvelopeLength,
    /// An envelope of a version that this build does not read.
    EnvelopeVersion,
    /// An envelope whose checksum is another.
    EnvelopeChecksum,
    /// An envelope with the right checksum that holds no job.
    EnvelopeBody,
    /// Not goim's `PushMsg`.
    Protobuf,
    /// Not goim v1's object.
    Json,
    /// A header that Halley reads has a value that it cannot.
    Header,
    /// An operation or type of push that goim does not have.
    UnknownKind,
    /// It names nobody.
    NoTarget,
    /// A name in it is empty or longer than its maximum.
    BadName,
    /// It names more than the reader's maximum.
    TooManyTargets,
    /// The payload is larger than the reader's maximum.
    TooLarge,
}

impl JobReject {
    /// Every reject, in the order of their discriminants.
    pub const ALL: [Self; 14] = [
        Self::Empty,
        Self::UnknownFormat,
        Self::EnvelopeLength,
        Self::EnvelopeVersion,
        Self::EnvelopeChecksum,
        Self::EnvelopeBody,
        Self::Protobuf,
        Self::Json,
        Self::Header,
        Self::UnknownKind,
        Self::NoTarget,
        Self::BadName,
        Self::TooManyTargets,
        Self::TooLarge,
    ];

    /// Name in metrics and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::UnknownFormat => "unknown-format",
            Self::EnvelopeLength => "envelope-length",
            Self::EnvelopeVersion => "envelope-version",
            Self::EnvelopeChecksum => "envelope-checksum",
            Self::EnvelopeBody => "envelope-body",
            Self::Protobuf => "protobuf",
            Self::Json => "json",
            Self::Header => "header",
            Self::UnknownKind => "unknown-kind",
            Self::NoTarget => "no-target",
            Self::BadName => "bad-name",
            Self::TooManyTargets => "too-many-targets",
            Self::TooLarge => "too-large",
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn at(self) -> usize {
        self as usize
    }
}

/// Which formats a topic carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// All of them, told apart record by record; plain ones by their header.
    #[default]
    Auto,
    /// Halley's envelope only.
    Envelope,
    /// goim v2's protobuf only.
    GoimV2,
    /// goim v1's JSON only.
    GoimV1,
    /// Every value is a payload; a header or the key names the target.
    Plain,
}

/// What is read of a record. A record without a value (a tombstone) has an empty one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    /// Its headers that begin with [`plain::PREFIX`].
    pub headers: plain::Headers<'a>,
}

/// Maxima of a reader.
#[derive(Clone, Copy, Debug)]
pub struct JobLimits {
    /// Bytes of a payload.
    pub payload_bytes_max: usize,
    /// Bytes of a room's name.
    pub room_bytes_max: usize,
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Keys or members.
    pub targets_max: usize,
}

/// Reads a record.
pub fn read<'a>(record: &Record<'a>, format: Format, limits: &JobLimits) -> Result<Job<'a>, JobReject> {
    let job = match format {
        Format::Auto => read_any(record),
        Format::Envelope => envelope::read(record.value),
        Format::GoimV2 => goim::v2::read(record.value),
        Format::GoimV1 => goim::v1::read(record.value),
        Format::Plain => plain::read(record),
    }?;
    check(&job, limits)?;
    Ok(job)
}

fn read_any<'a>(record: &Record<'a>) -> Result<Job<'a>, JobReject> {
    if record.headers.name_a_target() {
        return plain::read(record);
    }
    match record.value {
        [] => Err(JobReject::Empty),
        value if value.starts_with(&envelope::MAGIC) => envelope::read(value),
        [b'{', ..] => goim::v1::read(record.value),
        [first, ..] if goim::v2::begins_with(*first) => goim::v2::read(record.value),
        _ => Err(JobReject::UnknownFormat),
    }
}

/// Checks what every format has in common.
pub fn check(job: &Job<'_>, limits: &JobLimits) -> Result<(), JobReject> {
    let (count, named_well) = match &job.target {
        JobTarget::Keys(keys) => (keys.len(), keys.iter().all(|key| (1..=limits.key_bytes_max).contains(&key.len()))),
        JobTarget::Members(members) => (members.len(), true),
        JobTarget::Room(room) => (1, (1..=limits.room_bytes_max).contains(&room.len())),
        JobTarget::All => (1, true),
    };
    if count == 0 {
        Err(JobReject::NoTarget)
    } else if count > limits.targets_max {
        Err(JobReject::TooManyTargets)
    } else if !named_well {
        Err(JobReject::BadName)
    } else if job.payload.len() > limits.payload_bytes_max {
        Err(JobReject::TooLarge)
    } else {
        Ok(())
    }
}
