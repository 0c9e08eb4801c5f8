//! Orders on their way into the shards' queues, with room for those that found a queue full.

use std::collections::VecDeque;
use std::sync::Arc;

use super::OrderSink;
use crate::ids::ShardIndex;
use crate::link::ShardLink;
use crate::order::Order;

/// The shards' queues as control fills them. What finds one full waits here, in order.
///
/// Bounded by the rule that control takes a shard's next report only when [`Self::ready`]: what a shard has
/// caused is then in its queue, and what may pile up here comes from others' logins, one close for each of its
/// connections at most, and from the admin's calls, which the caller must bound.
pub struct OutgoingQueues {
    links: Arc<[Arc<ShardLink>]>,
    waiting: Box<[VecDeque<Order>]>,
}

impl OutgoingQueues {
    /// Queues into all shards, in order.
    pub fn new(links: Arc<[Arc<ShardLink>]>) -> Self {
        let waiting = links.iter().map(|_| VecDeque::new()).collect();
        Self { links, waiting }
    }

    /// Moves what waits for the shard into its queue as far as it goes, and says whether nothing waits any more.
    pub fn ready(&mut self, shard: ShardIndex) -> bool {
        let waiting = &mut self.waiting[shard.at()];
        while let Some(order) = waiting.pop_front() {
            if let Err(order) = self.links[shard.at()].put_control(order) {
                waiting.push_front(order);
                return false;
            }
        }
        true
    }

    /// Orders that wait for a place, over all shards.
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }
}

impl OrderSink for OutgoingQueues {
    fn put(&mut self, shard: ShardIndex, order: Order) {
        let ready = self.ready(shard);
        let refused = if ready { self.links[shard.at()].put_control(order).err() } else { Some(order) };
        self.waiting[shard.at()].extend(refused);
    }
}
