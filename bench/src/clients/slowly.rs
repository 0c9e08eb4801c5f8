//! Clients that are slow on purpose: they stop reading, or read so many bytes a second.

use std::io;
use std::time::Duration;

use halley_ring::client::{Actions, Client, READ_BYTES_MAX};

use super::{Crew, State};
use crate::clock;

/// From one read of a slow client to its next; shorter if it would be longer than a buffer.
const TICK: Duration = Duration::from_millis(100);

/// The most bytes a second that is slow: a full buffer each 10 ms.
pub const SLOW_BYTES_PER_SECOND_MAX: u32 = READ_BYTES_MAX * 100;

/// The least: a byte each tick of a tenth of a second.
pub const SLOW_BYTES_PER_SECOND_MIN: u32 = 10;

/// How slow clients read.
#[derive(Debug)]
pub(super) struct Pace {
    tick_ns: u64,
    bytes: u32,
    next_ns: u64,
    clients: Vec<Client>,
}

/// The time between two reads, and bytes of each.
fn ticks(bytes_per_second: u32) -> (Duration, u32) {
    let bytes = bytes_per_second / 10;
    if bytes <= READ_BYTES_MAX {
        return (TICK, bytes);
    }
    (Duration::from_secs(1) * READ_BYTES_MAX / bytes_per_second, READ_BYTES_MAX)
}

impl Crew {
    /// Slow clients read so many bytes a second from now on, 0: none; or (none) as others do.
    pub(super) fn slow_down(&mut self, actions: &mut Actions, bytes_per_second: Option<u32>) -> io::Result<()> {
        let numbered = (0..).zip(&self.sessions);
        let slow = numbered.filter(|(_, session)| session.slow && session.state == State::Ready);
        let clients: Vec<Client> = slow.map(|(index, _)| Client(index)).collect();
        self.pace = None;
        for client in &clients {
            if bytes_per_second.is_some() { actions.pause(*client) } else { actions.resume(*client) }?;
        }
        if let Some(some @ 1..) = bytes_per_second {
            let (tick, bytes) = ticks(some);
            self.pace = Some(Pace { tick_ns: clock::nanoseconds(tick), bytes, next_ns: clock::now_ns(), clients });
        }
        Ok(())
    }

    /// Lets slow clients read when it is time; answers how long a sleep may be at most.
    pub(super) fn read_slowly(&mut self, actions: &mut Actions, sleep: Duration) -> io::Result<Duration> {
        let Self { pace: Some(pace), sessions, .. } = self else { return Ok(sleep) };
        let now_ns = clock::now_ns();
        if now_ns >= pace.next_ns {
            for client in &pace.clients {
                if sessions[client.0 as usize].state == State::Ready {
                    actions.read(*client, pace.bytes)?;
                }
            }
            // What was not read in a pause of this thread is not made up for.
            pace.next_ns = now_ns + pace.tick_ns;
        }
        Ok(sleep.min(Duration::from_nanos(pace.next_ns - now_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_small_and_rare_or_whole_buffers_in_quick_succession() {
        assert_eq!(ticks(SLOW_BYTES_PER_SECOND_MIN), (TICK, 1));
        assert_eq!(ticks(1000), (TICK, 100));
        assert_eq!(ticks(READ_BYTES_MAX * 10), (TICK, READ_BYTES_MAX));
        assert_eq!(ticks(READ_BYTES_MAX * 50), (Duration::from_millis(20), READ_BYTES_MAX));
        assert_eq!(ticks(SLOW_BYTES_PER_SECOND_MAX), (Duration::from_millis(10), READ_BYTES_MAX));
    }
}
