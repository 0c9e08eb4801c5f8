//! Rules about open files.
use crate::{
    demand::{FILE_TABLE_MAX, Quantity},
    limits,
    profile::Profile,
    rule::{Change, Concerns, Found, Needs, Rule, Sysctl, Term, Weight},
};

pub(super) const ABOUT: &str = "Sockets of clients live in the file table of a ring, one ring a shard. The kernel checks \
    the size of each table against RLIMIT_NOFILE, not the sum of them: two shards hold twice the limit. Each socket is \
    still an open file of the host.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "limit.nofile",
        title: "RLIMIT_NOFILE, hard: entries of one ring's file table",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| Ok(super::limit(limits::hard(tree, "Max open files")?)),
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::PerRing, what: "" }]),
        effect: "the gateway refuses `connections_max` beyond it at start; with fewer set, the next client waits in the backlog",
        change: Change::ByHand(
            "`LimitNOFILE=1048576` in the unit (the drop-ins have it), `ulimit -Hn` in a shell; or more shards, up to 64",
        ),
        risk: "none for the gateway; a program that closes every possible descriptor at its start gets slow",
        source: "https://man7.org/linux/man-pages/man2/getrlimit.2.html",
    },
    Rule {
        id: "io_uring.file-table",
        title: "the kernel's own maximum of a ring's file table",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |_| Ok(Found::Number(FILE_TABLE_MAX)),
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::PerRing, what: "" }]),
        effect: "the gateway refuses `connections_max` beyond 64 full tables at start",
        change: Change::ByHand("none: use more shards, or another node"),
        risk: "a push to a large room meets every shard, so many shards cost time on each push",
        source: "https://man7.org/linux/man-pages/man2/io_uring_register.2.html",
    },
    Rule {
        id: "fs.nr_open",
        title: "ceiling of RLIMIT_NOFILE",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| super::number(tree, "proc/sys/fs/nr_open"),
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::PerRing, what: "" }]),
        effect: "a higher LimitNOFILE= cannot be set: systemd does not start the unit, `ulimit` fails",
        change: Change::ByHand("`sysctl -w fs.nr_open=1048576`, which is the kernel's default"),
        risk: "programs started with unlimited files may allocate large descriptor tables",
        source: "https://docs.kernel.org/admin-guide/sysctl/fs.html#nr-open",
    },
    Rule {
        id: "fs.file-max",
        title: "open files of the whole host",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| super::number(tree, "proc/sys/fs/file-max"),
        needs: Needs::AtLeast(&[
            Term { times: 1, of: Quantity::Connections, what: "" },
            Term { times: 1, of: Quantity::FilesOpen, what: "" },
            Term { times: 4, of: Quantity::Rings, what: "files" },
            Term { times: 64, of: Quantity::One, what: "of the gateway's own" },
        ]),
        effect: "accept fails with ENFILE, and so does every other program's open (processes with CAP_SYS_ADMIN are exempt)",
        change: Change::Sysctl(Sysctl {
            values: &[
                (Profile::Gateway, "4194304"),
                (Profile::GatewayLowmem, "1048576"),
                (Profile::Loadgen, "4194304"),
            ],
            raises: true,
            namespaced: false,
            memory_min: 0,
        }),
        risk: "none: it is a ceiling, memory is taken only by files that are open",
        source: "https://docs.kernel.org/admin-guide/sysctl/fs.html#file-max-file-nr",
    },
];
