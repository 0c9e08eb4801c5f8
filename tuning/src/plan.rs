//! Capacity planning: what so many connections and messages need, on how many nodes, and what that rests on.
#![allow(clippy::cast_precision_loss, reason = "a plan is right to a few percent, not to the last bit of an integer")]

use std::fmt::Write as _;

use serde::Serialize;

use crate::{
    costs::{CONNECTION_BYTES, DELIVERY_NS, KERNEL_BYTES, PROCESS_BYTES, SHARD_BYTES, USER_BYTES},
    demand::{CONNECTIONS_MAX, SHARDS_MAX},
    rule::grouped,
};

/// Bytes around a payload: goim's header, a WebSocket header, and TCP, IPv4 and Ethernet with their gaps.
const FRAME_BYTES: u64 = 16 + 4 + 32 + 20 + 38;

/// Bytes of the keys and state of a connection over TLS, in the gateway, as measured (`docs/benchmarks/`).
const TLS_BYTES: u64 = 2_200;

/// What `--tls` adds, and does not.
const TLS_ASSUMPTION: &str = "With --tls 2,200 bytes a connection are added, as measured. Nothing is added for the CPU time of TLS: a tenth or two of a small delivery, and some 140 us for each handshake.";

/// How busy a core may be in a plan, percent: the rest is for bursts and for one node less.
const BUSY_PERCENT: u64 = 70;

/// How much of the memory and of the link a plan uses, percent.
const FULL_PERCENT: u64 = 80;

/// Bytes a second that one Kafka partition takes easily.
const PARTITION_BYTES: u64 = 10_000_000;

/// What is to be carried.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Traffic {
    /// Clients, all nodes together.
    pub connections: u64,
    /// Rooms, with the clients spread evenly, one room each.
    pub rooms: u64,
    /// Messages a second to each room.
    pub rate: f64,
    /// Bytes of a payload.
    pub bytes: u64,
    /// Whether connections are over TLS, which the gateway ends.
    pub tls: bool,
}

/// What one node has.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Node {
    /// Cores for shards.
    pub cores: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bits a second of its link.
    pub link_bits: u64,
}

/// What the traffic needs, all nodes together, and how many nodes that is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    /// Asked for.
    pub traffic: Traffic,
    /// Asked for.
    pub node: Node,
    /// Messages times connections, a second.
    pub deliveries_per_second: f64,
    /// CPU seconds a second, if no messages are joined.
    pub cores: f64,
    /// Of the gateway's processes.
    pub user_bytes: u64,
    /// Of the kernel, for sockets.
    pub kernel_bytes: u64,
    /// Of TLS, in the gateway's processes.
    pub tls_bytes: u64,
    /// Sent to clients, bits a second, headers included.
    pub link_bits: f64,
    /// Nodes that CPU time, memory, link and file tables ask for, and the most of them.
    pub nodes_for: NodesFor,
    /// The most of `nodes_for`, and one more for the failure of one.
    pub nodes: u64,
    /// Partitions of the topic of pushes.
    pub kafka_partitions: u64,
}

/// Nodes by what they run out of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NodesFor {
    /// CPU time.
    pub cpu: u64,
    /// Memory.
    pub memory: u64,
    /// The link.
    pub link: u64,
    /// Places in file tables.
    pub files: u64,
}

impl Plan {
    /// The arithmetic.
    pub fn new(traffic: Traffic, node: Node) -> Self {
        let messages = traffic.rate * traffic.rooms as f64;
        let deliveries = traffic.rate * traffic.connections as f64;
        let cores = deliveries * DELIVERY_NS as f64 / 1e9;
        let tls_bytes = if traffic.tls { traffic.connections * TLS_BYTES } else { 0 };
        let user_bytes = traffic.connections * USER_BYTES;
        let kernel_bytes = traffic.connections * KERNEL_BYTES;
        let link_bits = deliveries * (traffic.bytes + FRAME_BYTES) as f64 * 8.0;
        let fixed = PROCESS_BYTES + node.cores * SHARD_BYTES;
        let usable = (node.memory_bytes * FULL_PERCENT / 100).saturating_sub(fixed).max(1);
        let share = |percent: u64, of: u64| (of * percent) as f64 / 100.0;
        let nodes_for = NodesFor {
            cpu: whole(cores / share(BUSY_PERCENT, node.cores.max(1))),
            memory: (user_bytes + kernel_bytes + tls_bytes).div_ceil(usable).max(1),
            link: whole(link_bits / share(FULL_PERCENT, node.link_bits.max(1))),
            files: traffic.connections.div_ceil(CONNECTIONS_MAX).max(1),
        };
        let most = nodes_for.cpu.max(nodes_for.memory).max(nodes_for.link).max(nodes_for.files);
        Self {
            traffic,
            node,
            deliveries_per_second: deliveries,
            cores,
            user_bytes,
            kernel_bytes,
            tls_bytes,
            link_bits,
            nodes_for,
            nodes: most + 1,
            kafka_partitions: whole(messages * (traffic.bytes + FRAME_BYTES) as f64 / PARTITION_BYTES as f64),
        }
    }

    /// For people: the result first, then each line with its arithmetic, then what it rests on.
    pub fn text(&self) -> String {
        let Self { traffic, node, nodes_for, .. } = self;
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let mut text = format!(
            "{} nodes of {} cores, {:.0} GB and {} Gbit/s for {} connections ({} are enough while all are up)\n\n",
            self.nodes,
            node.cores,
            gigabytes(node.memory_bytes),
            node.link_bits / 1_000_000_000,
            grouped(traffic.connections),
            self.nodes - 1,
        );
        let mut say = |what: &str, how: String| {
            let _ = writeln!(text, "  {what:<11} {how}");
        };
        say(
            "deliveries",
            format!(
                "{} messages/s to each room × {} connections = {:.0}/s",
                traffic.rate,
                grouped(traffic.connections),
                self.deliveries_per_second
            ),
        );
        say(
            "CPU",
            format!(
                "{:.2} cores = deliveries × {DELIVERY_NS} ns: {} nodes at {BUSY_PERCENT} % busy",
                self.cores, nodes_for.cpu
            ),
        );
        say(
            "memory",
            format!(
                "{:.2} GB = connections × {} bytes ({:.2} kernel, {:.2} gateway, {:.2} TLS): {} nodes at {FULL_PERCENT} % full",
                gigabytes(self.user_bytes + self.kernel_bytes + self.tls_bytes),
                CONNECTION_BYTES + if traffic.tls { TLS_BYTES } else { 0 },
                gigabytes(self.kernel_bytes),
                gigabytes(self.user_bytes),
                gigabytes(self.tls_bytes),
                nodes_for.memory,
            ),
        );
        say(
            "link",
            format!(
                "{:.2} Gbit/s = deliveries × ({} + {FRAME_BYTES}) bytes: {} nodes at {FULL_PERCENT} % full",
                self.link_bits / 1e9,
                traffic.bytes,
                nodes_for.link
            ),
        );
        say("files", format!("{SHARDS_MAX} shards × 1,048,576 places: {} nodes", nodes_for.files));
        say("Kafka", format!("{} partitions at 10 MB/s each; every node reads all of them", self.kafka_partitions));
        text.push_str(&assumptions());
        text
    }
}

/// What the numbers are from, with the numbers themselves.
fn assumptions() -> String {
    format!(
        "\nWhat this rests on\n\
         \x20 - {} ns a delivery: measured over loopback on a 2-core VM, with the receiver's protocol work in it, and without\n\
         \x20   joining. A busy server joins messages and needs less; a network card may need more or less. Measure on your own.\n\
         \x20 - {} bytes of kernel memory a connection: Linux 6.18, x86-64, idle, IPv4. One page more while bytes are in flight.\n\
         \x20 - {} bytes of the gateway a connection: one room, a generated key. What slow clients may hold is in docs/limits.md.\n\
         \x20 - Each delivery is a packet of its own with {FRAME_BYTES} bytes of headers; joined ones share them. Received bytes are not counted.\n\
         \x20 - {TLS_ASSUMPTION}\n\
         \x20 - One node more than needed, so that one may fail or restart.\n",
        grouped(DELIVERY_NS),
        grouped(KERNEL_BYTES),
        grouped(USER_BYTES),
    )
}

/// At least one, rounded up.
fn whole(number: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of nodes, positive and small")]
    let whole = number.ceil().max(1.0) as u64;
    whole
}
