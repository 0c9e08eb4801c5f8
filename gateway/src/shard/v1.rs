//! What a client of goim v1 says: few operations, and any other ends the connection.

use halley_protocol::packet::Packet;
use halley_protocol::{operation, v1};
use halley_ring::{Ring, Slot};

use crate::reason::CloseReason;

use super::Shard;
use super::chunks::ChunkIndex;
use super::close::append_packet;
use super::conn::{Phase, flag};
use super::requests::Request;

impl<R: Ring> Shard<R> {
    /// Serves one packet. The first one must be the login.
    pub(super) fn serve_v1(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request) -> Result<(), CloseReason> {
        match (self.table[slot].phase, request.operation) {
            (Phase::Login, operation::AUTH) => self.ask_control(slot, chunk, request),
            (Phase::Open, operation::HEARTBEAT) => {
                self.heard_heartbeat(slot);
                // goim v1 clears the body on TCP and forgets to on WebSocket.
                if self.table[slot].has(flag::WEBSOCKET) {
                    self.echo_body(slot, chunk, request, operation::HEARTBEAT_REPLY);
                } else {
                    self.reply_to(slot, request, operation::HEARTBEAT_REPLY, &[]);
                }
            }
            (Phase::Open, v1::SEND) => self.echo_body(slot, chunk, request, v1::PUSH),
            (Phase::Open, v1::TEST) => self.reply_to(slot, request, v1::TEST_REPLY, v1::TEST_BODY),
            _ => return Err(CloseReason::OperationUnknown),
        }
        Ok(())
    }

    /// Replies with the request's own body.
    fn echo_body(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request, operation: i32) {
        let (bytes, _) = self.chunks.parts(chunk);
        let body = &bytes[request.body.clone()];
        let packet = Packet { version: request.version, operation, sequence: request.sequence, body };
        append_packet(&mut self.reply, self.table[slot].has(flag::WEBSOCKET), &packet);
    }
}
