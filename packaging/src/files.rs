//! The files of a release, as they lie below the root of a host.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::manuals::manuals;

/// What is built and packed.
pub const PROGRAMS: [&str; 3] = ["halley", "halley-tune", "halley-bench"];

/// Files and folders of the checkout, and where they go. A folder goes with all that is in it.
const COPIED: &[(&str, &str)] = &[
    ("packaging/halley.toml", "etc/halley/halley.toml"),
    ("packaging/seccomp.json", "usr/share/halley/seccomp.json"),
    ("systemd/halley.service", "usr/lib/systemd/system/halley.service"),
    ("systemd/halley.socket", "usr/lib/systemd/system/halley.socket"),
    ("systemd/halley-tune.service", "usr/lib/systemd/system/halley-tune.service"),
    ("systemd/sysusers.d", "usr/lib/sysusers.d"),
    ("systemd/halley.service.d", "usr/share/halley/halley.service.d"),
    ("tuning/sysctl.d", "usr/share/halley/sysctl.d"),
    ("docs/operations", "usr/share/doc/halley/operations"),
    ("docs/configuration.md", "usr/share/doc/halley/configuration.md"),
    ("docs/limits.md", "usr/share/doc/halley/limits.md"),
    ("docs/protocol.md", "usr/share/doc/halley/protocol.md"),
    ("docs/api/openapi.yaml", "usr/share/doc/halley/api/openapi.yaml"),
    ("LICENSE", "usr/share/doc/halley/copyright"),
];

/// One file of a release.
#[derive(Clone, Debug)]
pub struct File {
    /// From the root, without a slash in front.
    pub path: String,
    /// Whether it can be run.
    pub program: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl File {
    pub(crate) fn plain(path: String, bytes: Vec<u8>) -> Self {
        Self { path, program: false, bytes }
    }
}

/// Everything, ordered by path.
///
/// # Errors
/// If a program is not built, or a file of the checkout is missing.
pub fn release(workspace: &Path, programs: &Path) -> io::Result<Vec<File>> {
    let mut files = manuals()?;
    for program in PROGRAMS {
        let bytes = read(&programs.join(program))?;
        files.push(File { path: format!("usr/bin/{program}"), program: true, bytes });
    }
    for (from, to) in COPIED {
        copy(&workspace.join(from), to, &mut files)?;
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn copy(from: &Path, to: &str, files: &mut Vec<File>) -> io::Result<()> {
    if !from.is_dir() {
        files.push(File::plain(to.to_owned(), read(from)?));
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &format!("{to}/{}", entry.file_name().to_string_lossy()), files)?;
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", PathBuf::from(path).display()));
    fs::read(path).map_err(named)
}
