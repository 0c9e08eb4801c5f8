//! A copy of the checkout with every change woven in, built once; what does not compile is left out.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use serde_json::Value;

use crate::find::{Mutant, mutants, weave};

/// Builds until everything that is left compiles.
const ROUNDS_MAX: usize = 20;

/// How far from an error its cause is at most, where it is not around it.
const NEAR_BYTES_MAX: usize = 10_000;

/// What is added to the crate: which change is chosen, read once.
const CHOICE: &str = r#"
/// Whether this change is the chosen one.
#[allow(missing_docs, reason = "only in a copy")]
pub(crate) fn mutant(number: u32) -> bool {
    static CHOSEN: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
        std::env::var("HALLEY_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
    });
    *CHOSEN == number
}
"#;

/// A source file that is changed.
pub(crate) struct Source {
    /// From the root of the checkout.
    pub(crate) path: String,
    text: String,
    pub(crate) mutants: Vec<Mutant>,
}

/// The files that git knows, as paths from the root.
fn files(root: &Path) -> io::Result<Vec<String>> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// The changes of every file under one of these paths, its tests left out.
pub(crate) fn sources(root: &Path, under: &[String]) -> io::Result<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::new();
    let mut first = 0;
    for path in files(root)? {
        let is_test = path.contains("/tests") || path.ends_with("_tests.rs");
        let is_rust = Path::new(&path).extension().is_some_and(|extension| extension == "rs");
        if is_test || !is_rust || !under.iter().any(|under| path.starts_with(under.as_str())) {
            continue;
        }
        let text = fs::read_to_string(root.join(&path))?;
        let mutants = mutants(&text, first).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        first += mutants.len();
        sources.push(Source { path, text, mutants });
    }
    Ok(sources)
}

/// The copy, and how it is built.
pub(crate) struct Tree {
    root: PathBuf,
    target: PathBuf,
    features: Vec<String>,
}

impl Tree {
    /// Copies what git knows; files that are the same keep their times, so that they are not built again.
    pub(crate) fn copy(root: &Path, target: &Path, features: Vec<String>) -> io::Result<Self> {
        let copy = target.join("mutation");
        for path in files(root)? {
            if let Ok(bytes) = fs::read(root.join(&path)) {
                write(&copy.join(path), &bytes)?;
            }
        }
        // A folder of its own: what is built of the copy would be taken for what is built of the checkout.
        Ok(Self { root: copy, target: target.join("mutation-target"), features })
    }

    /// Builds the crate's tests with all changes that compile; the program, and the changes it lacks.
    pub(crate) fn build(&self, sources: &[Source]) -> io::Result<(PathBuf, BTreeSet<usize>)> {
        // What did not compile the last time is not tried again.
        let known = self.target.join("mutation-left-out");
        let before = fs::read_to_string(&known).unwrap_or_default();
        let before: BTreeSet<&str> = before.lines().collect();
        let all = sources.iter().flat_map(|source| source.mutants.iter().map(move |mutant| (source, mutant)));
        let names: Vec<_> = all.map(|(source, mutant)| (mutant.number, place(source, mutant))).collect();
        let mut left_out: BTreeSet<_> =
            names.iter().filter(|(_, name)| before.contains(&**name)).map(|(number, _)| *number).collect();
        let mut near = 500;
        for _ in 0..ROUNDS_MAX {
            let regions = self.write(sources, &left_out)?;
            let before = left_out.len();
            match self.compile()? {
                Ok(program) => {
                    let lines = names.iter().filter(|(number, _)| left_out.contains(number)).map(|(_, name)| &**name);
                    fs::write(&known, lines.collect::<Vec<_>>().join("\n"))?;
                    return Ok((program, left_out));
                }
                Err(errors) => {
                    let leaves = |number: usize| {
                        let mut all = sources.iter().flat_map(|source| &source.mutants);
                        all.any(|mutant| mutant.number == number && mutant.leaves())
                    };
                    for (file, at) in &errors {
                        let Some((_, regions)) = regions.iter().find(|(path, _)| path == file) else { continue };
                        let around = regions.iter().filter(|(_, region)| region.contains(at));
                        let guilty = around.min_by_key(|(_, region)| region.len()).map(|(number, _)| *number);
                        left_out.extend(guilty);
                        if guilty.is_none() {
                            // What is used once more after it was moved or borrowed: somebody left just before or behind.
                            let near = regions.iter().filter(|(_, region)| region.start.abs_diff(*at) < near);
                            left_out.extend(near.map(|(number, _)| *number).filter(|number| leaves(*number)));
                        }
                    }
                    println!("{} of the changes do not compile", left_out.len());
                    if left_out.len() == before && near < NEAR_BYTES_MAX {
                        near *= 4;
                    } else if left_out.len() == before {
                        return Err(io::Error::other(format!("the copy does not compile: {errors:?}")));
                    }
                }
            }
        }
        Err(io::Error::other("the copy does not compile, whatever is left out"))
    }

    /// Writes every source with the changes that are not left out; where each begins and ends.
    fn write(&self, sources: &[Source], left_out: &BTreeSet<usize>) -> io::Result<Vec<(String, Regions)>> {
        let mut all = Vec::new();
        for source in sources {
            let chosen = source.mutants.iter().filter(|mutant| !left_out.contains(&mutant.number));
            let (woven, regions) = weave(&source.text, chosen);
            write(&self.root.join(&source.path), woven.as_bytes())?;
            all.push((source.path.clone(), regions));
        }
        let library = self.root.join("gateway/src/lib.rs");
        let text = fs::read_to_string(&library)?;
        if !text.contains("fn mutant(") {
            write(&library, (text + CHOICE).as_bytes())?;
        }
        Ok(all)
    }

    /// The program, or where the compiler complains.
    fn compile(&self) -> io::Result<Result<PathBuf, Vec<(String, usize)>>> {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["test", "--locked", "--package", "gateway", "--lib", "--no-run", "--message-format=json"]);
        command.args(&self.features).env("CARGO_TARGET_DIR", &self.target).current_dir(&self.root);
        let output = command.stderr(std::process::Stdio::inherit()).output()?;
        let mut errors = Vec::new();
        let mut program = None;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            if message["reason"] == "compiler-artifact" && message["target"]["name"] == "gateway" {
                program = message["executable"].as_str().map(PathBuf::from).or(program);
            }
            if message["message"]["level"] == "error" {
                errors.extend(places(&message["message"]));
            }
        }
        match program.filter(|_| output.status.success()) {
            Some(program) => Ok(Ok(program)),
            None => Ok(Err(errors)),
        }
    }
}

/// A change's name for as long as its source stays as it is.
fn place(source: &Source, mutant: &Mutant) -> String {
    format!("{}:{} {}", source.path, mutant.line, mutant.what)
}

type Regions = Vec<(usize, Range<usize>)>;

/// Where an error is; one within a macro also where that is called.
fn places(error: &Value) -> Vec<(String, usize)> {
    let spans = error["spans"].as_array().into_iter().flatten();
    let primary = spans.filter(|span| span["is_primary"] == true);
    let place = |span: &Value| {
        let at = usize::try_from(span["byte_start"].as_u64()?).ok()?;
        Some((span["file_name"].as_str()?.to_owned(), at))
    };
    primary.filter_map(place).collect()
}

/// Writes a file unless it is the same already.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|before| before == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}
