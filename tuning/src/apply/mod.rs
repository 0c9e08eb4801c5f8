//! Changes a host to a profile, and back: what was found is written down before anything is touched.
mod journal;

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use journal::{Journal, revert};

use crate::{
    profile::Profile,
    rule::{Change, Rule, Sysctl},
    rules::{meminfo, rules},
    tree::{HostError, Tree},
};

/// Where sysctl.d(5) finds the settings after a reboot.
const SYSCTL_FILE: &str = "etc/sysctl.d/90-halley.conf";

/// Where systemd finds the limits of the unit.
const DROP_IN_FILE: &str = "etc/systemd/system/halley.service.d/50-halley-tune.conf";

/// Why a change was not made, or not undone.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The host cannot be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file of the host does not take what is written.
    #[error("{} cannot be written: {cause} (are you root?)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// How it failed.
        cause: io::Error,
    },
    /// The record of an earlier `apply` cannot be understood.
    #[error("{} is not a record of halley-tune: {cause}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
}

/// One file that gets another text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// From the root.
    pub path: String,
    /// A value of the running kernel, and no file on a disk.
    pub running: bool,
    /// What was there; none: no file.
    pub before: Option<String>,
    /// What is to be there.
    pub after: String,
}

/// What a profile changes on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order in which they are made. None of them writes what is already there.
    pub steps: Vec<Step>,
    /// Sentences about what is left as it is, and why.
    pub left: Vec<String>,
}

impl Changes {
    /// What `profile` changes on this host.
    ///
    /// # Errors
    /// If the host cannot be read.
    pub fn of(tree: &Tree, profile: Profile) -> Result<Self, HostError> {
        let mut changes = Self::default();
        let container = is_container(tree);
        let mut file = format!(
            "# Written by `halley-tune apply --profile {}`; `halley-tune revert` removes it.\n",
            profile.name()
        );
        for rule in rules() {
            let (Some(value), Change::Sysctl(sysctl)) = (rule.value(profile), &rule.change) else { continue };
            if container && !sysctl.namespaced {
                changes.left.push(format!("{} = {value}: only the host can change it, not this container", rule.id));
            } else if let Some(reason) = too_small(tree, sysctl)? {
                changes.left.push(format!("{} = {value}: {reason}", rule.id));
            } else {
                file.push_str(&changes.sysctl(tree, rule, value, sysctl)?);
            }
        }
        if container {
            changes.left.push("files below /etc: set them on the host, or in the image".to_owned());
        } else {
            changes.file(tree, SYSCTL_FILE, file)?;
            if let Some(text) = profile.drop_in() {
                changes.file(tree, DROP_IN_FILE, text)?;
            }
        }
        Ok(changes)
    }

    /// The running value, and its line for the file.
    fn sysctl(&mut self, tree: &Tree, rule: &Rule, value: &str, sysctl: &Sysctl) -> Result<String, HostError> {
        let path = format!("proc/sys/{}", rule.id.replace('.', "/"));
        let Some(before) = tree.word(&path)? else {
            self.left.push(format!("{} = {value}: this kernel has no such key now", rule.id));
            return Ok(format!("-{} = {value}\n", rule.id));
        };
        let after = if sysctl.raises { higher(&before, value) } else { value.to_owned() };
        if words(&before) != words(&after) && tree.read_only(&path) {
            self.left.push(format!("{} = {value}: read-only here, only the host can change it", rule.id));
            return Ok(format!("-{} = {after}\n", rule.id));
        }
        if words(&before) != words(&after) {
            self.steps.push(Step { path, running: true, before: Some(before), after: after.clone() });
        }
        Ok(format!("{} = {after}\n", rule.id))
    }

    fn file(&mut self, tree: &Tree, path: &str, after: String) -> Result<(), HostError> {
        let before = tree.text(path)?;
        if before.as_ref() != Some(&after) {
            self.steps.push(Step { path: path.to_owned(), running: false, before, after });
        }
        Ok(())
    }

    /// The changes as lines with `-` and `+`.
    pub fn diff(&self) -> String {
        self.steps.iter().map(Step::diff).collect()
    }

    /// Writes the record, then makes every change below `root`.
    ///
    /// # Errors
    /// If a file does not take its text; what was changed until then is in the record, and `revert` undoes it.
    pub fn apply(&self, root: &Path) -> Result<(), ApplyError> {
        if self.steps.is_empty() {
            return Ok(());
        }
        Journal::load(root)?.unwrap_or_default().with(&self.steps, root).write(root)?;
        self.steps.iter().try_for_each(|step| step.write(root))
    }
}

impl Step {
    /// Makes the change.
    ///
    /// # Errors
    /// If the file does not take it.
    pub fn write(&self, root: &Path) -> Result<(), ApplyError> {
        put(root, &self.path, self.running, &self.after)
    }

    /// `- old` and `+ new`, under the name.
    fn diff(&self) -> String {
        let name = if self.running {
            self.path.trim_start_matches("proc/sys/").replace('/', ".") + " (now)"
        } else {
            format!("/{}", self.path)
        };
        let before: Vec<&str> = self.before.as_deref().unwrap_or_default().lines().collect();
        let after: Vec<&str> = self.after.lines().collect();
        let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("  - {line}\n"));
        let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("  + {line}\n"));
        format!("{name}\n{}", gone.chain(new).collect::<String>())
    }
}

/// Writes `text`: at once into the running kernel, and whole or not at all on a disk.
fn put(root: &Path, path: &str, running: bool, text: &str) -> Result<(), ApplyError> {
    let path = root.join(path);
    let written = if running { fs::write(&path, text) } else { replace(&path, text) };
    written.map_err(|cause| ApplyError::Write { path, cause })
}

/// The new file takes the old one's place when it is on the disk.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = beside(path);
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// The name under which a file is written before it takes its place. systemd and sysctl do not read it.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".halley-tune-new");
    PathBuf::from(name)
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// Field by field the higher of both.
fn higher(found: &str, value: &str) -> String {
    let fields = words(found).into_iter().zip(words(value)).map(|(found, value)| {
        match (found.parse::<u64>(), value.parse::<u64>()) {
            (Ok(found_number), Ok(number)) if found_number > number => found,
            _ => value,
        }
    });
    fields.collect::<Vec<_>>().join(" ")
}

/// Why the host has too little memory for a value; none if it has enough, or does not say.
fn too_small(tree: &Tree, sysctl: &Sysctl) -> Result<Option<String>, HostError> {
    let total = meminfo(tree, "MemTotal:")?;
    let small = total.is_some_and(|total| total < sysctl.memory_min);
    Ok(small.then(|| format!("only for hosts with {} GB of memory or more", sysctl.memory_min >> 30)))
}

/// Whether this process runs in a container: in a space of process numbers that is not the kernel's first
/// (`PROC_PID_INIT_INO`).
fn is_container(tree: &Tree) -> bool {
    tree.link("proc/self/ns/pid").is_some_and(|space| space != "pid:[4026531836]")
}

#[cfg(test)]
mod tests;
