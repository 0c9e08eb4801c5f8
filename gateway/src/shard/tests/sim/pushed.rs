//! Pushes of a simulation, and for whom they are.

/// Whom a push was for, as far as order is promised within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    Room(String),
    Direct,
    All,
}

/// Whom a push is for.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Room(String),
    Keys(Vec<String>),
    Members(Vec<i64>),
    All,
}

/// A push that was dispatched. Its number is its place in the list of all, and begins its body.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    pub(super) target: Target,
    pub(super) operation: i32,
    pub(super) padding: usize,
}

impl Pushed {
    pub(super) fn stream(&self) -> Stream {
        match &self.target {
            Target::Room(room) => Stream::Room(room.clone()),
            Target::Keys(_) | Target::Members(_) => Stream::Direct,
            Target::All => Stream::All,
        }
    }

    /// What is pushed under this number.
    pub(super) fn body(&self, number: usize) -> String {
        format!("{number} {}", "x".repeat(self.padding))
    }
}
