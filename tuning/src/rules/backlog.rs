//! Rules about connections that nobody has accepted yet.
use crate::{
    demand::Quantity,
    profile::Profile,
    rule::{Change, Concerns, Found, Needs, Rule, Sysctl, Term, Weight},
};

pub(super) const ABOUT: &str = "Clients that have finished the TCP handshake wait in a listener's queue until a shard \
    accepts them. The gateway asks for the longest queue that the host allows. The queue of a listener holds one more than \
    the number says; a client that finds it full is not refused, it tries again after a second, then after two.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "net.core.somaxconn",
        title: "clients that may wait for accept, each listener",
        concerns: Concerns::Gateway,
        weight: Weight::Slows,
        read: |tree| super::number(tree, "proc/sys/net/core/somaxconn"),
        needs: Needs::AtLeast(&[Term {
            times: 1,
            of: Quantity::Burst,
            what: "clients in a quarter of a second at 20,000 a second",
        }]),
        effect: "when more come at once, as after a restart, they wait for a retry; nstat counts TcpExtListenOverflows",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::Gateway, "32768"), (Profile::GatewayLowmem, "16384")],
            raises: true,
            namespaced: true,
            memory_min: 0,
        }),
        risk: "none worth naming: a waiting client costs memory only while it waits",
        source: "https://docs.kernel.org/admin-guide/sysctl/net.html",
    },
    Rule {
        id: "net.ipv4.tcp_syncookies",
        title: "what happens when the queue of half-open connections is full",
        concerns: Concerns::Gateway,
        weight: Weight::Slows,
        read: |tree| super::number(tree, "proc/sys/net/ipv4/tcp_syncookies"),
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::One, what: "(on)" }]),
        effect: "without cookies a flood of SYNs, or a crowd that comes back at once, shuts others out",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::Gateway, "1"), (Profile::GatewayLowmem, "1")],
            raises: true,
            namespaced: true,
            memory_min: 0,
        }),
        risk: "none: they are used only when the queue is full; such a connection may lack window scaling",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_syncookies)",
    },
    Rule {
        id: "net.ipv4.tcp_max_syn_backlog",
        title: "half-open connections of a listener",
        concerns: Concerns::Gateway,
        weight: Weight::Slows,
        read: |tree| {
            let cookies = tree.number("proc/sys/net/ipv4/tcp_syncookies")?;
            if cookies.is_some_and(|cookies| cookies > 0) {
                return Ok(Found::Unused("with syncookies the listener's own queue counts"));
            }
            super::number(tree, "proc/sys/net/ipv4/tcp_max_syn_backlog")
        },
        needs: Needs::AtLeast(&[Term {
            times: 1,
            of: Quantity::Burst,
            what: "clients in a quarter of a second at 20,000 a second",
        }]),
        effect: "SYNs beyond it are dropped; clients try again after a second",
        change: Change::ByHand("turn tcp_syncookies on: then it is not used"),
        risk: "none",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_max_syn_backlog)",
    },
    Rule {
        id: "net.core.netdev_max_backlog",
        title: "packets that wait for one CPU, loopback included",
        concerns: Concerns::Loadgen,
        weight: Weight::Slows,
        read: |tree| super::number(tree, "proc/sys/net/core/netdev_max_backlog"),
        needs: Needs::AtLeast(&[Term {
            times: 10_000,
            of: Quantity::One,
            what: "packets: a large burst over loopback",
        }]),
        effect: "a generator on the gateway's own host sees drops that no network would cause; cards with NAPI do not use it",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::Loadgen, "10000")],
            raises: true,
            namespaced: false,
            memory_min: 0,
        }),
        risk: "longer queues, and so longer waits, on an overloaded CPU",
        source: "https://docs.kernel.org/admin-guide/sysctl/net.html#netdev-max-backlog",
    },
];
