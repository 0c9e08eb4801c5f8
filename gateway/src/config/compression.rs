//! `[compression]`: how pushes are compressed for clients of listeners that compress.

use serde::{Deserialize, Serialize};

/// The table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compression {
    /// From 1, the fastest, to 9, the smallest.
    pub level: u8,
    /// Pushes with a shorter body stay as they are.
    pub bytes_min: u32,
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: 6, bytes_min: 128 }
    }
}
