//! A producer for programs without a gateway, such as `halley push`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use halley_protocol::job::Job;

use super::produce::{Deliveries, ProduceError, Producer, Waits};
use crate::config;

/// A producer for programs without a gateway, such as `halley push`.
pub struct Pusher {
    producer: Producer,
    settings: config::Kafka,
}

impl Pusher {
    /// A producer that has not connected yet; `brokers` are separated by commas, `properties` are those of librdkafka.
    pub fn new(brokers: &str, topic: &str, properties: Vec<(String, String)>) -> Result<Self, String> {
        let brokers = brokers.split(',').map(Into::into).collect();
        let mut settings = config::Kafka { brokers, topic: topic.into(), ..config::Kafka::default() };
        // Many at a time are meant to go together.
        settings.client.insert("linger.ms".into(), 1.into());
        settings.client.extend(properties.into_iter().map(|(name, value)| (name, value.into())));
        super::client::check(&settings)?;
        let deliveries = Deliveries::new().map_err(|error| error.to_string())?;
        let producer = Producer::new(&settings, Arc::new(deliveries), Arc::default());
        Ok(Self { producer: producer.map_err(|error| error.to_string())?, settings })
    }

    /// Puts a job into the producer's queue, and waits for a place in it.
    pub fn push(&self, job: &Job<'_>) -> Result<(), String> {
        let since = Instant::now();
        loop {
            match self.producer.send_for(job, None, Waits::Count) {
                Ok(()) => return Ok(()),
                Err(ProduceError::TooLarge) => return Err("the push is larger than the brokers take".into()),
                Err(ProduceError::Refused(why)) => return Err(format!("{}: {why}", self.place())),
                Err(ProduceError::Away) if since.elapsed() > self.patience() => return Err(self.away()),
                Err(ProduceError::Away) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Waits until all is acknowledged or given up; how many jobs were acknowledged, if all were.
    pub fn finish(&self) -> Result<u64, String> {
        self.producer.flush(2 * self.patience());
        let stats = self.producer.stats();
        let failed = stats.produce_failed.load(Ordering::Relaxed);
        let produced = stats.produced.load(Ordering::Relaxed);
        if failed > 0 || self.producer.in_flight() > 0 {
            return Err(format!("{}; {produced} jobs are acknowledged, {failed} are not", self.away()));
        }
        Ok(produced)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.settings.produce_ms_max.into())
    }

    fn place(&self) -> String {
        format!("{}/{}", self.settings.brokers.join(","), self.settings.topic)
    }

    fn away(&self) -> String {
        match self.producer.stats().producer.detail() {
            problem if problem.is_empty() => format!("{} does not acknowledge", self.place()),
            problem => format!("{} refuses: {problem}", self.place()),
        }
    }
}
