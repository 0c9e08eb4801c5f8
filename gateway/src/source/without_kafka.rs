//! What stands in for Kafka in a build without it: a configuration that asks for it does not start.

use std::future::Ready;
use std::sync::Arc;

use halley_protocol::job::Job;

use super::nodes::NodeCommand;
use super::stats::KafkaStats;
use crate::config;
use crate::directory::Directory;
use crate::dispatch::Dispatch;
use crate::link::ShardLink;
use crate::upstream::{Envelope, Outcome};

/// Cannot be made.
#[derive(Debug)]
pub enum Kafka {}

/// As in a build with Kafka.
pub struct Me {
    /// What its id begins with.
    pub name: String,
    /// Itself, JSON.
    pub instance: String,
}

/// As in a build with Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProduceError {
    /// The record is larger than the brokers take.
    TooLarge,
    /// No acknowledgement.
    Away,
    /// Not written.
    Refused(&'static str),
}

/// Refuses.
pub fn check(_: &config::Kafka) -> Result<(), (&'static str, String)> {
    Err(("kafka", "this build has no Kafka: build it with `--features kafka`".into()))
}

impl Kafka {
    /// Refuses.
    pub fn start(_: &config::Kafka, _: Dispatch, _: Arc<[Arc<ShardLink>]>, _: Vec<usize>) -> Result<Self, String> {
        Err("this build has no Kafka".into())
    }

    /// Cannot be called.
    pub fn join_nodes(
        &self,
        _: Me,
        _: Arc<Directory>,
        _: Vec<usize>,
        _: impl Fn(&NodeCommand) -> bool + 'static,
    ) -> Result<(), String> {
        match *self {}
    }

    /// Cannot be called.
    pub fn node_id(&self) -> Option<&str> {
        match *self {}
    }

    /// Cannot be called.
    pub fn broadcast(&self, _: &NodeCommand, _: i64) -> Ready<Result<(), ProduceError>> {
        match *self {}
    }

    /// Cannot be called.
    pub fn reload(&self, _: &config::Kafka) {
        match *self {}
    }

    /// Cannot be called.
    pub fn adopt(&self, _: Arc<Upstream>) {
        match *self {}
    }

    /// Cannot be called.
    pub fn stats(&self) -> &KafkaStats {
        match *self {}
    }

    /// Cannot be called.
    pub fn produce(&self, _: &Job<'_>, _: Option<&str>) -> Ready<Result<(i32, i64), ProduceError>> {
        match *self {}
    }

    /// Cannot be called.
    pub fn stop(&self) {
        match *self {}
    }

    /// Cannot be called.
    pub fn finish(&self) {
        match *self {}
    }
}

/// Cannot be made.
pub enum Upstream {}

impl Upstream {
    /// Refuses.
    pub fn new(_: &config::Kafka, _: &config::Upstream, _: Arc<[Arc<ShardLink>]>) -> Result<Self, String> {
        Err("this build has no Kafka".into())
    }

    /// Cannot be called.
    pub fn put(&self, _: &Envelope<'_>) -> Outcome {
        match *self {}
    }
}

/// Cannot be made.
pub enum Pusher {}

impl Pusher {
    /// Refuses.
    pub fn new(_: &str, _: &str, _: Vec<(String, String)>) -> Result<Self, String> {
        Err("this build has no Kafka: build it with `--features kafka`".into())
    }

    /// Cannot be called.
    pub fn push(&self, _: &Job<'_>) -> Result<(), String> {
        match *self {}
    }

    /// Cannot be called.
    pub fn finish(&self) -> Result<u64, String> {
        match *self {}
    }
}
