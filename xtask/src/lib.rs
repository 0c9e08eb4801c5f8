//! What tests share with the project's commands: a real Kafka broker.

pub mod kafka;
