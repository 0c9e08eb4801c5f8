//! The gateway of this build, as a child of a test.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The gateway of this build; it is built if a test of this package alone is run.
pub(crate) fn halley() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let program = test.ancestors().nth(2).expect("the folder above deps").join("halley");
    if !program.exists() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked", "-p", "gateway"]).current_dir(workspace());
        assert!(cargo.status().is_ok_and(|status| status.success()), "the gateway is not built");
    }
    program
}

/// Ends the child if the test does not.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
