//! What a thread's clients do when their target has TLS: a handshake before everything else, and records.

use std::io;
use std::sync::Arc;

use halley_ring::client::{Actions, Client};

use super::{Crew, State};

impl Crew {
    pub(super) fn is_secure(&self, client: Client) -> bool {
        self.plan.tls.is_some() && self.plan.target(self.first + client.0).secure
    }

    /// Begins the handshake; the client counts as connecting until it is complete.
    pub(super) fn begin_tls(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        let plan = Arc::clone(&self.plan);
        let Some(config) = &plan.tls else { return Ok(()) };
        self.secured.begin(actions, client, config, plan.target(self.first + client.0))
    }

    /// Opens records, and hears what they hold.
    pub(super) fn opened(&mut self, actions: &mut Actions, client: Client, records: &[u8]) -> io::Result<()> {
        let mut data = std::mem::take(&mut self.opened);
        data.clear();
        let established = match self.secured.open(client, records, &mut data) {
            Ok(established) => established,
            Err(error) => return self.break_off(actions, client, &format!("TLS failed: {error}")),
        };
        self.secured.send(actions, client, &[])?;
        if established && self.session(client).state == State::Connecting {
            self.connected(actions, client)?;
        }
        if !data.is_empty() {
            self.heard(actions, client, &data)?;
        }
        self.opened = data;
        Ok(())
    }
}
