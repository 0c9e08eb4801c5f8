//! What an operator sees while something is missing, and that it mends itself when it is there.

use std::net::TcpListener;

use xtask::kafka::Broker;

use crate::shell;
use crate::world::{
    Wire, Writer, broker, client, configuration, folder, gateway, grow, jars, room_job, source, topic, unready,
    until_state,
};

#[test]
fn partitions_added_while_running_are_read_from_their_beginning() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "");
    let mut client = client(&gateway, "k", "r");
    grow(broker, &topic, 3);
    let writer = Writer::new(broker, &topic);
    writer.put(&Wire { partition: Some(2), ..room_job("r", "first of the third") });
    client.expect_push(1000, "first of the third");
    writer.put(&Wire { partition: Some(0), ..room_job("r", "the first goes on") });
    client.expect_push(1000, "the first goes on");
}

#[test]
fn a_topic_that_does_not_exist_yet_is_told_and_read_from_its_beginning() {
    let Some(broker) = broker() else { return };
    let gateway = unready(&broker.address(), "not-yet", "");
    until_state(&gateway, "topic-missing");
    assert!(source(&gateway)["detail"].as_str().is_some_and(|detail| detail.contains("not-yet")));
    let mut client = client(&gateway, "k", "r");
    broker.create_topic("not-yet", 1).expect("a topic");
    Writer::new(broker, "not-yet").put(&room_job("r", "first"));
    client.expect_push(1000, "first");
    until_state(&gateway, "consuming");
}

fn with_password(password: &str) -> String {
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    // Where the tests' own producer connects stays as it is; Halley gets a listener that asks.
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{{PORT}},CONTROLLER://127.0.0.1:{{CONTROLLER}},SASL_PLAINTEXT://127.0.0.1:{{PORT2}}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{{PORT}},SASL_PLAINTEXT://127.0.0.1:{{PORT2}}\n\
         sasl.enabled.mechanisms=PLAIN\n\
         listener.name.sasl_plaintext.plain.sasl.jaas.config={module} required user_halley=\"{password}\";"
    )
}

#[test]
fn an_unreachable_broker_and_refused_credentials_are_told_and_mend_themselves() {
    let Some(jars) = jars() else { return };
    let folder = folder("refusing");
    // A port that is free for the broker's second listener, now and after its restart.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let start = |password: &str| {
        let properties = with_password(password).replace("{PORT2}", &port.to_string());
        Broker::start(jars, &folder, &properties).and_then(Broker::guarded).expect("a broker")
    };
    let credentials = "[kafka.client]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
        \"sasl.username\" = \"halley\"\n\"sasl.password\" = \"right\"\n";
    let gateway = unready(&format!("127.0.0.1:{port}"), "jobs", credentials);
    until_state(&gateway, "broker-away");
    let mut client = client(&gateway, "k", "r");

    let broker = start("wrong");
    broker.create_topic("jobs", 1).expect("a topic");
    until_state(&gateway, "refused");
    let detail = source(&gateway)["detail"].to_string();
    assert!(detail.to_lowercase().contains("authentication"), "{detail}");
    assert!(!gateway.log().contains("\"sasl.password\""), "nothing secret in the log");
    broker.stop().expect("stopped");

    let broker = start("right");
    until_state(&gateway, "consuming");
    Writer::new(&broker, "jobs").put(&room_job("r", "in"));
    client.expect_push(1000, "in");
}

#[test]
fn credentials_that_a_reload_brings_let_a_refused_gateway_in_without_a_restart() {
    let Some(jars) = jars() else { return };
    let folder = folder("rotating");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let properties = with_password("right").replace("{PORT2}", &port.to_string());
    let broker = Broker::start(jars, &folder, &properties).and_then(Broker::guarded).expect("a broker");
    broker.create_topic("jobs", 1).expect("a topic");
    let credentials = |password: &str| {
        format!(
            "[kafka.client]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
             \"sasl.username\" = \"halley\"\n\"sasl.password\" = \"{password}\"\n"
        )
    };
    let address = format!("127.0.0.1:{port}");
    let gateway = unready(&address, "jobs", &credentials("old"));
    until_state(&gateway, "refused");
    let mut client = client(&gateway, "k", "r");
    std::fs::write(gateway.folder().join("halley.toml"), configuration(&address, "jobs", &credentials("right")))
        .expect("written");
    let answer = gateway.call("POST", "/v1/reload", "", "");
    assert_eq!((answer.status, answer.json()["applied"].as_array().map(Vec::len)), (200, Some(1)), "{}", answer.body);
    assert!(!answer.body.contains("right"), "{}", answer.body);
    until_state(&gateway, "consuming");
    Writer::new(&broker, "jobs").put(&room_job("r", "in"));
    client.expect_push(1000, "in");
    // The producer too: what a call pushes goes through the broker.
    gateway.curl("/goim/push/room?operation=1000&type=a&room=b", "nobody");
    let push = serde_json::json!({ "target": { "room": "r" }, "operation": 1000, "payload": { "text": "through" } });
    gateway.push(&push);
    client.expect_push(1000, "through");

    // Without the gateway, with the same credentials from a file.
    let file = gateway.folder().join("client.properties");
    let properties = "# Halley's\nsecurity.protocol=sasl_plaintext\nsasl.mechanism = PLAIN\nsasl.username=halley\nsasl.password=right\n";
    std::fs::write(&file, properties).expect("written");
    let (place, file) = (format!("{address}/jobs"), file.to_str().expect("text"));
    let output = shell::push(&["--kafka", &place, "--kafka-config", file, "room:r", "--text", "from a shell"], "");
    assert_eq!(shell::said(&output), (Some(0), r#"{"acknowledged":1}"#.into()));
    client.expect_push(1000, "from a shell");
}
