//! When each message is due, and in which room: fixed before the run, whatever the server does (an
//! open loop).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;

/// The messages of one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Marks the messages of this pass, so that those of another are not counted.
    pub run: u32,
    /// When message 0 is due, on [`clock`].
    pub start_ns: u64,
    /// Time between two messages.
    pub interval_ns: u64,
    /// How many there are.
    pub count: u32,
    /// Rooms, which take the messages in turn: their due times are spread evenly.
    pub rooms: u32,
}

impl Schedule {
    /// `rate` messages a second into each of `rooms` for `duration`, the first one `lead` from now.
    pub fn new(run: u32, rate: f64, rooms: u32, duration: Duration, lead: Duration) -> Self {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rates are checked to be positive and sane where flags are read"
        )]
        let (interval_ns, each) =
            ((1e9 / (rate * f64::from(rooms))).round() as u64, (rate * duration.as_secs_f64()).round() as u32);
        let start_ns = clock::now_ns() + clock::nanoseconds(lead);
        Self { run, start_ns, interval_ns, count: each.saturating_mul(rooms), rooms }
    }

    /// The room of message `sequence`, and its place among the messages of that room.
    #[inline]
    pub fn place(&self, sequence: u32) -> (u32, u32) {
        (sequence % self.rooms, sequence / self.rooms)
    }

    /// When message `sequence` is due.
    pub fn due_ns(&self, sequence: u32) -> u64 {
        self.start_ns + u64::from(sequence) * self.interval_ns
    }

    /// How many messages are due by a moment, that one included.
    pub fn due_by(&self, now_ns: u64) -> u32 {
        now_ns.checked_sub(self.start_ns).map_or(0, |elapsed| self.first_after(elapsed / self.interval_ns + 1))
    }

    /// How many messages are due before a moment.
    pub fn due_before(&self, now_ns: u64) -> u32 {
        self.first_after(now_ns.saturating_sub(self.start_ns).div_ceil(self.interval_ns))
    }

    fn first_after(&self, messages: u64) -> u32 {
        u32::try_from(messages).unwrap_or(u32::MAX).min(self.count)
    }

    /// When the last message is due.
    pub fn end_ns(&self) -> u64 {
        self.due_ns(self.count.saturating_sub(1))
    }

    /// Seconds for which there is a message every interval.
    #[allow(clippy::cast_precision_loss, reason = "times of a run")]
    pub fn seconds(&self) -> f64 {
        self.interval_ns as f64 * f64::from(self.count) / 1e9
    }
}

/// Bytes of a [`Mark`]; the least payload of a message.
pub const MARK_BYTES: usize = 16;

/// What a message says about itself, at the start of its payload: big endian run (4 bytes),
/// sequence (4), due time in nanoseconds (8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The pass it belongs to.
    pub run: u32,
    /// Its number in the pass, from 0.
    pub sequence: u32,
    /// When it was due, on [`clock`].
    pub due_ns: u64,
}

impl Mark {
    /// The mark in a payload of at least [`MARK_BYTES`].
    #[inline]
    pub fn read(payload: &[u8; MARK_BYTES]) -> Self {
        let word = u128::from_be_bytes(*payload);
        #[allow(clippy::cast_possible_truncation, reason = "takes the word apart")]
        Self { run: (word >> 96) as u32, sequence: (word >> 64) as u32, due_ns: word as u64 }
    }

    /// A payload of `bytes` (at least [`MARK_BYTES`]) that begins with this mark.
    pub fn payload(&self, bytes: usize) -> Vec<u8> {
        let word = u128::from(self.run) << 96 | u128::from(self.sequence) << 64 | u128::from(self.due_ns);
        let mut payload = word.to_be_bytes().to_vec();
        payload.resize(bytes.max(MARK_BYTES), b'.');
        payload
    }
}

/// Bytes of a [`Mark`] as text: `hb:`, the bytes of the mark in hexadecimal, `:`.
pub const MARK_TEXT_BYTES: usize = MARK_TEXT_PREFIX.len() + 2 * MARK_BYTES + 1;

/// What a mark begins with as text. No character of such a mark is escaped in JSON or in a URL.
pub const MARK_TEXT_PREFIX: &[u8] = b"hb:";

impl Mark {
    /// The mark as text, for servers that pass on nothing else.
    pub fn text(&self) -> String {
        let Self { run, sequence, due_ns } = self;
        format!("hb:{run:08x}{sequence:08x}{due_ns:016x}:")
    }

    /// The mark that a text is, if it is one.
    #[inline]
    pub fn read_text(text: &[u8; MARK_TEXT_BYTES]) -> Option<Self> {
        let (digits, end) = text[MARK_TEXT_PREFIX.len()..].split_at(2 * MARK_BYTES);
        if !text.starts_with(MARK_TEXT_PREFIX) || end != b":" {
            return None;
        }
        let (mut word, mut wrong) = (0u128, 0);
        for digit in digits {
            let value = HEX[usize::from(*digit)];
            wrong |= value;
            word = word << 4 | u128::from(value & 0xf);
        }
        (wrong & 0x80 == 0).then(|| Self::read(&word.to_be_bytes()))
    }
}

/// The value of each hexadecimal digit; 0x80 for what is none.
const HEX: [u8; 256] = {
    let mut values = [0x80; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_from_its_payload() {
        let mark = Mark { run: 0xdead_beef, sequence: 77, due_ns: u64::MAX - 5 };
        let payload = mark.payload(40);
        assert_eq!(payload.len(), 40);
        assert_eq!(Mark::read(payload.first_chunk().unwrap()), mark);
    }

    #[test]
    fn a_mark_reads_back_from_its_text_and_from_no_other() {
        let mark = Mark { run: 0xdead_beef, sequence: 77, due_ns: u64::MAX - 5 };
        let text = mark.text();
        let text: &[u8; MARK_TEXT_BYTES] = text.as_bytes().first_chunk().unwrap();
        assert_eq!(mark.text().len(), MARK_TEXT_BYTES);
        assert_eq!(Mark::read_text(text), Some(mark));
        for place in 0..MARK_TEXT_BYTES {
            let mut broken = *text;
            broken[place] = b'g';
            assert_eq!(Mark::read_text(&broken), None, "wrong at {place}");
        }
    }

    #[test]
    fn a_schedule_spreads_its_messages_evenly() {
        let schedule = Schedule::new(1, 40.0, 1, Duration::from_secs(2), Duration::ZERO);
        assert_eq!(schedule.count, 80);
        assert_eq!(schedule.due_ns(40) - schedule.start_ns, 1_000_000_000);
        assert_eq!(schedule.end_ns(), schedule.due_ns(79));
    }

    #[test]
    fn rooms_take_the_messages_in_turn_each_at_its_own_rate() {
        let schedule = Schedule::new(1, 2.0, 5, Duration::from_secs(3), Duration::ZERO);
        assert_eq!((schedule.count, schedule.interval_ns), (30, 100_000_000));
        assert_eq!([0, 4, 5, 29].map(|sequence| schedule.place(sequence)), [(0, 0), (4, 0), (0, 1), (4, 5)]);
        assert!((schedule.seconds() - 3.0).abs() < 1e-9);
    }
}
