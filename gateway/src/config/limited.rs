//! `[limits]`: what one client, one network and one room may take of the gateway.

use serde::{Deserialize, Serialize};

use crate::dispatch::RoomRates;
use crate::limits;
use crate::shard::{ClientRates, Rate};

/// `[limits]`; where it is not said otherwise 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limited {
    /// Rooms of one connection, at least 1.
    pub rooms_per_connection_max: u32,
    /// Packets that one client may say in a second.
    pub client_packets_per_second_max: u32,
    /// Packets that it may say at once; 0: as many as in a second.
    pub client_packets_burst_max: u32,
    /// Bytes that one client may say in a second.
    pub client_bytes_per_second_max: u32,
    /// Bytes that it may say at once; 0: as many as in a second.
    pub client_bytes_burst_max: u32,
    /// Connections of one source network.
    pub network_connections_max: u32,
    /// Leading bits of an IPv4 address that are its network.
    pub network_v4_bits: u8,
    /// The same of an IPv6 address.
    pub network_v6_bits: u8,
    /// Members of one room.
    pub room_members_max: u32,
    /// Pushes into one room a second.
    pub room_pushes_per_second_max: u32,
    /// Bytes of bodies pushed into one room a second.
    pub room_bytes_per_second_max: u32,
}

impl Default for Limited {
    fn default() -> Self {
        Self {
            rooms_per_connection_max: u32::try_from(limits::ROOMS_PER_CONNECTION_MAX).unwrap_or(u32::MAX),
            client_packets_per_second_max: 0,
            client_packets_burst_max: 0,
            client_bytes_per_second_max: 0,
            client_bytes_burst_max: 0,
            network_connections_max: 0,
            network_v4_bits: 24,
            network_v6_bits: 48,
            room_members_max: 0,
            room_pushes_per_second_max: 0,
            room_bytes_per_second_max: 0,
        }
    }
}

impl Limited {
    /// How much one client may say.
    pub fn client_rates(&self) -> ClientRates {
        ClientRates {
            packets: Rate { per_second: self.client_packets_per_second_max, burst: self.client_packets_burst_max },
            bytes: Rate { per_second: self.client_bytes_per_second_max, burst: self.client_bytes_burst_max },
        }
    }

    /// The rates of pushes into one room.
    pub fn room_rates(&self) -> RoomRates {
        RoomRates {
            pushes_per_second: self.room_pushes_per_second_max,
            bytes_per_second: self.room_bytes_per_second_max,
        }
    }
}
