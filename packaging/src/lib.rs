//! The release: which files it has, and the archives that carry them.
mod archives;
mod files;
mod links;
mod manuals;

pub use archives::{deb, tarball};
pub use files::{File, PROGRAMS, release};

/// Of the workspace, and so of every package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
