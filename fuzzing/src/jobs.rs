//! Job formats: any record is a job or a reject, and a job survives the envelope. The same of what nodes tell each other.

use halley_protocol::job::{Format, JobLimits, Record, envelope, plain::Headers, read};
use halley_protocol::node;

const LIMITS: JobLimits = JobLimits { payload_bytes_max: 1000, room_bytes_max: 50, key_bytes_max: 50, targets_max: 20 };

/// A record: the first byte says how many bytes are its key, and how many of a header's value.
pub fn jobs(data: &[u8]) {
    let Some((&lengths, rest)) = data.split_first() else { return };
    let (key, rest) = rest.split_at(usize::from(lengths >> 4).min(rest.len()));
    let (header, value) = rest.split_at(usize::from(lengths & 15).min(rest.len()));
    let mut headers = Headers::default();
    if let Some((name, value)) = header.split_first() {
        let names = ["halley-room", "halley-keys", "halley-members", "halley-all", "halley-operation", "other"];
        headers.add(names[usize::from(*name) % names.len()], Some(value));
    }
    let _ = node::Key::read(key);
    if let Ok(told) = node::read(value) {
        let written = node::write(&told).expect("small");
        assert_eq!(node::read(&written), Ok(told));
    }
    let record = Record { key: (!key.is_empty()).then_some(key), value, headers };
    for format in [Format::Auto, Format::Envelope, Format::GoimV2, Format::GoimV1, Format::Plain] {
        let Ok(job) = read(&record, format, &LIMITS) else { continue };
        assert!(job.payload.len() <= LIMITS.payload_bytes_max);
        let Some(written) = envelope::write(&job) else { continue };
        let again = Record { value: &written, ..Record::default() };
        assert_eq!(read(&again, Format::Envelope, &LIMITS).as_ref(), Ok(&job), "{format:?}");
        assert_eq!(read(&again, Format::Auto, &LIMITS).as_ref(), Ok(&job), "{format:?}");
    }
}
