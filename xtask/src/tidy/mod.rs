//! Tidy: the rules of style that a program can check, over every file of the checkout.
mod rules;
mod source;

use std::{collections::BTreeSet, fmt, fs, io, path::Path, process::Command};

use source::code_of;

/// One broken rule at one place.
#[derive(Debug, PartialEq)]
pub(crate) struct Complaint {
    path: String,
    /// From 1.
    line: usize,
    message: String,
}

/// A text file of the checkout.
struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
    /// Rust only: `text` with comments, strings and characters blanked, line for line. Empty for other files.
    code: String,
}

/// The paths of the checkout, from its root.
type Paths = BTreeSet<String>;

/// Every broken rule, by path and line.
pub(crate) fn complaints(root: &Path) -> Vec<Complaint> {
    let paths = match git_paths(root).map_or_else(|| walked_paths(root), Ok) {
        Ok(paths) => paths,
        Err(error) => return vec![unreadable(root, &error)],
    };
    let mut all = Vec::new();
    // What fuzzers found is kept byte for byte.
    for path in paths.iter().filter(|path| !path.starts_with("fuzz/corpus/")) {
        match fs::read(root.join(path)) {
            // What is not text (a screenshot, a recorded histogram) has no style.
            Ok(bytes) => {
                if let Ok(text) = String::from_utf8(bytes) {
                    rules::apply(&File::new(path, text), &paths, &mut all);
                }
            }
            // Deleted in the working tree and not yet in the index.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => all.push(unreadable(Path::new(path), &error)),
        }
    }
    all
}

/// What git tracks or would track; none where this is no git checkout, or there is no git.
fn git_paths(root: &Path) -> Option<Paths> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    let paths: Paths = listed.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// Every file below `root` outside build and hidden tool folders.
fn walked_paths(root: &Path) -> io::Result<Paths> {
    let mut paths = Paths::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if name != ".git" && !name.starts_with("target") {
                    folders.push(entry.path());
                }
            } else if let Ok(path) = entry.path().strip_prefix(root) {
                paths.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok(paths)
}

fn unreadable(path: &Path, error: &io::Error) -> Complaint {
    Complaint { path: path.display().to_string(), line: 1, message: format!("cannot be read: {error}") }
}

impl File {
    fn new(path: &str, text: String) -> Self {
        let code = if has_extension(path, "rs") { code_of(&text) } else { String::new() };
        Self { path: path.to_owned(), text, code }
    }

    fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    fn complain(&self, line: usize, message: impl Into<String>) -> Complaint {
        Complaint { path: self.path.clone(), line, message: message.into() }
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, last)| last == extension)
}

impl fmt::Display for Complaint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_git_is_walked_and_its_bad_file_found() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path();
        fs::create_dir_all(root.join("src")).unwrap();
        fs::create_dir_all(root.join("target/debug")).unwrap();
        fs::write(root.join("src/lib.rs"), "fn undescribed() {}\n").unwrap();
        fs::write(root.join("target/debug/made.rs"), "fn ignored() {}\n").unwrap();
        let found = complaints(root);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].to_string().starts_with("src/lib.rs:1: "), "{found:?}");
    }
}
