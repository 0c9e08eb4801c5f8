//! The files of a release, as they lie below the root of a host.
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{links, manuals::manuals};

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
    ("docs", "usr/share/doc/halley"),
    ("README.md", "usr/share/doc/halley/overview.md"),
    ("ARCHITECTURE.md", "usr/share/doc/halley/architecture.md"),
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
        copy(workspace, from, to, &mut files)?;
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn copy(workspace: &Path, from: &str, to: &str, files: &mut Vec<File>) -> io::Result<()> {
    let path = workspace.join(from);
    if !path.is_dir() {
        let mut bytes = read(&path)?;
        if path.extension().is_some_and(|end| end == "md") {
            let text = String::from_utf8(bytes).map_err(io::Error::other)?;
            bytes = links::installed(&text, from, to, |target| installed(workspace, target)).into_bytes();
        }
        files.push(File::plain(to.to_owned(), bytes));
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        copy(workspace, &format!("{from}/{name}"), &format!("{to}/{name}"), files)?;
    }
    Ok(())
}

/// Where a file or folder of the checkout lies below the root of a host, if it is copied there.
fn installed(workspace: &Path, path: &str) -> Option<String> {
    let below = |from: &str| path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let place = COPIED.iter().find_map(|(from, to)| Some(format!("{to}{}", below(from)?)))?;
    workspace.join(path).exists().then_some(place)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let named = |cause: io::Error| io::Error::new(cause.kind(), format!("{}: {cause}", PathBuf::from(path).display()));
    fs::read(path).map_err(named)
}
