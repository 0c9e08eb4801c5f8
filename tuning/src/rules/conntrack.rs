//! Rules about connection tracking.
use crate::{
    demand::Quantity,
    profile::Profile,
    rule::{Change, Concerns, Found, Needs, Rule, Sysctl, Term, Weight},
};

pub(super) const ABOUT: &str = "A firewall with state, or NAT, follows every connection in a table. When it is full, the \
    kernel drops the first packet of each new one. Best is not to follow the gateway's ports at all (`notrack`).";

pub(super) static RULES: &[Rule] = &[Rule {
    id: "net.netfilter.nf_conntrack_max",
    title: "connections that conntrack follows",
    concerns: Concerns::Both,
    weight: Weight::Stops,
    read: |tree| {
        // The module may be loaded without a rule that uses it; then it follows nothing.
        if tree.number("proc/sys/net/netfilter/nf_conntrack_count")?.unwrap_or(0) == 0 {
            return Ok(Found::Unused("conntrack follows nothing here"));
        }
        super::number(tree, "proc/sys/net/netfilter/nf_conntrack_max")
    },
    needs: Needs::AtLeast(&[
        Term { times: 1, of: Quantity::Connections, what: "" },
        Term { times: 1, of: Quantity::Tracked, what: "" },
    ]),
    effect: "new connections time out, of every service of the host; the kernel's log says `table full, dropping packet`",
    change: Change::Sysctl(Sysctl {
        values: &[(Profile::Gateway, "1310720"), (Profile::GatewayLowmem, "262144"), (Profile::Loadgen, "1310720")],
        raises: true,
        namespaced: false,
        memory_min: 0,
    }),
    risk: "about 320 bytes of kernel memory for each entry in use",
    source: "https://docs.kernel.org/networking/nf_conntrack-sysctl.html",
}];
