//! Rules about the ports that a load generator, or a proxy in front, connects from.
use crate::{
    demand::Quantity,
    profile::Profile,
    rule::{Change, Concerns, Found, Needs, Rule, Sysctl, Term, Weight},
    tree::{list, unexpected},
};

pub(super) const ABOUT: &str = "Each connection from one address to one address and port needs a port of its own at the \
    side that connects. A gateway does not connect, so it needs none; a generator does, and so does a TLS proxy in front of \
    the gateway.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "net.ipv4.ip_local_port_range",
        title: "ports to connect from (ip_local_reserved_ports left out)",
        concerns: Concerns::Loadgen,
        weight: Weight::Stops,
        read: |tree| {
            let path = "proc/sys/net/ipv4/ip_local_port_range";
            match tree.numbers::<2>(path)? {
                None => Ok(Found::Unknown),
                Some([first, last]) if last >= first => {
                    let reserved = tree.word("proc/sys/net/ipv4/ip_local_reserved_ports")?.unwrap_or_default();
                    let reserved =
                        list(&reserved).ok_or_else(|| unexpected("proc/sys/net/ipv4/ip_local_reserved_ports"))?;
                    let taken = reserved.iter().filter(|port| (first..=last).contains(port)).count() as u64;
                    Ok(Found::Number(last - first + 1 - taken))
                }
                Some(_) => Err(unexpected(path)),
            }
        },
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::PerAddress, what: "" }]),
        effect: "connect fails with EADDRNOTAVAIL",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::Loadgen, "1024 65535")],
            raises: false,
            namespaced: true,
            memory_min: 0,
        }),
        risk: "a service that starts later may find its port in use; list such ports in net.ipv4.ip_local_reserved_ports",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (ip_local_port_range)",
    },
    Rule {
        id: "net.ipv4.tcp_tw_reuse",
        title: "whether a port in TIME_WAIT may be used again: 0 no, 1 yes, 2 on loopback",
        concerns: Concerns::Loadgen,
        weight: Weight::Slows,
        read: |tree| super::word(tree, "proc/sys/net/ipv4/tcp_tw_reuse"),
        needs: Needs::OneOf(&["1", "2"]),
        effect: "a run that follows another within a minute finds its ports in TIME_WAIT",
        change: Change::Sysctl(Sysctl {
            values: &[(Profile::Loadgen, "1")],
            raises: false,
            namespaced: true,
            memory_min: 0,
        }),
        risk: "none for a generator: timestamps tell old packets from new ones",
        source: "https://docs.kernel.org/networking/ip-sysctl.html (tcp_tw_reuse)",
    },
];
