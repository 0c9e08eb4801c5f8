//! How much a client may say: for each connection two levels, of packets and of bytes, that rise with what it says and
//! fall steadily.

use bytemuck::Zeroable;
use halley_ring::Slot;

/// Units of one packet or byte: a rate a second lowers a level by as many units in a millisecond.
const ONE: u32 = 1000;

/// The highest rate or burst whose levels fit their field.
pub const RATE_MAX: u32 = 4_000_000;

/// A rate, and what may come at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// In a second, [`RATE_MAX`] at most. 0: any.
    pub per_second: u32,
    /// At once, after a silence, [`RATE_MAX`] at most. 0: as much as in a second.
    pub burst: u32,
}

impl Rate {
    fn burst(self) -> u32 {
        if self.burst == 0 { self.per_second } else { self.burst }
    }

    /// Raises a level; `false` when it would be too high. What comes to an empty one is always taken.
    fn take(self, level: &mut u32, count: u32) -> bool {
        let next = u64::from(*level) + u64::from(count) * u64::from(ONE);
        if *level > 0 && next > u64::from(self.burst()) * u64::from(ONE) {
            return false;
        }
        *level = u32::try_from(next).unwrap_or(u32::MAX);
        true
    }

    fn fall(self, level: &mut u32, elapsed_ms: u32) {
        let less = u64::from(elapsed_ms) * u64::from(self.per_second);
        *level = level.saturating_sub(u32::try_from(less).unwrap_or(u32::MAX));
    }
}

/// How much one client may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRates {
    /// Packets, pings and pongs, and messages that are echoed.
    pub packets: Rate,
    /// Bytes as they come from the socket.
    pub bytes: Rate,
}

/// What a connection has said lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
struct Said {
    /// When the levels fell last; it wraps, after far longer than a connection can be silent.
    fell_ms: u32,
    packets: u32,
    bytes: u32,
    /// Packets a second by its token. 0: those of its listener.
    granted: u32,
}

const _: () = assert!(size_of::<Said>() == 16, "as the memory budget says");

/// What the connections of a shard have said. Memory when a slot with a rate is first used.
pub(super) struct Pace(Box<[Said]>);

impl Pace {
    pub(super) fn new(slots: u32) -> Self {
        Self(bytemuck::zeroed_slice_box(slots as usize))
    }

    /// A new connection has said nothing.
    pub(super) fn begin(&mut self, slot: Slot) {
        // Where there are no rates this only reads, and the memory stays untouched.
        if self.0[slot.at()] != Said::default() {
            self.0[slot.at()] = Said::default();
        }
    }

    /// From here on the connection may say so many packets a second, whatever its listener lets others.
    pub(super) fn grant(&mut self, slot: Slot, packets_per_second: u32) {
        if self.0[slot.at()].granted != packets_per_second {
            self.0[slot.at()].granted = packets_per_second;
        }
    }

    /// Counts a packet; `false`: one too many.
    pub(super) fn packet(&mut self, slot: Slot, rates: ClientRates, now_ms: u64) -> bool {
        let rates = self.rates(slot, rates);
        rates.packets.per_second == 0 || {
            let said = self.said(slot, rates, now_ms);
            rates.packets.take(&mut said.packets, 1)
        }
    }

    /// Counts received bytes; `false`: too many.
    pub(super) fn bytes(&mut self, slot: Slot, rates: ClientRates, now_ms: u64, bytes: u32) -> bool {
        rates.bytes.per_second == 0 || {
            let rates = self.rates(slot, rates);
            let said = self.said(slot, rates, now_ms);
            rates.bytes.take(&mut said.bytes, bytes)
        }
    }

    /// The rates of one connection.
    fn rates(&self, slot: Slot, rates: ClientRates) -> ClientRates {
        match self.0[slot.at()].granted {
            0 => rates,
            granted => {
                let burst = rates.packets.burst().max(granted);
                ClientRates { packets: Rate { per_second: granted, burst }, ..rates }
            }
        }
    }

    /// Its levels as they are now.
    #[allow(clippy::cast_possible_truncation, reason = "only differences count")]
    fn said(&mut self, slot: Slot, rates: ClientRates, now_ms: u64) -> &mut Said {
        let said = &mut self.0[slot.at()];
        let now_ms = now_ms as u32;
        let elapsed_ms = now_ms.wrapping_sub(said.fell_ms);
        said.fell_ms = now_ms;
        rates.packets.fall(&mut said.packets, elapsed_ms);
        rates.bytes.fall(&mut said.bytes, elapsed_ms);
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(1);

    fn rates(packets: (u32, u32), bytes: (u32, u32)) -> ClientRates {
        let rate = |(per_second, burst)| Rate { per_second, burst };
        ClientRates { packets: rate(packets), bytes: rate(bytes) }
    }

    fn packets(pace: &mut Pace, rates: ClientRates, now_ms: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(pace.packet(SLOT, rates, now_ms))).sum()
    }

    #[test]
    fn a_client_may_say_its_burst_and_then_its_rate() {
        let (mut pace, rates) = (Pace::new(2), rates((10, 25), (0, 0)));
        let begin = u64::from(u32::MAX) - 900;
        assert_eq!(packets(&mut pace, rates, begin, 99), 25);
        let later: u32 = (1..=4000).map(|ms| packets(&mut pace, rates, begin + ms, 1)).sum();
        assert_eq!(later, 40, "ten a second, however often it tries, and when the clock wraps");
        assert_eq!(packets(&mut pace, rates, begin + 100_000_000, 99), 25, "what is not used does not pile up");
        pace.begin(SLOT);
        assert_eq!(packets(&mut pace, rates, begin + 100_000_000, 99), 25, "the next one has said nothing");
    }

    #[test]
    fn bytes_are_counted_apart_and_one_read_is_always_taken() {
        let (mut pace, rates) = (Pace::new(2), rates((0, 0), (1000, 0)));
        assert!(pace.bytes(SLOT, rates, 0, 8448));
        assert!(!pace.bytes(SLOT, rates, 8446, 999), "it is paid for first");
        assert!(pace.bytes(SLOT, rates, 8447, 999) && !pace.bytes(SLOT, rates, 8447, 1));
        assert_eq!(packets(&mut pace, rates, 8447, 99), 99);
    }

    #[test]
    fn the_highest_rates_fit_and_without_a_rate_nothing_is_too_much() {
        let (mut pace, most) = (Pace::new(2), rates((RATE_MAX, 0), (RATE_MAX, RATE_MAX)));
        assert!(pace.bytes(SLOT, most, 0, RATE_MAX) && !pace.bytes(SLOT, most, 0, 1));
        assert!(pace.bytes(SLOT, most, 1, 4000) && !pace.bytes(SLOT, most, 1, 1));
        let mut pace = Pace::new(2);
        assert!((0..9).all(|_| pace.bytes(SLOT, ClientRates::default(), 0, u32::MAX)));
        assert_eq!(pace.0[SLOT.at()], Said::default(), "and no memory is touched");
    }

    #[test]
    fn a_token_says_how_many_packets_its_client_may_say() {
        let (mut pace, ten) = (Pace::new(2), rates((10, 0), (0, 0)));
        pace.grant(SLOT, 3);
        assert_eq!(packets(&mut pace, ten, 0, 99), 10, "the burst of its listener");
        assert_eq!(packets(&mut pace, ten, 1000, 99), 3);
        pace.grant(SLOT, 50);
        assert_eq!(packets(&mut pace, ten, 2000, 99), 50);
        assert_eq!(packets(&mut pace, ClientRates::default(), 2000, 99), 0, "also where others may say what they like");
        pace.grant(SLOT, 0);
        assert_eq!(packets(&mut pace, ClientRates::default(), 2000, 99), 99);
    }
}
