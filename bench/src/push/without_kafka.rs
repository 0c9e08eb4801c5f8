//! What stands in for Kafka in a build without it.

use std::time::Duration;

use super::to::{JobFormat, Messages};
use super::{Pushed, Schedule};
use crate::interrupt::Interrupt;

/// Cannot be made.
#[derive(Clone, Debug)]
pub struct KafkaPush {
    never: std::convert::Infallible,
    /// As in a build with Kafka.
    pub grace: Duration,
}

impl KafkaPush {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn new(_: &str, _: &str, _: JobFormat, _: Messages, _: Duration) -> Result<Self, String> {
        Err("this build has no Kafka: build it with `--features kafka`".to_owned())
    }

    /// Cannot be called.
    pub fn run(&self, _: &Schedule, _: &Interrupt) -> Pushed {
        match self.never {}
    }
}
