//! Connections that come through a proxy: whose they are, those say who are trusted, before all else or in the first head.

use std::net::IpAddr;

use halley_protocol::forwarded;
use halley_protocol::proxy::{self, Header};
use halley_ring::{Ring, Slot};

use crate::networks::Counted;
use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::chunks::{ChunkIndex, Chunks};
use super::conn::flag;
use super::settings::{ClientAddress, ListenerSettings};

impl<R: Ring> Shard<R> {
    /// A connection begins. It counts in its network as soon as its client's address is known.
    pub(super) fn begin_peer(&mut self, slot: Slot) -> Result<(), CloseReason> {
        let peer = self.table.peer(slot);
        let listener = self.listener(slot);
        let is_trusted = listener.trusts(peer.ip());
        match listener.client_address {
            ClientAddress::ProxyProtocol if is_trusted => {
                self.table[slot].set(flag::PROXIED);
                Ok(())
            }
            ClientAddress::ProxyProtocol => Err(CloseReason::ProxyUntrusted),
            // Its head will say.
            ClientAddress::Forwarded(_) if is_trusted => Ok(()),
            ClientAddress::Connection | ClientAddress::Forwarded(_) => self.count_network(slot),
        }
    }

    /// Nothing is done for who may not come, least of all a TLS handshake, without which nothing can be told.
    pub(super) fn refuse_peer(&mut self, slot: Slot, reason: CloseReason) {
        if self.listener(slot).tls.is_some() {
            self.cut(slot, reason);
        } else {
            self.end(slot, reason);
        }
    }

    /// Reads the proxy's header at the front of the chunk; whether the chunk holds the client's bytes now.
    pub(super) fn take_header(&mut self, slot: Slot, chunk: ChunkIndex) -> bool {
        let (bytes, state) = self.chunks.parts(chunk);
        let Header { bytes, source } = match proxy::parse(&bytes[..state.cursor.filled]) {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.keep_or_give(slot, chunk);
                return false;
            }
            Err(_) => {
                self.end_deaf(slot, CloseReason::ProxyMalformed);
                return false;
            }
        };
        self.table[slot].clear(flag::PROXIED);
        if let Some(source) = source {
            self.table.set_peer(slot, source);
        }
        if let Err(reason) = self.count_network(slot) {
            self.drop_chunk(slot);
            self.table[slot].set(flag::DEAF);
            self.refuse_peer(slot, reason);
            return false;
        }
        if self.table[slot].has(flag::TLS) {
            self.hand_to_tls(slot, chunk, bytes);
            return false;
        }
        let (held, state) = self.chunks.parts(chunk);
        held.copy_within(bytes..state.cursor.filled, 0);
        state.cursor.filled -= bytes;
        true
    }

    /// What lies behind the header is TLS.
    fn hand_to_tls(&mut self, slot: Slot, chunk: ChunkIndex, from: usize) {
        let filled = self.chunks.parts(chunk).1.cursor.filled;
        let start = Chunks::start(chunk);
        if from < filled {
            self.receive_tls(slot, start + from..start + filled);
            self.mark_ready(slot);
        }
        self.drop_chunk(slot);
    }

    /// The client's address by the head of its upgrade, which is known from here on.
    pub(super) fn take_forwarded(
        &mut self,
        slot: Slot,
        chunk: ChunkIndex,
        head_bytes: usize,
    ) -> Result<(), CloseReason> {
        let peer = self.table.peer(slot);
        let listener = &self.settings.listeners[usize::from(self.table[slot].listener)];
        let ClientAddress::Forwarded(by) = listener.client_address else { return Ok(()) };
        if !listener.trusts(peer.ip()) || self.table[slot].has(flag::COUNTED) {
            return Ok(());
        }
        let head = &self.chunks.parts(chunk).0[..head_bytes];
        let client = forwarded::client(head, by, peer, |address| listener.trusts(address));
        self.table.set_peer(slot, client);
        self.count_network(slot)
    }

    /// Counts a connection in the network of its client, unless there are as many as may be.
    fn count_network(&mut self, slot: Slot) -> Result<(), CloseReason> {
        let most = self.settings.network_connections_max;
        if most == 0 {
            return Ok(());
        }
        match self.settings.networks.take(self.table.peer(slot).ip(), most) {
            Counted::Yes => self.table[slot].set(flag::COUNTED),
            Counted::NoPlace => self.stats().network_uncounted.add(1),
            Counted::Full => return Err(CloseReason::NetworkFull),
        }
        Ok(())
    }

    /// The connection counts no more.
    pub(super) fn forget_network(&mut self, slot: Slot) {
        if self.table[slot].has(flag::COUNTED) && !planted(Bug::NetworkKept) {
            self.table[slot].clear(flag::COUNTED);
            self.settings.networks.give(self.table.peer(slot).ip());
        }
    }
}

impl ListenerSettings {
    /// Whether what comes from this address is a proxy whose word is taken.
    fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }
}
