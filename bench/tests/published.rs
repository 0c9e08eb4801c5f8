//! Every figure in README, in the benchmarks' results and in the manual's measurements is in the committed data. A figure is a
//! link to its file whose title is the field: `[5.35 µs](data/x-1.json "server.cpu_us_per_delivery")`.
//! Of several runs: `[5.4](data/folder "median CASE FIELD")`, or `min`, `max`. `FIELD / 1048576` divides.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};

use bench::page::Run;

/// A number before one of these is a figure, and needs its link.
const UNITS: [&str; 13] =
    ["µs", "us", "ms", "ns", "%", "×", "x", "KiB", "MiB", "GiB", "bytes", "deliveries/s", "pushes/s"];

#[test]
fn every_figure_of_the_readme_is_in_the_data() {
    assert_eq!(wrong("README.md", None), [""; 0]);
}

#[test]
fn every_figure_of_the_results_is_in_the_data() {
    assert_eq!(wrong("docs/benchmarks/README.md", Some("## Results")), [""; 0]);
}

#[test]
fn every_figure_of_the_manuals_measurements_is_in_the_data() {
    assert_eq!(wrong("docs/operations/measured.md", None), [""; 0]);
}

#[test]
fn a_figure_that_is_wrong_or_has_no_source_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, cost) in [("a-1", 5.0), ("a-2", 7.346), ("a-3", 9.0)] {
        let json =
            serde_json::json!({"scenario": "x", "valid": true, "cost": cost, "bytes": 3 << 20, "count": 2_000_000});
        std::fs::write(folder.path().join(format!("{name}.json")), json.to_string()).unwrap();
    }
    let refused = |text: &str| !check(text, folder.path()).is_empty();
    for good in [
        "[7.35 µs](a-2.json \"cost\")",
        "[7](a-2.json \"cost\") ms",
        "[7.3](. \"median a cost\")",
        "[9](. \"max a cost\")",
        "[3.0 MiB](a-1.json \"bytes / 1048576\")",
        "[2,000,000](a-1.json \"count\")",
        "`200 ms`",
        "10,000 clients",
        "[docs](x.md)",
    ] {
        assert!(!refused(good), "{good}: {:?}", check(good, folder.path()));
    }
    for bad in [
        "[7.34](a-2.json \"cost\")",
        "[7.3](a-2.json \"costs\")",
        "[7.3](b.json \"cost\")",
        "[5](. \"median a cost\")",
        "[5](. \"median b cost\")",
        "it takes 5 µs",
        "12.5% less",
        "1.01 × the floor",
        "245 bytes",
        "[fast](a-1.json \"cost\")",
    ] {
        assert!(refused(bad), "{bad}");
    }
}

/// What is wrong with a document, from a heading on to the next of its kind.
fn wrong(document: &str, from: Option<&str>) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let inside = |text: String, heading: &str| {
        let section =
            text.split(&format!("\n{heading}")).nth(1).unwrap_or_else(|| panic!("{document} has no {heading}"));
        section.split("\n## ").next().unwrap_or_default().to_owned()
    };
    let text = from.map_or(text.clone(), |heading| inside(text, heading));
    check(&text, path.parent().unwrap())
}

fn check(text: &str, folder: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let rest = linked(line, folder, &mut wrong);
            let outside_of_code: String = rest.split('`').step_by(2).collect::<Vec<_>>().join(" ");
            wrong.extend(loose(&outside_of_code).map(|figure| format!("{figure} has no source: {line}")));
        }
    }
    wrong
}

/// Checks the links of a line that are figures; answers the line without links.
fn linked(line: &str, folder: &Path, wrong: &mut Vec<String>) -> String {
    let mut rest = String::new();
    let mut parts = line.split("](");
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        let Some((target, after)) = part.split_once(')') else { continue };
        let (start, shown) = before.rsplit_once('[').unwrap_or(("", before));
        rest.push_str(start);
        if let Some((file, title)) = target.split_once(" \"") {
            let field = title.trim_end_matches('"');
            if let Err(why) = compare(shown, &folder.join(file), field) {
                wrong.push(format!("[{shown}]({target}): {why}"));
            }
        }
        before = after;
    }
    rest + before
}

fn compare(shown: &str, path: &Path, title: &str) -> Result<(), String> {
    let (title, divisor) = title.split_once(" / ").unwrap_or((title, "1"));
    let words: Vec<&str> = title.split(' ').collect();
    let mut values = match words.as_slice() {
        [field] => vec![Run::read(path)?.number(field).ok_or("there is no such number")?],
        [_, case, field] => runs(path, case)?.iter().filter_map(|run| run.number(field)).collect(),
        _ => return Err("not FIELD, nor median, min or max CASE FIELD".to_owned()),
    };
    values.sort_by(f64::total_cmp);
    let value = match words[0] {
        "max" => values.last(),
        "median" => values.get(values.len() / 2),
        _ => values.first(),
    };
    let value = value.ok_or("there is no such run")? / divisor.parse::<f64>().map_err(|error| error.to_string())?;
    let number: String = shown
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(|c| c.is_ascii_digit() || ",.".contains(*c))
        .collect();
    let number = number.trim_end_matches(['.', ',']).replace(',', "");
    let digits = number.split_once('.').map_or(0, |(_, digits)| digits.len());
    let half = 0.5 / 10_f64.powi(i32::try_from(digits).unwrap()) * 1.0001;
    let said: f64 = number.parse().map_err(|_| "shows no number".to_owned())?;
    if (said - value).abs() <= half { Ok(()) } else { Err(format!("the data says {value}")) }
}

/// The runs of a case in a folder.
fn runs(folder: &Path, case: &str) -> Result<Vec<Run>, String> {
    let files = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = files
        .map(|file| file.unwrap().path())
        .filter(|path: &PathBuf| path.extension().is_some_and(|end| end == "json"));
    let runs = files.map(|file| Run::read(&file)).collect::<Result<Vec<_>, _>>()?;
    Ok(runs.into_iter().filter(|run| run.case == case).collect())
}

/// Numbers with a unit.
fn loose(text: &str) -> impl Iterator<Item = String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_number = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_digit()) && word.chars().all(|c| c.is_ascii_digit() || ".,".contains(c))
    };
    let bare = |word: &str| word.trim_matches(|c: char| "()|;:,.*".contains(c)).to_owned();
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let word = bare(word);
        let next = words.get(index + 1).map(|next| bare(next)).unwrap_or_default();
        let glued = UNITS.iter().any(|unit| word.strip_suffix(unit).is_some_and(is_number));
        if glued || (is_number(&word) && UNITS.contains(&next.as_str())) {
            found.push(format!("{word} {next}"));
        }
    }
    found.into_iter()
}
