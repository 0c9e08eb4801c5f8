//! The place from the other side: a topic that is read, or an endpoint that keeps what is posted to it.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Key and sequence.
type Said = (String, u32);

/// Client and number of what belongs to a run, in its order.
fn of_run(said: impl Iterator<Item = Said>, run: &str) -> Vec<(u32, u32)> {
    let client = |key: &str| key.strip_prefix(run)?.strip_prefix('-')?.parse().ok();
    said.filter_map(|(key, number)| Some((client(&key)?, number))).collect()
}

/// An HTTP endpoint on threads of this process.
pub(super) struct Endpoint {
    kept: Arc<Mutex<Vec<Said>>>,
}

impl Endpoint {
    pub(super) fn start(address: SocketAddr) -> Result<Self, String> {
        let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
        let kept = Arc::<Mutex<Vec<Said>>>::default();
        let theirs = Arc::clone(&kept);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&theirs);
                thread::spawn(move || while serve(&stream, &kept).is_some() {});
            }
        });
        Ok(Self { kept })
    }

    pub(super) fn found(&self, run: &str) -> Vec<(u32, u32)> {
        of_run(self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned(), run)
    }
}

/// Keeps the messages of one request, then answers it; `None`: the connection has ended.
fn serve(mut stream: &TcpStream, kept: &Mutex<Vec<Said>>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut more = [0; 16 * 1024];
    let mut read = |bytes: &mut Vec<u8>| {
        let read = stream.read(&mut more).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&more[..read]);
        Some(())
    };
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        read(&mut bytes)?;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length: usize = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())?;
    let mut body = bytes.split_off(head);
    while body.len() < length {
        read(&mut body)?;
    }
    let messages: Vec<serde_json::Value> = serde_json::from_slice(&body).ok()?;
    let said = messages.iter().filter_map(|message| {
        let number = message["sequence"].as_u64().and_then(|number| u32::try_from(number).ok())?;
        Some((message["key"].as_str()?.to_owned(), number))
    });
    kept.lock().unwrap_or_else(PoisonError::into_inner).extend(said);
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::time::Duration;

    use rdkafka::config::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::error::KafkaError;
    use rdkafka::message::{Headers as _, Message};
    use rdkafka::{Offset, TopicPartitionList};

    use super::{Said, of_run};

    /// Longest wait for the brokers.
    const ANSWER: Duration = Duration::from_secs(20);

    /// A topic.
    pub(in crate::upstream) struct KafkaPlace {
        brokers: String,
        topic: String,
    }

    impl KafkaPlace {
        pub(in crate::upstream) fn new(place: &str) -> Result<Self, String> {
            let (brokers, topic) = place.rsplit_once('/').ok_or("--kafka: write BROKERS/TOPIC")?;
            Ok(Self { brokers: brokers.to_owned(), topic: topic.to_owned() })
        }

        /// Reads the whole topic.
        pub(in crate::upstream) fn found(&self, run: &str) -> Result<Vec<(u32, u32)>, String> {
            let failed = |error: KafkaError| format!("{}/{}: {error}", self.brokers, self.topic);
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &self.brokers).set("group.id", "halley-bench");
            config.set("enable.partition.eof", "true").set("enable.auto.commit", "false");
            let consumer: BaseConsumer = config.create().map_err(failed)?;
            let metadata = consumer.fetch_metadata(Some(&self.topic), ANSWER).map_err(failed)?;
            let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            let mut list = TopicPartitionList::new();
            for partition in 0..i32::try_from(partitions).unwrap_or(0) {
                list.add_partition_offset(&self.topic, partition, Offset::Beginning).map_err(failed)?;
            }
            consumer.assign(&list).map_err(failed)?;
            let (mut said, mut ended) = (Vec::new(), 0);
            while ended < partitions {
                match consumer.poll(ANSWER) {
                    Some(Ok(record)) => said.extend(said_in(&record)),
                    Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                    Some(Err(error)) => return Err(failed(error)),
                    None => return Err(format!("{}/{} is silent", self.brokers, self.topic)),
                }
            }
            Ok(of_run(said.into_iter(), run))
        }
    }

    fn said_in(record: &impl Message) -> Option<Said> {
        let key = String::from_utf8(record.key()?.to_vec()).ok()?;
        let sequence = record.headers()?.iter().find(|header| header.key == "halley-sequence")?.value?;
        Some((key, str::from_utf8(sequence).ok()?.parse().ok()?))
    }
}

#[cfg(not(feature = "kafka"))]
mod kafka {
    /// Cannot be made.
    pub(in crate::upstream) enum KafkaPlace {}

    impl KafkaPlace {
        pub(in crate::upstream) fn new(_: &str) -> Result<Self, String> {
            Err("this build has no Kafka: build it with `--features kafka`".to_owned())
        }

        pub(in crate::upstream) fn found(&self, _: &str) -> Result<Vec<(u32, u32)>, String> {
            match *self {}
        }
    }
}

pub(super) use kafka::KafkaPlace;
