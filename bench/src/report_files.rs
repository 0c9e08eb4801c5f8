//! `report`: reads the JSON of runs and writes one page about all of them.

use std::path::PathBuf;

use clap::Args;

use crate::page::{self, Run};

const DONE: u8 = 0;
const INVALID: u8 = 3;

/// Flags of `report`.
#[derive(Clone, Debug, Args)]
pub struct ReportArgs {
    /// Files written with --json, of any scenario. Files that differ only in a number at the end
    /// (case-1.json, case-2.json) are runs of one case.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The page.
    #[arg(long, default_value = "report.html")]
    pub html: PathBuf,
    /// Its heading; the names of the scenarios by default.
    #[arg(long)]
    pub title: Option<String>,
}

/// Writes the page; the exit status is that of an invalid run if one of them is.
///
/// # Errors
/// A sentence, if a file cannot be read or written.
pub fn report(arguments: &ReportArgs) -> Result<u8, String> {
    let mut runs = arguments.files.iter().map(|path| Run::read(path)).collect::<Result<Vec<_>, _>>()?;
    name_apart(&mut runs, &arguments.files);
    let title = arguments.title.clone().unwrap_or_else(|| scenarios(&runs));
    let path = &arguments.html;
    let written = std::fs::write(path, page::page(&title, &runs, &[]));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    println!("{}", path.display());
    let mut status = DONE;
    for run in runs.iter().filter(|run| !run.is_valid()) {
        println!("INVALID {}", run.name);
        status = INVALID;
    }
    Ok(status)
}

/// Files of one name in several folders are called by their whole paths.
fn name_apart(runs: &mut [Run], files: &[PathBuf]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, path) in runs.iter_mut().zip(files) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            let path = path.with_extension("");
            *run = Run::new(&path.to_string_lossy(), std::mem::take(&mut run.json));
        }
    }
}

/// The scenarios of the runs, each once.
fn scenarios(runs: &[Run]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in runs.iter().map(|run| run.text("scenario")) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        let files: Vec<PathBuf> = ["a/x-1.json", "b/x-1.json", "b/y.json"].map(PathBuf::from).to_vec();
        let mut runs: Vec<Run> = ["x-1", "x-1", "y"].map(|name| Run::new(name, json!({"scenario": "idle"}))).to_vec();
        name_apart(&mut runs, &files);
        let names: Vec<(&str, &str)> = runs.iter().map(|run| (run.name.as_str(), run.case.as_str())).collect();
        assert_eq!(names, [("a/x-1", "a/x"), ("b/x-1", "b/x"), ("y", "y")]);
        assert_eq!(scenarios(&runs), "idle");
    }
}
