//! What the service manager hears (`sd_notify(3)`): ready, reloading, stopping, and that every shard still turns.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;

use super::app::App;

/// How often the status line is told where no watchdog sets a period.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// A shard that has nothing to do turns every 100 ms; a shorter look would see one asleep.
const PERIOD_MIN: Duration = Duration::from_millis(150);

/// The gateway serves; it is told again after a reload.
pub(super) fn ready(app: &App) {
    let plan = &app.config().plan;
    let status = format!("serving up to {} connections in {} shards", plan.connections_max, plan.shards);
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The configuration is read anew; [`ready`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The drain begins.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Tells the status from now on, and feeds the watchdog as long as every shard turns. A task of control: if control
/// stands still, so does the watchdog's food.
pub(super) fn spawn(app: Arc<App>) {
    // The protocol's own variables, read where they are used.
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // Half of it, so that one late look does no harm.
    let period = sd_notify::watchdog_enabled().map_or(STATUS_PERIOD, |limit| (limit / 2).max(PERIOD_MIN));
    monoio::spawn(async move {
        let mut progress = Progress::default();
        loop {
            monoio::time::sleep(period).await;
            let stuck = progress.stuck(app.links.iter().map(|link| link.stats.turns.get()));
            // A shard that has drained turns no more; how long that may take is the drain's own affair.
            if let Some(shard) = stuck.filter(|_| !app.draining.load(Ordering::Relaxed)) {
                tracing::error!(event = "stuck", shard, period_ms = period.as_millis(), "no turn");
                continue;
            }
            let status = format!("{} connections", app.directory.connections());
            tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
        }
    });
}

/// Turns of every shard at the last look.
#[derive(Debug, Default)]
struct Progress {
    turns: Vec<u64>,
}

impl Progress {
    /// The first shard that has not turned since the last look; the first look finds none.
    fn stuck(&mut self, turns: impl Iterator<Item = u64>) -> Option<usize> {
        let now: Vec<u64> = turns.collect();
        let stuck = now.iter().zip(&self.turns).position(|(now, before)| now == before);
        self.turns = now;
        stuck
    }
}

/// A service manager that does not listen is no reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_that_does_not_turn_is_found_among_others_that_do() {
        let mut progress = Progress::default();
        assert_eq!(progress.stuck([0, 0].into_iter()), None, "the first look");
        assert_eq!(progress.stuck([5, 1].into_iter()), None);
        assert_eq!(progress.stuck([9, 1].into_iter()), Some(1));
        assert_eq!(progress.stuck([10, 2].into_iter()), None, "it turns again");
    }
}
