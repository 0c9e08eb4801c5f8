//! Rules about the kernel's memory for bytes in flight.
use crate::{
    demand::Quantity,
    profile::Profile,
    rule::{Change, Concerns, Found, Needs, Rule, Sysctl, Term, Weight},
    tree::{HostError, Tree},
};

pub(super) const ABOUT: &str = "An idle socket holds no buffer. A socket with unread or unsent bytes holds about one page \
    (measured: 0.94). So these rules bound how many clients may be in the middle of something at once, not how many may be \
    connected. The gateway sets its send buffers itself (`send_buffer_bytes`), whatever tcp_wmem says.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "net.ipv4.tcp_mem",
        title: "pages of all sockets' buffers, high mark (third number)",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| last(tree, "proc/sys/net/ipv4/tcp_mem"),
        needs: Needs::AtLeast(&[Term {
            times: 1,
            of: Quantity::Connections,
            what: "pages, one a socket with unread or unsent bytes",
        }]),
        effect: "when so many clients have bytes in flight at once, the kernel drops what arrives: pushes stall, sends are repeated",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::Gateway, "786432 1048576 1572864"), (Profile::Loadgen, "786432 1048576 1572864")],
            raises: true,
            namespaced: false,
            memory_min: 16 << 30,
        }),
        risk: "sockets may then hold up to 6 GB; on a small host that is all there is",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_mem)",
    },
    Rule {
        id: "net.ipv4.tcp_rmem",
        title: "receive buffer of a socket, most (third number), bytes",
        concerns: Concerns::Both,
        weight: Weight::Told,
        read: |tree| last(tree, "proc/sys/net/ipv4/tcp_rmem"),
        needs: Needs::Nothing,
        effect: "nothing for idle clients; a small maximum bounds what clients can make the kernel hold while the gateway is behind",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::GatewayLowmem, "4096 16384 262144")],
            raises: false,
            namespaced: true,
            memory_min: 0,
        }),
        risk: "other programs of the host that receive over long distances get slower",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_rmem)",
    },
    Rule {
        id: "net.ipv4.tcp_wmem",
        title: "send buffer of a socket, most (third number), bytes",
        concerns: Concerns::Both,
        weight: Weight::Told,
        read: |tree| last(tree, "proc/sys/net/ipv4/tcp_wmem"),
        needs: Needs::Nothing,
        effect: "nothing: the gateway sets the send buffers of its clients itself, and an idle one holds no memory",
        change: Change::ByHand("nothing to change"),
        risk: "none",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_wmem)",
    },
    Rule {
        id: "net.core.wmem_max",
        title: "largest send buffer that a program may ask for, bytes",
        concerns: Concerns::Gateway,
        weight: Weight::Slows,
        read: |tree| super::number(tree, "proc/sys/net/core/wmem_max"),
        needs: Needs::AtLeast(&[Term {
            times: 16384,
            of: Quantity::One,
            what: "bytes, the default of send_buffer_bytes",
        }]),
        effect: "the kernel cuts `send_buffer_bytes` down silently: clients count as slow sooner",
        change: Change::ByHand("`sysctl -w net.core.wmem_max=212992`, the kernel's default"),
        risk: "none",
        source: "https://docs.kernel.org/admin-guide/sysctl/net.html#wmem-max",
    },
    Rule {
        id: "net.ipv4.tcp_congestion_control",
        title: "congestion control",
        concerns: Concerns::Both,
        weight: Weight::Told,
        read: |tree| super::word(tree, "proc/sys/net/ipv4/tcp_congestion_control"),
        needs: Needs::Nothing,
        effect: "nothing: messages smaller than the first window (about 14 kB) leave at once under each of them",
        change: Change::ByHand("nothing to change"),
        risk: "none",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_congestion_control)",
    },
];

/// The last number of three.
fn last(tree: &Tree, path: &str) -> Result<Found, HostError> {
    Ok(tree.numbers::<3>(path)?.map_or(Found::Unknown, |[.., last]| Found::Number(last)))
}
