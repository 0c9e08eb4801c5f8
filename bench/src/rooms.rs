//! Kafkorama's published case: many rooms of a hundred clients, a message a second into each.

use clap::Args;
use serde::Serialize;

use crate::cli::LoadArgs;
use crate::interrupt::Interrupt;
use crate::limit::{self, Limit, LimitArgs};
use crate::measure::Measured;
use crate::plan::Rooms;
use crate::stand::{Failure, Stand, pass};

/// Flags of `rooms`.
#[derive(Clone, Debug, Args, Serialize)]
#[command(
    mut_arg("connections", |flag| flag.default_value("10000")),
    mut_arg("rate", |flag| flag.default_value("1")),
    mut_arg("payload_bytes", |flag| flag.default_value("512")),
)]
pub struct RoomsArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub load: LoadArgs,
    /// Clients in each room; the rooms are NAME-0, NAME-1 and so on, as many as the clients fill.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub subscribers_per_room: u32,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub limit: LimitArgs,
}

/// Runs `rooms`.
///
/// # Errors
/// If there is no result.
pub fn rooms(arguments: &RoomsArgs, interrupt: &Interrupt) -> Result<(Measured, Option<Limit>), Failure> {
    let load = &arguments.load;
    let rooms = Rooms::of(&load.clients.room, load.run.connections, arguments.subscribers_per_room);
    let count = rooms.count();
    let mut stand = Stand::new(load, rooms, interrupt)?;
    if arguments.limit.find_limit {
        let found = limit::find(&arguments.limit, load, count, &mut stand, interrupt);
        return found.map(|(measured, limit)| (measured, Some(limit)));
    }
    stand.pass(&pass(&load.run, count)).map(|measured| (measured, None))
}
