//! The files of a host: below a folder, or from a recording of one.
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// Starts the name of a file in a recording; its text follows on the next lines.
const HEAD: &str = "== ";

/// Why a host could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A file cannot be read though it is there.
    #[error("{} cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the read.
        cause: io::Error,
    },
    /// A file does not say what the kernel's documentation promises.
    #[error("{path} does not read as proc(5) and sysfs describe it")]
    Unexpected {
        /// The file, from the root.
        path: String,
    },
    /// A process that is not there, or a recording, which has one only.
    #[error("there is no process {process} here")]
    NoProcess {
        /// Its number.
        process: u32,
    },
    /// Not a folder, and not a recording either.
    #[error("{} is neither a folder nor a recording of a host", path.display())]
    NoHost {
        /// What was given.
        path: PathBuf,
    },
}

enum Source {
    Folder(PathBuf),
    Recorded(BTreeMap<String, String>),
}

/// Where rules find the process whose limits and groups they read.
const OWN: &str = "proc/self/";

/// Where a host is read from. Paths have no slash in front.
pub struct Tree {
    source: Source,
    /// Whether readings may try things out, not only read files.
    probes: bool,
    /// Another process than this one stands for `proc/self`.
    process: Option<u32>,
    /// What was read so far; a folder's name ends in a slash, and its text is the names in it.
    seen: RefCell<BTreeMap<String, String>>,
}

impl Tree {
    /// This host and this process, files only: nothing is tried out.
    pub fn live() -> Self {
        Self::from(Source::Folder(PathBuf::from("/")))
    }

    /// A folder with `proc` and `sys` in it, or a file that `halley-tune record` wrote. For `/`, which is this host, what
    /// can be tried out is.
    ///
    /// # Errors
    /// If it is neither.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        if path.is_dir() {
            let probes = path == Path::new("/");
            return Ok(Self { probes, ..Self::from(Source::Folder(path.to_path_buf())) });
        }
        let text =
            fs::read_to_string(path).map_err(|cause| HostError::Unreadable { path: path.to_path_buf(), cause })?;
        Self::recorded(&text).ok_or_else(|| HostError::NoHost { path: path.to_path_buf() })
    }

    /// A host from the text of a recording; none if it is none.
    pub fn recorded(text: &str) -> Option<Self> {
        let mut files = BTreeMap::new();
        let mut name = None;
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            if let Some(next) = line.strip_prefix(HEAD) {
                files.insert(next.to_owned(), String::new());
                name = Some(next.to_owned());
            } else {
                let file: &mut String = files.get_mut(name.as_deref()?)?;
                file.push_str(line);
                file.push('\n');
            }
        }
        (!files.is_empty()).then(|| Self::from(Source::Recorded(files)))
    }

    fn from(source: Source) -> Self {
        Self { source, probes: false, process: None, seen: RefCell::default() }
    }

    /// With the limits, groups and CPUs of another process of this host.
    ///
    /// # Errors
    /// If there is none of this number.
    pub fn of_process(self, process: u32) -> Result<Self, HostError> {
        let path = PathBuf::from(format!("proc/{process}"));
        let there = matches!(&self.source, Source::Folder(root) if root.join(&path).is_dir());
        if there { Ok(Self { process: Some(process), ..self }) } else { Err(HostError::NoProcess { process }) }
    }

    /// A file on the disk: `proc/self` is the process that is asked for.
    fn place(&self, root: &Path, path: &str) -> PathBuf {
        match self.process.zip(path.strip_prefix(OWN)) {
            Some((process, rest)) => root.join(format!("proc/{process}/{rest}")),
            None => root.join(path),
        }
    }

    /// Whether readings may try things out.
    pub(crate) fn probes(&self) -> bool {
        self.probes
    }

    /// Everything read so far, as a recording. Spaces at the ends of lines are dropped.
    pub fn recording(&self) -> String {
        let mut text = String::new();
        for (name, content) in &*self.seen.borrow() {
            text.extend([HEAD, name, "\n"]);
            for line in content.lines() {
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// None where the file is missing or hidden: kernels and sandboxes differ.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, HostError> {
        let text = match &self.source {
            Source::Recorded(files) => files.get(path).cloned(),
            Source::Folder(root) => read(&self.place(root, path))?,
        };
        Ok(text.inspect(|text| {
            self.seen.borrow_mut().insert(path.to_owned(), text.clone());
        }))
    }

    /// Whether the file is there to be read only, also by root: a setting that belongs to another namespace.
    pub(crate) fn read_only(&self, path: &str) -> bool {
        let Source::Folder(root) = &self.source else { return false };
        fs::metadata(root.join(path)).is_ok_and(|found| found.permissions().readonly())
    }

    /// Where a symbolic link leads; none if it is missing or hidden.
    pub(crate) fn link(&self, path: &str) -> Option<String> {
        let target = match &self.source {
            Source::Recorded(files) => files.get(path)?.trim().to_owned(),
            Source::Folder(root) => fs::read_link(self.place(root, path)).ok()?.into_os_string().into_string().ok()?,
        };
        self.note(path, target.clone());
        Some(target)
    }

    /// The words of a file, without spaces around them.
    pub(crate) fn word(&self, path: &str) -> Result<Option<String>, HostError> {
        Ok(self.text(path)?.map(|text| text.trim().to_owned()))
    }

    /// A file of exactly `N` numbers.
    pub(crate) fn numbers<const N: usize>(&self, path: &str) -> Result<Option<[u64; N]>, HostError> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(|word| word.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Some).ok_or_else(|| unexpected(path))
    }

    /// A file of one number.
    pub(crate) fn number(&self, path: &str) -> Result<Option<u64>, HostError> {
        Ok(self.numbers(path)?.map(|[number]| number))
    }

    /// The names in a folder, in order; none of it if it is missing.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let key = format!("{folder}/");
        let mut names: Vec<String> = match &self.source {
            Source::Recorded(files) => files.get(&key).map(|text| text.lines().map(str::to_owned).collect()),
            Source::Folder(root) => fs::read_dir(root.join(folder))
                .ok()
                .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()),
        }
        .unwrap_or_default();
        names.sort();
        if !names.is_empty() {
            self.seen.borrow_mut().insert(key, names.join("\n"));
        }
        names
    }

    /// The whole of a kernel configuration that is compressed in `/proc`.
    pub(crate) fn unpacked(&self, path: &str) -> Option<String> {
        let Source::Folder(root) = &self.source else { return None };
        let packed = fs::File::open(root.join(path)).ok()?;
        io::read_to_string(flate2::read::GzDecoder::new(packed)).ok()
    }

    /// Notes a part of something too long to be recorded.
    pub(crate) fn note(&self, path: &str, text: String) {
        self.seen.borrow_mut().insert(path.to_owned(), text);
    }
}

fn read(path: &Path) -> Result<Option<String>, HostError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if is_absent(&cause) => Ok(None),
        Err(cause) => Err(HostError::Unreadable { path: path.to_path_buf(), cause }),
    }
}

/// Missing, hidden, or a setting that the driver does not have (files of sysfs then say `EINVAL`).
fn is_absent(cause: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(cause.kind(), NotFound | PermissionDenied | InvalidInput | IsADirectory | NotADirectory)
        || cause.raw_os_error().is_some_and(|code| matches!(code, 5 | 95))
}

pub(crate) fn unexpected(path: &str) -> HostError {
    HostError::Unexpected { path: path.to_owned() }
}

/// How many CPUs (or nodes) a list like `0-3,8` names; the numbers themselves.
pub(crate) fn list(text: &str) -> Option<Vec<u64>> {
    let mut all = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if last > first + (1 << 16) {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_reads_like_the_folder_it_was_made_of() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/fs")).unwrap();
        fs::write(root.path().join("proc/sys/fs/file-nr"), "521\t0\t2466170\n").unwrap();
        let folder = Tree::open(root.path()).unwrap();
        let read = |tree: &Tree| (tree.numbers::<3>("proc/sys/fs/file-nr").unwrap(), tree.names("proc/sys"));
        let first = read(&folder);
        assert_eq!(first, (Some([521, 0, 2_466_170]), vec!["fs".to_owned()]));
        let recorded = Tree::recorded(&folder.recording()).unwrap();
        assert_eq!(read(&recorded), first);
        assert_eq!(recorded.recording(), folder.recording());
    }

    #[test]
    fn what_is_missing_is_none_and_what_is_wrong_is_named() {
        let tree = Tree::recorded("== proc/sys/fs/file-nr\n521\n").unwrap();
        assert_eq!(tree.number("proc/sys/fs/file-max").unwrap(), None);
        let error = tree.numbers::<3>("proc/sys/fs/file-nr").unwrap_err().to_string();
        assert!(error.contains("proc/sys/fs/file-nr does not read"), "{error}");
        assert!(Tree::recorded("no recording").is_none());
    }

    #[test]
    fn lists_of_cpus_have_single_numbers_and_ranges() {
        assert_eq!(list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(list(""), Some(vec![]));
        assert_eq!(list("0-"), None);
        assert_eq!(list("0-99999999999"), None);
    }
}
