//! The position file: the next offset of each partition, replaced whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::consume::now_ms;

/// What the file holds, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Positions {
    pub(super) topic: String,
    /// Partition to offset, or to what stands for one that was not known.
    pub(super) next: BTreeMap<i32, i64>,
    /// When an offset changed last, milliseconds since 1970.
    #[serde(default)]
    pub(super) written_ms: i64,
}

/// The file and what was last written to it.
#[derive(Debug)]
pub(super) struct PositionFile {
    path: PathBuf,
    written: Positions,
    /// Nothing is written any more.
    closed: bool,
}

impl PositionFile {
    /// Whether [`PositionFile::open`] would do, as far as can be told without writing.
    pub(super) fn check(path: &Path, topic: &str) -> Result<(), String> {
        let folder = folder(path);
        let problem = |what: &str| format!("{}: {what}", path.display());
        if !folder.is_dir() {
            return Err(problem(&format!("there is no folder {}: make it, or name another file", folder.display())));
        }
        if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
            let folder = folder.display();
            return Err(problem(&format!("{folder} cannot be written ({error}): name a file where it can")));
        }
        if path.exists() && !path.is_file() {
            return Err(problem("is no file: name one"));
        }
        read(path, topic).map(drop)
    }

    /// Reads the file. No file is no position; one that cannot be read is an error, since going on without it
    /// would lose jobs.
    pub(super) fn open(path: &Path, topic: &str) -> Result<(Self, Option<Positions>), String> {
        let found = read(path, topic)?;
        let written = found.clone().unwrap_or(Positions { topic: topic.into(), ..Positions::default() });
        let file = Self { path: path.into(), written, closed: false };
        // Better now than at the first job.
        file.replace(&file.written).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((file, found.filter(|positions| !positions.next.is_empty())))
    }

    /// Takes these offsets over, if they say something new.
    pub(super) fn write(&mut self, next: BTreeMap<i32, i64>) -> io::Result<()> {
        if next == self.written.next || self.closed {
            return Ok(());
        }
        let positions = Positions { topic: self.written.topic.clone(), next, written_ms: now_ms() };
        self.replace(&positions)?;
        self.written = positions;
        Ok(())
    }

    /// What was written last is the last.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// After a crash there is the old file or the new one.
    fn replace(&self, positions: &Positions) -> io::Result<()> {
        // Two files of one folder may differ in their last extension alone.
        let mut part = self.path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec(positions)?)?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        File::open(folder(&self.path))?.sync_all()
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read(path: &Path, topic: &str) -> Result<Option<Positions>, String> {
    let problem = |what: &str| format!("{}: {what}", path.display());
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| problem(&error.to_string()))?,
    };
    let read = serde_json::from_slice::<Positions>(&text).map_err(|error| problem(&error.to_string()))?;
    if read.topic != topic {
        let what = format!("is of the topic {}, not {topic}: name another file or remove it", read.topic);
        return Err(problem(&what));
    }
    Ok(Some(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_and_a_broken_file_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("positions.json");
        let (mut file, found) = PositionFile::open(&path, "t").expect("a new file");
        assert_eq!(found, None);
        let next = BTreeMap::from([(0, 7), (12, i64::MAX)]);
        file.write(next.clone()).expect("writable");
        let (_, found) = PositionFile::open(&path, "t").expect("the file");
        let found = found.expect("positions");
        assert_eq!(found.next, next);
        assert!((1..=now_ms()).contains(&found.written_ms), "{}", found.written_ms);
        assert!(PositionFile::open(&path, "other").expect_err("another topic").contains("is of the topic t"));
        fs::write(&path, "{\"topic\":\"t\"").expect("writable");
        assert!(PositionFile::open(&path, "t").expect_err("half a file").contains("positions.json"));
        assert!(PositionFile::open(&folder.path().join("no/file"), "t").is_err(), "a folder that is not there");
    }

    #[test]
    fn what_was_said_last_is_the_last_and_files_of_like_names_do_not_meet() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = ["positions.a", "positions.b"].map(|name| folder.path().join(name));
        let [mut a, mut b] = paths.each_ref().map(|path| PositionFile::open(path, "t").expect("a new file").0);
        // As after a crash of one between its two steps.
        fs::create_dir(folder.path().join("positions.a.part")).expect("a folder");
        b.write(BTreeMap::from([(0, 2)])).expect("its own way");
        a.write(BTreeMap::from([(0, 1)])).expect_err("in its way");
        fs::remove_dir(folder.path().join("positions.a.part")).expect("removed");
        a.write(BTreeMap::from([(0, 1)])).expect("writable");
        a.close();
        a.write(BTreeMap::from([(0, 7)])).expect("nothing to do");
        let next = paths.each_ref().map(|path| read(path, "t").expect("a file").expect("positions").next[&0]);
        assert_eq!(next, [1, 2]);
    }

    #[test]
    fn a_check_finds_what_would_keep_it_from_being_opened_and_writes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("positions.json");
        assert_eq!(PositionFile::check(&path, "t"), Ok(()));
        assert!(!path.exists());
        fs::write(&path, "{\"topic\":\"t\",\"next\":{}}").expect("writable");
        assert_eq!(PositionFile::check(&path, "t"), Ok(()));
        let refused = |path: &Path, topic: &str| PositionFile::check(path, topic).expect_err("refused");
        assert!(refused(&path, "other").contains("is of the topic t"));
        assert!(refused(folder.path(), "t").contains("is no file"));
        let missing = folder.path().join("no");
        let said = refused(&missing.join("file"), "t");
        assert!(said.contains(&format!("there is no folder {}: make it", missing.display())), "{said}");
        // Root may write everywhere.
        if !rustix::process::geteuid().is_root() {
            assert!(refused(Path::new("/proc/positions.json"), "t").contains("/proc cannot be written"));
        }
    }
}
