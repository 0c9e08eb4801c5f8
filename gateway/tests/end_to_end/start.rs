//! Configurations that cannot be started: one sentence, an exit code that is not 0, nothing half-started.

use std::process::Output;

use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport, folder_with, halley, output};

/// The one sentence on standard error.
fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.trim_end().lines().count(), 1, "one line: {text}");
    assert!(text.starts_with("halley: "), "{text}");
    text
}

#[test]
fn a_taken_port_is_one_sentence_and_the_first_gateway_goes_on() {
    let first = Gateway::open();
    let mut client = Client::login(first.tcp(), Transport::Tcp, "{}");
    let taken = |address: std::net::SocketAddr, bound: &str| {
        let configuration =
            format!("{OPEN}{LISTENERS}").replacen(bound, &bound.replace("127.0.0.1:0", &address.to_string()), 1);
        let text = sentence(&output(&configuration, None));
        assert!(text.contains("the port is taken") && text.contains(&address.to_string()), "{text}");
        text
    };
    assert!(taken(first.tcp(), "[[listener]]\nbind = \"127.0.0.1:0\"").contains("listener[0].bind"));
    assert!(taken(first.api, "[api]\nbind = \"127.0.0.1:0\"").contains("api.bind"));
    client.expect_quiet();
    assert_eq!(first.get("/readyz").status, 200);
}

#[test]
fn more_connections_than_files_are_one_sentence() {
    let configuration = format!("{OPEN}{LISTENERS}").replace("connections_max = 256", "connections_max = 100000");
    let configuration = configuration.replace("shards = 2\n", "");
    let text = sentence(&output(&configuration, Some("ulimit -n 1000")));
    for part in ["halley.toml:1", "connections_max", "100000", "RLIMIT_NOFILE 1000", "LimitNOFILE", "at most 64000"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_configuration_error_names_file_line_and_key() {
    for (from, to, parts) in [
        ("auth = \"none\"", "auht = \"none\"", &["halley.toml:5", "auht"][..]),
        ("shards = 2", "shards = 100", &["halley.toml:2", "shards", "1 to 64"]),
        ("transport = \"ws\"", "transport = 7", &["halley.toml:12", "listener[1].transport"]),
        (
            "transport = \"ws\"",
            "outbox_bytes_max = 2048",
            &["halley.toml:12", "outbox_bytes_max", "shard.run_bytes_max"],
        ),
        ("login = \"open\"", "login = \"refuse\"", &["halley.toml:6", "no listener lets anybody in"]),
        ("auth = \"none\"", "", &["halley.toml:3", "api.tokens", "/dev/urandom"]),
    ] {
        let text = sentence(&output(&format!("{OPEN}{LISTENERS}").replace(from, to), None));
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

#[test]
fn a_folder_for_positions_that_is_not_there_is_one_sentence_of_the_start_and_of_the_check() {
    let kafka = "[kafka]\nbrokers = [\"127.0.0.1:1\"]\nposition_file = \"/no/such/positions.json\"\n";
    let configuration = format!("{OPEN}{LISTENERS}{kafka}");
    let started = sentence(&output(&configuration, None));
    assert!(started.contains("kafka.position_file: /no/such/positions.json: there is no folder /no/such"), "{started}");
    let folder = folder_with(&configuration);
    let mut check = halley();
    check.args(["--config", "halley.toml", "--check-config"]).current_dir(folder.path());
    assert_eq!(sentence(&check.output().expect("the binary starts")), started);
}
