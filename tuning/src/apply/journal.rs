//! The record of what `apply` found, and the way back from it.
use std::{collections::BTreeSet, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{ApplyError, Step, beside, put, replace};

/// The record, from the root.
const JOURNAL: &str = "var/lib/halley-tune/found.json";

/// What was found before the first change that has not been undone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    steps: Vec<Step>,
    /// Folders that were not there, innermost last.
    folders: Vec<String>,
}

impl Journal {
    /// The record below `root`; none: nothing is applied.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn load(root: &Path) -> Result<Option<Self>, ApplyError> {
        let path = root.join(JOURNAL);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|cause| ApplyError::Journal { path, cause }),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(ApplyError::Write { path, cause }),
        }
    }

    /// With further steps. What an earlier `apply` found stays: it is the host's own.
    pub(super) fn with(mut self, steps: &[Step], root: &Path) -> Self {
        let known: BTreeSet<String> = self.steps.iter().map(|step| step.path.clone()).collect();
        self.steps.extend(steps.iter().filter(|step| !known.contains(&step.path)).cloned());
        for step in steps.iter().filter(|step| !step.running) {
            let mut missing = Vec::new();
            let mut folder = Path::new(&step.path).parent();
            while let Some(path) = folder.filter(|path| !path.as_os_str().is_empty() && !root.join(path).exists()) {
                missing.push(path.display().to_string());
                folder = path.parent();
            }
            for path in missing.into_iter().rev() {
                if !self.folders.contains(&path) {
                    self.folders.push(path);
                }
            }
        }
        self
    }

    pub(super) fn write(&self, root: &Path) -> Result<(), ApplyError> {
        let path = root.join(JOURNAL);
        // Paths and texts only: nothing that JSON could refuse.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        replace(&path, &text).map_err(|cause| ApplyError::Write { path, cause })
    }

    /// What `revert` would do, as lines with `-` and `+`.
    pub fn diff(&self) -> String {
        let back = self.steps.iter().rev().map(|step| {
            let before = Some(step.after.clone());
            Step { before, after: step.before.clone().unwrap_or_default(), ..step.clone() }.diff()
        });
        back.collect()
    }
}

/// Restores what the record says was found, and removes the record last: a crash on the way only means that it is done
/// again. False if nothing was applied.
///
/// # Errors
/// If something cannot be restored; the rest is, and the record stays.
pub fn revert(root: &Path) -> Result<bool, ApplyError> {
    let Some(journal) = Journal::load(root)? else {
        // A crash may have left half of a record, and then nothing else.
        let record = root.join(JOURNAL);
        remove(&beside(&record))?;
        let _ = record.parent().map(fs::remove_dir);
        return Ok(false);
    };
    let mut first = None;
    for step in journal.steps.iter().rev() {
        if let Err(error) = restore(root, step) {
            first.get_or_insert(error);
        }
    }
    for folder in journal.folders.iter().rev() {
        // Somebody else's files keep it.
        let _ = fs::remove_dir(root.join(folder));
    }
    match first {
        Some(error) => Err(error),
        None => remove(&root.join(JOURNAL)).map(|()| {
            let _ = root.join(JOURNAL).parent().map(fs::remove_dir);
            true
        }),
    }
}

fn restore(root: &Path, step: &Step) -> Result<(), ApplyError> {
    if !step.running {
        remove(&beside(&root.join(&step.path)))?;
    }
    match &step.before {
        Some(before) => put(root, &step.path, step.running, before),
        None => remove(&root.join(&step.path)),
    }
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> Result<(), ApplyError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(ApplyError::Write { path: path.to_path_buf(), cause })
        }
        _ => Ok(()),
    }
}
