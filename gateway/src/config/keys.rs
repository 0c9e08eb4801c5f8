//! Every key with its default and meaning, for `docs/configuration.md`; a test compares both with the code.

use std::fmt::Write as _;

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The path, such as `api.bind`.
    pub name: &'static str,
    /// The default as written in TOML, or in brackets what it depends on.
    pub default: &'static str,
    /// What it does, in a line.
    pub meaning: &'static str,
}

const fn key(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, default, meaning }
}

/// Every key, in the order of the file.
pub const KEYS: &[Key] = &[
    key("connections_max", "(what RLIMIT_NOFILE and memory allow)", "Connections of the process; printed at start."),
    key(
        "shards",
        "\"auto\"",
        "Threads that hold connections, 1 to 64. `\"auto\"`: one per CPU of the inherited affinity mask, raised until `connections_max` fits the limit of open files, which counts per shard.",
    ),
    key("key_connections_max", "(1, or 16 with `share`)", "Connections that one key may have."),
    key(
        "key_policy",
        "\"replace\"",
        "At that limit: `replace` closes the oldest connection, `refuse` refuses the login. `share`: a key has several on purpose; beyond the limit logins are refused.",
    ),
    key(
        "accepts_per_second_max",
        "0",
        "Connections accepted a second, all shards together; others wait in the kernel's queue. 0: as many as come.",
    ),
    key(
        "accepts_burst_max",
        "0",
        "Connections accepted at once after a pause; 0: as many as `accepts_per_second_max`.",
    ),
    key(
        "memory_bytes_max",
        "0",
        "With more than this in memory (resident, without the kernel's part) no more connections are accepted, until a sixteenth of it is free. 0: any.",
    ),
    key(
        "drain_grace_ms",
        "0",
        "From SIGTERM, when `/readyz` turns 503, to the end of accepting. Behind a load balancer: as long as it takes to notice.",
    ),
    key(
        "drain_window_ms",
        "20000",
        "A drain's clients are sent away, and come back, evenly over this time, a thousand a second at least; 0: all at once.",
    ),
    key("drain_ms_max", "30000", "Longest drain after SIGTERM, its grace included."),
    key("shard.run_bytes_max", "16384", "Bytes of messages joined into one send when a room has several waiting."),
    key("shard.run_messages_max", "256", "Messages of such a run."),
    key(
        "shard.room_pending_bytes_max",
        "4194304",
        "Bytes that may wait in a room behind a pass under way; more is dropped as `room-behind`.",
    ),
    key(
        "shard.pinned_bytes_max",
        "67108864",
        "Bytes of runs held for slow connections in one shard; beyond it the connection at hand is closed (`outbox-pool`).",
    ),
    key("shard.outbox_entries_max", "262144", "Entries of all outboxes of a shard, 16 bytes each."),
    key("shard.partials_max", "1024", "Buffers of a shard for packets that arrived in part."),
    key("shard.sends_per_turn_max", "4096", "Sends before a shard looks at its reads and orders again."),
    key("shard.accepts_armed_max", "16", "Accepts a shard keeps armed on each listener."),
    key(
        "compression.level",
        "6",
        "How pushes are compressed for clients of listeners with `compression`: 1, the fastest, to 9, the smallest.",
    ),
    key("compression.bytes_min", "128", "Pushes with fewer bytes are not compressed."),
    key("limits.rooms_per_connection_max", "64", "Rooms that one connection may be in, 64 at most."),
    key(
        "limits.client_packets_per_second_max",
        "0",
        "Packets that one client may say in a second; one that says more is closed with 4008 (`too-fast`). Pings count. 0: any.",
    ),
    key(
        "limits.client_packets_burst_max",
        "0",
        "Packets that it may say at once after a silence; 0: as many as in a second.",
    ),
    key("limits.client_bytes_per_second_max", "0", "The same of bytes, as they come from its socket. 0: any."),
    key(
        "limits.client_bytes_burst_max",
        "0",
        "Bytes that it may say at once after a silence; 0: as many as in a second.",
    ),
    key(
        "limits.network_connections_max",
        "0",
        "Connections of one source network, logged in or not; who would be one more is closed at once (`network-full`). 0: any.",
    ),
    key("limits.network_v4_bits", "24", "Leading bits of an IPv4 address that are its network, 8 to 32."),
    key("limits.network_v6_bits", "48", "The same of an IPv6 address, 16 to 128."),
    key("limits.room_members_max", "0", "Members of one room; who would be one more is refused. 0: any."),
    key(
        "limits.room_pushes_per_second_max",
        "0",
        "Pushes into one room a second, a second's worth at once (429 beyond). 0: any.",
    ),
    key(
        "limits.room_bytes_per_second_max",
        "0",
        "The same of bytes of bodies; a single push is taken whatever it has.",
    ),
    key("api.bind", "\"127.0.0.1:3111\"", "Address of the HTTP API."),
    key(
        "api.auth",
        "\"token\"",
        "`token`: calls carry `Authorization: Bearer TOKEN`. `none`: whoever reaches the address may call.",
    ),
    key(
        "api.tokens",
        "[]",
        "The tokens: text, for every call, or `{ name = \"…\", hash = \"sha256:…\", scopes = [\"push\"] }` ([above](#tokens-of-the-api)).",
    ),
    key("api.body_bytes_max", "1048576", "Bytes of a request's body (413 beyond)."),
    key("api.connections_max", "256", "HTTP connections at a time; further ones wait."),
    key(
        "api.request_ms_max",
        "10000",
        "How long the head of a request may take to arrive, the wait for it included, again its body (408 beyond), and again the caller to take each 8 KiB of the answer.",
    ),
    key(
        "api.client_address",
        "\"connection\"",
        "Where the address of a caller comes from, for the audit log: `connection`, `x-forwarded-for`, `forwarded` ([proxies](operations/proxies.md)).",
    ),
    key("api.trusted_proxies", "[]", "Networks whose word for it is taken, such as `[\"10.0.0.0/8\"]`."),
    key("api.tls.certificates.certificate", "\"\"", "The same for the API, which then speaks HTTPS only."),
    key("api.tls.certificates.key", "\"\"", "PEM file with its private key."),
    key("api.tls.version_min", "\"1.2\"", "`1.2` or `1.3`: the oldest version of TLS that is spoken."),
    key(
        "api.tls.client_auth",
        "\"none\"",
        "Certificates of clients: `none` asks for none, `optional` refuses bad ones, `required` refuses also who has none.",
    ),
    key("api.tls.client_ca", "\"\"", "PEM file with those who sign the certificates of clients."),
    key("jwt.issuer", "\"\"", "Issuer (`iss`) of the tokens that let clients in; empty: any."),
    key("jwt.audience", "\"\"", "Audience (`aud`) that tokens must be for; empty: those for one are refused."),
    key("jwt.leeway_s", "1", "By how many seconds the clocks of issuer and gateway may differ."),
    key("jwt.keys.kid", "", "Name of a key that tokens are signed with ([identity](identity.md)), as in their header."),
    key("jwt.keys.algorithm", "", "Its only algorithm: `HS256`, `RS256`, `ES256` or `EdDSA`."),
    key("jwt.keys.secret", "\"\"", "The secret of HS256, 32 bytes at least."),
    key("jwt.keys.secret_file", "\"\"", "A file with the secret; space at its end is left out."),
    key("jwt.keys.public_key_file", "\"\"", "A file with the public key of another algorithm, in PEM."),
    key(
        "hooks.login_url",
        "\"\"",
        "The platform's endpoint for logins of listeners with `login = \"hook\"` ([hooks](hooks.md)): `http://…` or `https://…`.",
    ),
    key(
        "hooks.join_url",
        "\"\"",
        "Its endpoint for rooms that are entered, by whatever listener's clients. Empty: nobody is asked.",
    ),
    key(
        "hooks.gone_url",
        "\"\"",
        "Its endpoint that is told, in order, which connections are gone, and why. Empty: nobody is told.",
    ),
    key("hooks.secret", "\"\"", "Signs the calls (HMAC-SHA256), 32 bytes at least; empty: they are not signed."),
    key("hooks.secret_file", "\"\"", "A file with the secret; space at its end is left out."),
    key(
        "hooks.ca_file",
        "\"\"",
        "PEM file with those who may sign the certificate of an `https` endpoint; empty: those of the system.",
    ),
    key(
        "hooks.call_ms_max",
        "3000",
        "How long an answer may take, the wait for a place included; at most `login_ms_max` and `heartbeat_ms_max` of the listeners concerned.",
    ),
    key("hooks.calls_max", "64", "Calls of a hook at a time, each on a connection of its own; further ones wait."),
    key(
        "hooks.pending_max",
        "4096",
        "Logins and joins that wait for an answer; further ones are refused (`hook-busy`).",
    ),
    key("hooks.answer_bytes_max", "65536", "Bytes of an answer; a longer one is none, and its connection is closed."),
    key(
        "hooks.when_down",
        "\"refuse\"",
        "When the endpoint does not answer: `refuse` (1013, `hook-failed`), or `allow`: as with `login = \"open\"`.",
    ),
    key("hooks.gone_batch_max", "100", "Connections that are gone, in one call."),
    key(
        "hooks.gone_queue_max",
        "65536",
        "Connections that are gone and wait to be told of; further ones are not told of, and counted (`dropped`).",
    ),
    key(
        "hooks.gone_tries_max",
        "10",
        "Calls for the same connections, after 1, 2, 4 … seconds, 30 at most; then they are counted (`lost`).",
    ),
    key(
        "api_v1.bind",
        "\"127.0.0.1:7172\"",
        "Address of goim v1's HTTP API. Without `[api_v1]` it is not served. Limits and tokens are those of `[api]`.",
    ),
    key("api_v1.auth", "\"token\"", "As `api.auth`. goim v1's pushers send no token: for them it is `none`."),
    key(
        "nodes.name",
        "\"\"",
        "What other nodes call this one, with eight random digits behind it; empty: this machine's host name.",
    ),
    key("nodes.domain", "\"\"", "Domain told to clients by `/goim/nodes/weighted`; empty: this machine's host name."),
    key("nodes.host_domain", "\"\"", "Appended to the host name for `platform=web`."),
    key("nodes.addresses", "[]", "Public addresses of this node; empty: the domain."),
    key("nodes.tcp_port", "0", "TCP port told to clients; 0: that of the first TCP listener without TLS."),
    key("nodes.ws_port", "0", "WebSocket port told to clients; 0: that of the first WebSocket listener without TLS."),
    key(
        "nodes.wss_port",
        "0",
        "WebSocket-over-TLS port told to clients; 0: that of the first WebSocket listener with TLS, if there is one.",
    ),
    key("nodes.heartbeat_s", "240", "Heartbeat told to clients, seconds."),
    key("nodes.heartbeat_missed_max", "2", "Missed heartbeats after which a client should connect anew."),
    key("nodes.region", "\"\"", "Region of this instance in `/goim/nodes/instances`."),
    key("nodes.zone", "\"\"", "Zone of this instance."),
    key("nodes.env", "\"\"", "Deployment environment of this instance."),
    key("nodes.weight", "10", "Weight of this instance."),
    key("nodes.backoff.max_delay", "300", "Longest delay between attempts to reconnect, seconds, as told to clients."),
    key("nodes.backoff.base_delay", "3", "First delay, seconds."),
    key("nodes.backoff.factor", "1.8", "Growth per attempt."),
    key("nodes.backoff.jitter", "0.3", "Random part of a delay."),
    key(
        "kafka.brokers",
        "[]",
        "Brokers, such as `[\"127.0.0.1:9092\"]`. With `[kafka]` the API produces to the topic, and clients get what is read from it.",
    ),
    key("kafka.topic", "\"goim-push-topic\"", "The topic with the jobs."),
    key(
        "kafka.format",
        "\"auto\"",
        "How jobs are written: `auto`, `halley`, `goim-v2`, `goim-v1`, `plain` ([kafka](kafka.md)).",
    ),
    key(
        "kafka.start",
        "\"latest\"",
        "Where to begin without a position: `latest`, `earliest`, `offset:N`, or `time:N` in milliseconds since 1970.",
    ),
    key(
        "kafka.position_file",
        "\"\"",
        "File with the next offset of each partition; what it names is where a start goes on. Empty: none.",
    ),
    key("kafka.job_age_ms_max", "0", "Older jobs are counted as expired and not dispatched. 0: none is too old."),
    key(
        "kafka.dead_letter_topic",
        "\"\"",
        "Records that are no jobs are produced to it, with the reason in a header. Empty: they are only counted and logged.",
    ),
    key(
        "kafka.nodes_topic",
        "\"\"",
        "Compacted topic in which nodes tell of each other, so that counts span all of them ([kafka](kafka.md#several-nodes)); made if it is not there. Empty: a node counts its own.",
    ),
    key("kafka.node_ms_max", "10000", "A node that is silent for so long does not count any more."),
    key("kafka.node_rooms_max", "65536", "Rooms that a node tells the others of, the largest first."),
    key("kafka.produce_ms_max", "5000", "How long a call waits for Kafka's acknowledgement (503 beyond)."),
    key("kafka.fetched_bytes_max", "4194304", "Bytes of records that are fetched ahead of each partition."),
    key(
        "kafka.client.*",
        "(none)",
        "Properties of librdkafka by their names, such as `\"security.protocol\"`; those that Halley's promises rest on are refused.",
    ),
    key(
        "upstream.kafka_topic",
        "\"\"",
        "Topic that messages of clients are produced to, on the brokers of `[kafka]` ([upstream](upstream.md)). Without `[upstream]` they get goim's empty reply.",
    ),
    key(
        "upstream.url",
        "\"\"",
        "Or an endpoint that they are posted to, `http://…` or `https://…`, such as `\"http://127.0.0.1:8000/messages\"`.",
    ),
    key("upstream.authorization", "\"\"", "Value of the header `Authorization` of these requests; empty: none."),
    key(
        "upstream.ca_file",
        "\"\"",
        "PEM file with those who may sign the certificate of an `https` endpoint; empty: those of the system.",
    ),
    key(
        "upstream.operations",
        "[4]",
        "Operations that are messages: numbers, and ranges such as `\"1000-1999\"`, of 4 and from 18 up.",
    ),
    key("upstream.message_bytes_max", "4096", "Bytes of a message; a longer one is refused (`too-large`)."),
    key(
        "upstream.messages_per_second_max",
        "10",
        "Messages of a connection a second; more are refused (`rate`). 0: as many as it likes.",
    ),
    key("upstream.messages_burst_max", "50", "Messages of a connection at once after a pause."),
    key(
        "upstream.connection_in_flight_max",
        "32",
        "Messages of a connection that wait for their answers; more are refused (`in-flight`).",
    ),
    key(
        "upstream.in_flight_max",
        "16384",
        "Messages of the process that wait for their answers, an equal part for each shard; more are refused (`queue-full`).",
    ),
    key(
        "upstream.answer_ms_max",
        "5000",
        "How long the place may take for a message, and before that a message may wait for its request; then it is refused (`time-out`), with Kafka up to a second later.",
    ),
    key("upstream.requests_max", "8", "HTTP: requests at a time, each on a connection of its own."),
    key("upstream.batch_messages_max", "64", "HTTP: messages of one request."),
    key(
        "log.format",
        "\"auto\"",
        "`json` or `text`: one line per event on standard error. `auto`: entries of systemd's journal where standard error leads to it, else `json`.",
    ),
    key(
        "log.level",
        "\"info\"",
        "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,gateway=debug`.",
    ),
    key(
        "listener.bind",
        "",
        "Address to listen on: `IP:port`, `host:port`, or `:port` for all addresses of IPv4 and IPv6. Port 0: the kernel picks one, shown at start.",
    ),
    key("listener.transport", "\"tcp\"", "`tcp` or `ws`."),
    key(
        "listener.dialect",
        "\"goim-v2\"",
        "What clients speak: `goim-v2`, `goim-v1`. `echo`, over `ws`: every message comes back as it was, to anybody, and nothing is pushed; for tests of the WebSocket layer.",
    ),
    key(
        "listener.login",
        "\"refuse\"",
        "`jwt`: who has a good [token](identity.md), as whom it says. `hook`: whom the platform's [endpoint](hooks.md) lets in, as whom it says. `open`: everybody is who they say; in goim v1, where they say a number, in room 1. `refuse`: nobody gets in.",
    ),
    key(
        "listener.origins",
        "[]",
        "WebSocket: values of `Origin` let in, such as `\"https://example.org\"`; empty: any.",
    ),
    key("listener.path", "(`/sub`, or `/echo` with the dialect `echo`)", "WebSocket: path of the upgrade request."),
    key(
        "listener.send_buffer_bytes",
        "16384",
        "Kernel send buffer of a connection, `SO_SNDBUF` (the kernel doubles it); part of a slow client's bound.",
    ),
    key(
        "listener.outbox_bytes_max",
        "65536",
        "Bytes that may wait for a connection whose send buffer is full; one message always may.",
    ),
    key(
        "listener.stall_ms_max",
        "30000",
        "A connection that takes no byte for this long while some wait is closed (`stalled`).",
    ),
    key(
        "listener.slow_policy",
        "\"drop-newest\"",
        "When the outbox is full: `drop-newest`, `drop-oldest` or `close`. What is dropped is counted.",
    ),
    key("listener.login_ms_max", "5000", "Time to log in (4001 beyond)."),
    key(
        "listener.heartbeat_ms_max",
        "(480000, or 300000 with the dialect `goim-v1`)",
        "Time between heartbeats (4003 beyond).",
    ),
    key("listener.linger_ms_max", "2000", "Time a closing connection gets to read its reason."),
    key(
        "listener.compression",
        "false",
        "WebSocket: agrees to `permessage-deflate` where a client offers it ([compression](protocol.md#compression)).",
    ),
    key(
        "listener.tcp_user_timeout_ms",
        "120000",
        "`TCP_USER_TIMEOUT`: unacknowledged bytes end the connection after this, and so does silence behind a keepalive \
         probe, whatever the retries: below `keepalive_ms` one lost probe is enough. 0: the kernel's rule.",
    ),
    key("listener.keepalive_ms", "60000", "Silence before TCP keepalive probes; 0: none."),
    key(
        "listener.client_address",
        "\"connection\"",
        "Where the address of a client comes from: `connection`, its own; `proxy-protocol`, the header that a proxy puts before all \
         else; over `ws` also `x-forwarded-for` or `forwarded`, a header of the upgrade ([proxies](operations/proxies.md)).",
    ),
    key(
        "listener.trusted_proxies",
        "[]",
        "Networks whose word for it is taken, such as `[\"10.0.0.0/8\", \"fd00::/8\"]`. With `proxy-protocol` nobody else gets in.",
    ),
    key(
        "listener.tls.certificates.certificate",
        "\"\"",
        "PEM file with a certificate, and behind it those that lead to a root; `tls = { certificates = [{ certificate = \"…\", key = \"…\" }] }` \
         makes a listener one of TLS. Of several certificates a client gets the one with the name it asks for, else the first ([TLS](tls.md)).",
    ),
    key("listener.tls.certificates.key", "\"\"", "PEM file with its private key."),
    key("listener.tls.version_min", "\"1.2\"", "`1.2` or `1.3`: the oldest version of TLS that is spoken."),
    key(
        "listener.tls.client_auth",
        "\"none\"",
        "Certificates of clients: `none` asks for none, `optional` refuses bad ones, `required` refuses also who has none.",
    ),
    key("listener.tls.client_ca", "\"\"", "PEM file with those who sign the certificates of clients."),
];

/// The table of `docs/configuration.md`.
pub fn table() -> String {
    let mut out = String::from("| key | default | meaning |\n|---|---|---|\n");
    for Key { name, default, meaning } in KEYS {
        let default = match default.strip_prefix('(').and_then(|text| text.strip_suffix(')')) {
            Some(text) => text.to_owned(),
            None if default.is_empty() => "required".into(),
            None => format!("`{default}`"),
        };
        let _ = writeln!(out, "| `{name}` | {default} | {meaning} |");
    }
    out
}
