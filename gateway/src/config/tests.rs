//! What a configuration may say, and how it is told what is wrong.

use std::collections::BTreeSet;

use super::*;

pub(super) const OPEN: &str = "[api]\nauth = \"none\"\n[[listener]]\nbind = \"127.0.0.1:0\"\nlogin = \"open\"\n";

pub(super) fn host() -> Host {
    Host { cpus: vec![0, 1], files_max: 20_000, memory_bytes: 16 << 30 }
}

pub(super) fn file(text: &str) -> Sources {
    Sources { file: Some(("halley.toml".into(), text.into())), environment: Vec::new() }
}

fn with_environment(mut sources: Sources, variables: &[(&str, &str)]) -> Sources {
    sources.environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    sources
}

fn error(sources: &Sources) -> String {
    Config::load(sources, &host()).expect_err("a broken rule").to_string()
}

fn jwt_key(lines: &str) -> String {
    format!("{OPEN}[[jwt.keys]]\nkid = \"k\"\n{lines}\n")
}

#[test]
fn keys_of_tokens_have_an_end_and_names_of_their_own() {
    let key = |kid: usize| {
        format!("[[jwt.keys]]\nkid = \"{kid}\"\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n")
    };
    let with = |keys: &str| file(&format!("{}{keys}", OPEN.replace("open", "jwt")));
    let many: Vec<_> = (0..65).map(key).collect();
    assert!(error(&with(&many.concat())).contains("65 keys: at most 64"));
    assert!(error(&with(&(key(1) + &key(1)))).contains("jwt.keys[1].kid: \"1\" is also the name of another key"));
    let printed = Config::load(&with(&many[..64].concat()), &host()).expect("as many as there may be").to_toml();
    assert!(!printed.contains("0123456789abcdef"), "secrets are hidden");
    assert!(error(&file(&printed)).contains("at least 32 are needed"), "and not taken for ones");
}

// long: a table of mistakes
#[test]
fn errors_name_file_line_key_and_what_would_be_right() {
    let listener = |line: &str| format!("{OPEN}{line}\n");
    let cases: &[(String, &[&str])] = &[
        (String::new(), &["halley.toml:", "api.tokens", "head -c 32 /dev/urandom"]),
        ("[api]\nauth = \"none\"".into(), &["listener", "no listener lets anybody in", "login = \"open\"", "--dev"]),
        ("[api]\nauth = \"none\"\n[[listener]]\nbind = \"127.0.0.1:0\"".into(), &["no listener lets anybody in"]),
        ("[api]\ntokens = [\"short\"]".into(), &["halley.toml:2: api.tokens", "at least 16"]),
        ("[api]\nbinf = 1".into(), &["halley.toml:2", "unknown field `binf`", "`bind`"]),
        ("shards = \"two\"".into(), &["halley.toml:1: shards", "\"auto\" or a number"]),
        ("shards = 65".into(), &["halley.toml:1: shards", "1 to 64"]),
        ("connections_max = ".into(), &["halley.toml:1"]),
        ("\"a\\nb\" = 1".into(), &["halley.toml:1: a\\nb: unknown field"]),
        (listener("transport = \"udp\""), &["halley.toml:6: listener[0].transport", "udp", "`tcp` or `ws`"]),
        (format!("{OPEN}[api_v1]\n"), &["halley.toml:6: api_v1.auth", "api.tokens", "\"none\""]),
        (
            format!("{OPEN}[api_v1]\nauth = \"none\"\nbind = \"127.0.0.1:3111\""),
            &["halley.toml:8: api_v1.bind", "also the address of api.bind"],
        ),
        (listener("dialect = \"echo\""), &["listener[0].dialect", "transport = \"ws\""]),
        (OPEN.replace("open", "jwt"), &["halley.toml:5: listener[0].login", "[[jwt.keys]]"]),
        (listener("dialect = \"goim-v1\"").replace("open", "jwt"), &["listener[0].login", "goim v1", "goim-v2"]),
        (jwt_key("algorithm = \"HS512\""), &["halley.toml:8: jwt.keys[0].algorithm", "`HS256`"]),
        (jwt_key("algorithm = \"HS256\""), &["jwt.keys[0].algorithm", "secret or secret_file"]),
        (jwt_key("algorithm = \"HS256\"\nsecret = \"short\""), &["jwt.keys[0].secret", "at least 32", "openssl rand"]),
        (
            jwt_key("algorithm = \"ES256\"\npublic_key_file = \"/nowhere.pem\""),
            &["halley.toml:9: jwt.keys[0].public_key_file", "cannot read /nowhere.pem"],
        ),
        (
            jwt_key("algorithm = \"ES256\"\npublic_key_file = \"/proc/self/status\""),
            &["jwt.keys[0].public_key_file", "no public key of ES256 in PEM"],
        ),
        (jwt_key("algorithm = \"ES256\"\nsecret = \"x\""), &["jwt.keys[0].algorithm", "public_key_file"]),
        (
            jwt_key("algorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"").replace("\"k\"", "\"\""),
            &["halley.toml:7: jwt.keys[0].kid", "is empty"],
        ),
        (format!("{OPEN}[jwt]\nleeway_s = 3601"), &["halley.toml:7: jwt.leeway_s", "0 to 3600"]),
        (OPEN.replace("open", "hook"), &["listener[0].login", "set hooks.login_url"]),
        (OPEN.replace("127.0.0.1:0", "nowhere"), &["halley.toml:4: listener[0].bind", "\"0.0.0.0:3101\""]),
        (
            "[api]\nauth = \"none\"\n[[listener]]\nlogin = \"open\"".into(),
            &["halley.toml:3: listener[0].bind", "is missing"],
        ),
        (listener("tls = true"), &["halley.toml:6: listener[0].tls", "boolean"]),
        (listener("tls = {}"), &["halley.toml:6: listener[0].tls.certificates", "chain.pem"]),
        (
            listener("tls = { certificates = [{ certificate = \"no-such.pem\", key = \"a.key\" }] }"),
            &["halley.toml:6: listener[0].tls.certificates[0].certificate", "cannot read no-such.pem"],
        ),
        (listener("tls = { version_min = \"1.1\" }"), &["halley.toml:6: listener[0].tls", "1.1", "`1.2` or `1.3`"]),
        (format!("[api]\nauth = \"none\"\n[api.tls]\n{}", &OPEN[20..]), &["halley.toml:3: api.tls.certificates"]),
        (format!("{OPEN}[kafka]\nbrokers = []"), &["halley.toml:7: kafka.brokers", "127.0.0.1:9092"]),
        (format!("{OPEN}{KAFKA}start = \"now\""), &["halley.toml:8: kafka.start", "\"latest\""]),
        (format!("{OPEN}{KAFKA}client = {{ acks = 1 }}"), &["halley.toml:8: kafka.client", "acks", "Halley"]),
        (
            format!("{OPEN}{KAFKA}client = {{ \"transactional.id\" = \"t\" }}"),
            &["halley.toml:8: kafka.client", "transactional.id", "Halley", "remove it"],
        ),
        (
            format!("{OPEN}{KAFKA}client = {{ \"enable.gapless.guarantee\" = true }}"),
            &["halley.toml:8: kafka.client", "enable.gapless.guarantee", "Halley", "remove it"],
        ),
        (format!("{OPEN}{KAFKA}client = {{ \"no.such\" = 1 }}"), &["halley.toml:8: kafka.client", "no.such"]),
        (format!("{OPEN}{KAFKA}client = {{ \"client.id\" = [] }}"), &["kafka.client", "client.id", "plain value"]),
        (format!("{OPEN}{KAFKA}dead_letter_topic = \"goim-push-topic\""), &["kafka.dead_letter_topic", "another"]),
        (format!("{OPEN}{KAFKA}nodes_topic = \"goim-push-topic\""), &["kafka.nodes_topic", "kafka.topic", "another"]),
        (format!("{OPEN}{KAFKA}node_ms_max = 10"), &["halley.toml:8: kafka.node_ms_max", "1000 to"]),
        (format!("{OPEN}[nodes]\nname = \"a/b\""), &["halley.toml:7: nodes.name", "no slash"]),
        (format!("{OPEN}[upstream]"), &["halley.toml:6: upstream", "kafka_topic or url"]),
        (format!("{OPEN}[upstream]\nkafka_topic = \"x\""), &["upstream.kafka_topic", "[kafka]"]),
        (format!("{OPEN}{KAFKA}[upstream]\nkafka_topic = \"goim-push-topic\""), &["upstream.kafka_topic", "another"]),
        (format!("{OPEN}{URL}kafka_topic = \"x\""), &["halley.toml:7: upstream.url", "one place"]),
        (format!("{OPEN}[upstream]\nurl = \"hooks/x\""), &["halley.toml:7: upstream.url", "http://host"]),
        (format!("{OPEN}{URL}operations = [4, \"7-3\"]"), &["halley.toml:8: upstream.operations", "1000-1999"]),
        (format!("{OPEN}{URL}operations = [12]"), &["halley.toml:8: upstream.operations", "12 has a meaning"]),
        (format!("{OPEN}{URL}operations = []"), &["upstream.operations", "1 to 64"]),
        (format!("{OPEN}{URL}message_bytes_max = 4097"), &["halley.toml:8: upstream.message_bytes_max", "1 to 4096"]),
        (listener("path = \"sub\""), &["listener[0].path", "\"/sub\""]),
        (listener("origins = [\"https://a\"]"), &["listener[0].origins", "transport = \"ws\""]),
        (listener("outbox_bytes_max = 16000"), &["listener[0].outbox_bytes_max", "shard.run_bytes_max", "16384"]),
        (listener("login_ms_max = 0"), &["halley.toml:6: listener[0].login_ms_max", "100 to"]),
        (listener("send_buffer_bytes = 1"), &["send_buffer_bytes", "4096 to"]),
        (format!("key_connections_max = 0\n{OPEN}"), &["halley.toml:1: key_connections_max", "1 to 1024"]),
        (format!("{OPEN}[shard]\npinned_bytes_max = 1"), &["halley.toml:7: shard.pinned_bytes_max", "out of range"]),
        (format!("{OPEN}[log]\nlevel = \"a=b=c\""), &["halley.toml:7: log.level", "info"]),
        (format!("{OPEN}[log]\nlevel = \"inof\""), &["halley.toml:7: log.level", "info"]),
        (
            OPEN.replace("auth", "bind = \"127.0.0.1:4000\"\nauth").replace("127.0.0.1:0", "127.0.0.1:4000"),
            &["listener[0].bind", "also the address of api.bind"],
        ),
    ];
    told(cases);
}

/// That each of these is refused in one sentence with these parts.
fn told(cases: &[(String, &[&str])]) {
    for (text, parts) in cases {
        let error = error(&file(text));
        assert!(!error.contains('\n'), "one sentence: {error}");
        for part in *parts {
            assert!(error.contains(part), "{text:?} says {error:?}, which lacks {part:?}");
        }
    }
}

#[test]
fn an_endpoint_of_upstream_that_could_not_be_called_is_refused() {
    told(&[
        (
            format!("{OPEN}[upstream]\nurl = \"http://a:b@c/\""),
            &["halley.toml:7: upstream.url", "upstream.authorization"],
        ),
        (
            format!("{OPEN}{URL}authorization = \"a\\n\""),
            &["halley.toml:8: upstream.authorization", "no value of a header"],
        ),
        (
            format!("{OPEN}[upstream]\nurl = \"https://a/\"\nca_file = \"no-such.pem\""),
            &["halley.toml:8: upstream.ca_file", "cannot read no-such.pem"],
        ),
    ]);
}

#[test]
fn an_api_without_tokens_does_not_start_and_one_with_a_token_does() {
    let text = OPEN.replace("auth = \"none\"", "tokens = [\"0123456789abcdef\"]");
    assert_eq!(Config::load(&file(&text), &host()).expect("a token").settings.api.auth, Auth::Token);
    assert!(error(&file(&text.replace("[\"0123456789abcdef\"]", "[]"))).contains("api.tokens"));
}

#[test]
fn tokens_have_an_end_names_scopes_and_no_doubles() {
    let hash = |n: usize| TokenHash::of(n.to_string().as_bytes());
    let entry = |n: usize, name: &str, scopes: &str| {
        format!("{{ name = \"{name}\", hash = \"{}\", scopes = [{scopes}] }}", hash(n))
    };
    let with = |tokens: &str| file(&OPEN.replace("auth = \"none\"", &format!("tokens = [{tokens}]")));
    let many: Vec<_> = (0..257).map(|n| entry(n, &format!("n{n}"), "\"push\"")).collect();
    let both = [entry(1, "a", "\"push\""), entry(2, "a", "\"read\"")].join(",");
    let same = [entry(1, "a", "\"push\""), entry(1, "b", "\"read\"")].join(",");
    for (tokens, part) in [
        (many.join(","), "at most 256"),
        (entry(1, "", "\"push\""), "1 to 64"),
        (entry(1, &"n".repeat(65), "\"push\""), "1 to 64"),
        (entry(1, "a b", "\"push\""), "without blank"),
        (entry(1, "a", ""), "\"a\" may do nothing"),
        (entry(1, "a", "\"write\""), "`push`, `read`, `admin`"),
        (entry(1, "a", "\"push\"").replace("sha256", "md5"), "64 hexadecimal digits"),
        (entry(1, "a", "\"push\"").replace("name", "nam"), "unknown field `nam`"),
        ("7".into(), "a token, or a table"),
        (both, "two tokens are named \"a\""),
        (same, "tokens 1 and 2 are the same"),
    ] {
        let error = error(&with(&tokens));
        assert!(error.contains("api.tokens") && error.contains(part), "{error} lacks {part}");
    }
    let config = Config::load(&with(&many[..256].join(",")), &host()).expect("as many as there may be");
    assert_eq!(Config::load(&file(&config.to_toml()), &host()).expect("printed"), config, "hashes are no secret");
    let mixed = format!("\"0123456789abcdef\", {}", many[0]);
    let scopes: Vec<_> = Config::load(&with(&mixed), &host()).expect("right").settings.api.tokens;
    assert_eq!(scopes.iter().map(|token| token.scopes().len()).collect::<Vec<_>>(), [3, 1]);
}

#[test]
fn whose_word_is_taken_for_an_address_is_said_exactly_where_one_is() {
    let with = |api: &str, listener: &str| {
        file(&format!(
            "[api]\nauth = \"none\"\n{api}\n[[listener]]\nbind = \"127.0.0.1:0\"\nlogin = \"open\"\n{listener}\n"
        ))
    };
    let many: Vec<_> = (0..65).map(|at| format!("\"10.0.{at}.0/24\"")).collect();
    let by_proxy = |trusted: &str| format!("client_address = \"proxy-protocol\"\ntrusted_proxies = [{trusted}]");
    for (api, listener, parts) in [
        ("", "client_address = \"proxy-protocol\"", "listener[0].trusted_proxies: is empty"),
        ("", "trusted_proxies = [\"10.0.0.0/8\"]", "listener[0].trusted_proxies: says whose word"),
        ("", &by_proxy("\"10.0.0.1/8\""), "write \"10.0.0.0/8\""),
        ("", &by_proxy("\"10.0.0.0/40\""), "is no network"),
        ("", &by_proxy(&many.join(",")), "65 networks: at most 64"),
        (
            "",
            "client_address = \"forwarded\"\ntrusted_proxies = [\"::1\"]",
            "listener[0].client_address: headers come only over",
        ),
        ("client_address = \"x-forwarded-for\"", "", "api.trusted_proxies: is empty"),
        (&by_proxy("\"::1\""), "", "api.client_address: the API reads no header"),
        ("client_address = \"x-real-ip\"", "", "`connection`"),
    ] {
        let error = error(&with(api, listener));
        assert!(error.contains(parts), "{error} lacks {parts}");
    }
    let right = with("client_address = \"forwarded\"\ntrusted_proxies = [\"::1\"]", &by_proxy(&many[..64].join(",")));
    let config = Config::load(&right, &host()).expect("right");
    assert_eq!(Config::load(&file(&config.to_toml()), &host()).expect("printed"), config);
}

#[test]
fn goim_v1_has_its_own_port_and_heartbeat_and_lets_nobody_push_by_default() {
    let text = format!("{OPEN}dialect = \"goim-v1\"\n[api_v1]\n")
        .replace("auth = \"none\"", "tokens = [\"0123456789abcdef\"]");
    let settings = Config::load(&file(&text), &host()).expect("right").settings;
    let api_v1 = settings.api_v1.expect("it is there");
    assert_eq!((api_v1.bind.to_string(), api_v1.auth), ("127.0.0.1:7172".into(), Auth::Token));
    assert_eq!(settings.listener[0].heartbeat_ms_max, Some(300_000));
    let settings = Config::load(&file(&format!("{OPEN}heartbeat_ms_max = 7000\n")), &host()).expect("right").settings;
    assert_eq!((settings.listener[0].heartbeat_ms_max, settings.api_v1), (Some(7000), None));
}

#[test]
fn the_environment_goes_over_the_file() {
    let sources = with_environment(
        file(&format!("shards = 1\n{OPEN}")),
        &[
            ("HALLEY__SHARDS", "2"),
            ("HALLEY__API__BIND", "[::1]:0"),
            ("HALLEY__NODES__BACKOFF__FACTOR", "2.5"),
            ("PATH", "/bin"),
        ],
    );
    let settings = Config::load(&sources, &host()).expect("right").settings;
    assert_eq!(settings.shards, Shards::Count(2));
    assert_eq!(settings.api.bind.to_string(), "[::1]:0");
    assert!((settings.nodes.backoff.factor - 2.5).abs() < f64::EPSILON);
    assert_eq!(settings.api.auth, Auth::None, "what the environment leaves open is the file's");
}

#[test]
fn an_error_in_the_environment_names_the_variable() {
    for (variable, value, part) in [
        ("HALLEY__SHARDS", "many", ["shards", "\"auto\" or a number"]),
        ("HALLEY__SHARDS", "0", ["shards", "1 to 64"]),
        ("HALLEY__API__BINF", "x", ["api.binf", "unknown field `binf`"]),
        ("HALLEY__API__BIND", "bad", ["api.bind", "\"bad\" is no address"]),
        ("HALLEY__API__BIND", "4000", ["api.bind", "expected a string"]),
        ("HALLEY__API__AUTH", "maybe", ["api.auth", "`token` or `none`"]),
        ("HALLEY__API", "x", ["api", "expected struct"]),
        ("HALLEY__CONNECTIONS_MAX", "-1", ["connections_max", "-1"]),
        ("HALLEY__UPSTREAM__URL", "hooks/x", ["upstream.url", "http://host"]),
        ("HALLEY__UPSTREAM", "{ url = \"hooks/x\" }", ["upstream.url", "http://host"]),
        ("HALLEY__UPSTREAM__ANSWER_MS_MAX", "700", ["upstream", "kafka_topic or url"]),
        ("HALLEY__JWT__KEYS", "[{ kid = \"\", algorithm = \"HS256\" }]", ["jwt.keys[0].kid", "is empty"]),
        ("HALLEY__JWT__KEYS", "[{ kid = \"k\", algorithm = \"HS1\" }]", ["jwt.keys[0].algorithm", "`HS256`"]),
        ("HALLEY__LISTENER__0__BIND", "x", ["listener", "[\"…\"]"]),
        ("HALLEY__DEV__TCP", "127.0.0.1:0", ["dev", "only --dev"]),
        ("HALLEY__", "x", ["", "unknown field"]),
    ] {
        let error = error(&with_environment(file(OPEN), &[(variable, value)]));
        let [key, problem] = part;
        assert!(error.starts_with(&format!("environment {variable}: {key}")) && error.contains(problem), "{error}");
    }
    for (variable, value, part) in [
        ("HALLEY__DEV__TCP", "bad", "HALLEY__DEV__TCP: listener[0].bind: \"bad\" is no address"),
        ("HALLEY__DEV__WS", "7", "HALLEY__DEV__WS: listener[1].bind: invalid type: integer `7`"),
        ("HALLEY__DEV__WSS", "127.0.0.1:0", "HALLEY__DEV__CERTIFICATE: listener[2].tls.certificates[0].certificate: "),
        ("HALLEY__DEV__KEY", "7", "HALLEY__DEV__KEY: listener[2].tls.certificates[0].key: invalid type"),
        ("HALLEY__DEV__WSX", "7", "HALLEY__DEV__WSX: dev.wsx: is no key: use HALLEY__DEV__TCP, "),
        ("HALLEY__DEV", "7", "HALLEY__DEV: dev: is no key: use HALLEY__DEV__TCP, "),
        (
            "HALLEY__API__BIND",
            "127.0.0.1:3101",
            "HALLEY__DEV__TCP: listener[0].bind: 127.0.0.1:3101 is also the address of",
        ),
        ("HALLEY__API__BIND", "0.0.0.0:0", "HALLEY__API__BIND: api.bind: --dev lets anybody in"),
    ] {
        let error = error(&with_environment(Sources::default(), &[(variable, value)]));
        assert!(error.starts_with(&format!("environment {part}")), "{error}");
    }
}

#[test]
fn an_error_between_two_keys_names_the_variable_that_set_either() {
    let sources = with_environment(file(OPEN), &[("HALLEY__SHARD__RUN_BYTES_MAX", "1000000")]);
    let said = error(&sources);
    assert!(
        said.contains("listener[0].outbox_bytes_max") && said.contains("by HALLEY__SHARD__RUN_BYTES_MAX"),
        "{said}"
    );
    let of_the_file = with_environment(file("shards = 0"), &[("HALLEY__API__BIND", "127.0.0.1:0")]);
    assert!(error(&of_the_file).starts_with("halley.toml:1: shards"), "{}", error(&of_the_file));
}

#[test]
fn dev_opens_both_transports_on_loopback_and_nothing_else() {
    let config = Config::load(&Sources::default(), &host()).expect("dev needs nothing");
    assert!(config.dev);
    let listeners: Vec<_> =
        config.settings.listener.iter().map(|l| (l.transport, l.bind.to_string(), l.login)).collect();
    assert_eq!(
        listeners,
        [
            (Transport::Tcp, "127.0.0.1:3101".into(), Login::Open),
            (Transport::Ws, "127.0.0.1:3102".to_owned(), Login::Open)
        ]
    );
    assert_eq!((config.settings.api.bind.to_string(), config.settings.api.auth), ("127.0.0.1:3111".into(), Auth::None));

    let moved =
        [("HALLEY__DEV__TCP", "127.0.0.1:0"), ("HALLEY__DEV__WS", "[::1]:7"), ("HALLEY__API__BIND", "127.0.0.1:9")];
    let config = Config::load(&with_environment(Sources::default(), &moved), &host()).expect("moved");
    assert_eq!(config.settings.listener[0].bind.to_string(), "127.0.0.1:0");
    assert_eq!(config.settings.listener[1].bind.to_string(), "[::1]:7");
    assert_eq!(config.settings.api.bind.to_string(), "127.0.0.1:9");

    let secure = [("HALLEY__DEV__CERTIFICATE", "no-such.pem"), ("HALLEY__DEV__KEY", "no-such.key")];
    let said = error(&with_environment(Sources::default(), &secure));
    let place = "environment HALLEY__DEV__CERTIFICATE: listener[2].tls.certificates[0].certificate";
    assert!(said.starts_with(&format!("{place}: cannot read no-such.pem")), "{said}");

    for variable in ["HALLEY__DEV__TCP", "HALLEY__DEV__WS", "HALLEY__API__BIND"] {
        let error = error(&with_environment(Sources::default(), &[(variable, "0.0.0.0:3101")]));
        assert!(error.contains(variable) && error.contains("loopback") && error.contains("--config"), "{error}");
    }
}

#[test]
fn a_printed_configuration_reads_back_as_itself() {
    let text = format!(
        "connections_max = 1000\nkey_policy = \"share\"\n{OPEN}origins = []\nslow_policy = \"close\"\n[nodes]\nweight = 3"
    );
    let config = Config::load(&file(&text), &host()).expect("right");
    let again = Config::load(&file(&config.to_toml()), &host()).expect("printed");
    assert_eq!(again, config);
    assert_eq!(again.settings.key_connections_max, Some(16));
}

#[test]
fn a_printed_configuration_keeps_its_tokens_to_itself() {
    let text = OPEN.replace("auth = \"none\"", "tokens = [\"0123456789abcdef\"]");
    let printed = Config::load(&file(&text), &host()).expect("right").to_toml();
    assert!(!printed.contains("0123456789abcdef") && printed.contains(HIDDEN), "{printed}");
    assert!(error(&file(&printed)).contains("api.tokens"), "and is not taken for one with a token");
}

#[test]
fn shards_grow_until_the_connections_fit_the_limit_of_open_files() {
    let plan = |head: &str| Config::load(&file(&format!("{head}\n{OPEN}")), &host()).map(|config| config.plan);
    let default = plan("").expect("default");
    assert_eq!((default.connections_max, default.shards, default.shard_connections_max), (40_000, 2, 20_000));

    let million = plan("connections_max = 1000000").expect("more shards");
    assert_eq!((million.shards, million.shard_connections_max), (50, 20_000));
    assert_eq!(&million.cpus[..4], &[0, 1, 0, 1]);

    let few = plan("connections_max = 101").expect("few");
    assert_eq!((few.shards, few.shard_connections_max), (2, 51));
    assert_eq!([0, 1].map(|shard| few.connections_of(shard)), [51, 50], "together not one more than allowed");

    for (head, parts) in [
        ("connections_max = 1000000\nshards = 2", ["needs"; 0].as_slice()),
        ("connections_max = 2000000", &["1280000"]),
    ] {
        let error = plan(head).expect_err("too many").to_string();
        for part in [&["halley.toml:1: connections_max", "RLIMIT_NOFILE 20000", "LimitNOFILE"], parts].concat() {
            assert!(error.contains(part), "{error}");
        }
    }
}

#[test]
fn the_default_of_connections_max_leaves_memory_to_others() {
    let host = Host { cpus: vec![3], files_max: 1 << 30, memory_bytes: 1 << 30 };
    let plan = Config::load(&file(OPEN), &host).expect("right").plan;
    assert!(u64::from(plan.connections_max) * 4096 < 1 << 30, "{plan:?}");
    assert_eq!(plan.cpus, [3]);
}

#[test]
fn this_machine_can_be_read() {
    let host = Host::read().expect("linux");
    assert!(!host.cpus.is_empty() && host.files_max > 0 && host.memory_bytes > 0, "{host:?}");
}

/// Every key that settings have, as a path without indices, with its value.
fn flatten(prefix: &str, value: &toml::Value, out: &mut BTreeSet<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(&if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, value, out);
            }
        }
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for item in items {
                flatten(prefix, item, out);
            }
        }
        value => {
            out.insert((prefix.into(), value.to_string()));
        }
    }
}

const URL: &str = "[upstream]\nurl = \"http://127.0.0.1:1/\"\n";
const KAFKA: &str = "[kafka]\nbrokers = [\"127.0.0.1:1\"]\n";

#[test]
fn a_printed_configuration_keeps_kafkas_passwords_to_itself() {
    let text = format!("{OPEN}{KAFKA}[kafka.client]\n\"sasl.username\" = \"u\"\n\"sasl.password\" = \"open sesame\"");
    let printed = Config::load(&file(&text), &host()).expect("right").to_toml();
    assert!(!printed.contains("sesame") && printed.contains("\"u\""), "{printed}");
}

#[test]
fn every_key_is_documented_with_its_default() {
    let client = toml::Table::from_iter([("*".to_owned(), "".into())]);
    let tls = Tls { certificates: vec![CertificateFiles::default()], ..Tls::default() };
    let settings = Settings {
        connections_max: Some(1),
        key_connections_max: Some(1),
        api: Api { tls: Some(tls.clone()), ..Api::default() },
        listener: vec![Listener { tls: Some(tls), heartbeat_ms_max: Some(1), ..Listener::default() }],
        api_v1: Some(ApiV1::default()),
        kafka: Some(Kafka { client, ..Kafka::default() }),
        upstream: Some(Upstream::default()),
        jwt: Jwt { keys: vec![JwtKey::default()], ..Jwt::default() },
        ..Settings::default()
    };
    let mut code = BTreeSet::new();
    flatten("", &toml::Value::try_from(&settings).expect("plain"), &mut code);
    let names = |keys: &BTreeSet<(String, String)>| keys.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let documented: BTreeSet<_> = KEYS.iter().map(|key| (key.name.to_owned(), key.default.to_owned())).collect();
    assert_eq!(names(&documented), names(&code));
    for (name, default) in &documented {
        if !default.starts_with('(') && !default.is_empty() {
            assert!(code.contains(&(name.clone(), default.clone())), "{name} is not {default} by default");
        }
    }
}

#[test]
fn the_page_on_configuration_is_that_of_the_code() {
    let page = include_str!("../../../docs/configuration.md");
    let table = table();
    assert!(page.contains(&table), "docs/configuration.md needs this table:\n{table}");
}
