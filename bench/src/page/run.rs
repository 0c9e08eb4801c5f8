//! One run as the page sees it: a JSON file of any scenario and any version, read by paths.

use std::path::Path;

use serde_json::Value;

/// A run.
#[derive(Clone, Debug)]
pub struct Run {
    /// What it is called: the name of its file.
    pub name: String,
    /// Runs of one case differ only in the number at the end of their names.
    pub case: String,
    /// What was written.
    pub json: Value,
}

impl Run {
    /// A run of this name.
    pub fn new(name: &str, json: Value) -> Self {
        let number = name.rsplit_once('-').filter(|(case, number)| {
            !case.is_empty() && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let case = number.map_or(name, |(case, _)| case).to_owned();
        Self { name: name.to_owned(), case, json }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(path: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{} cannot be read: {error}", path.display());
        let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
        if !json.is_object() || json.get("scenario").is_none() {
            return Err(format!("{} is no report of halley-bench: it names no scenario", path.display()));
        }
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(Self::new(&name.unwrap_or_default(), json))
    }

    /// What stands at a path such as `server.cpu_seconds` or `fairness_ms.0`; nothing for null.
    pub fn at(&self, path: &str) -> Option<&Value> {
        let whole = find(&self.json, path).filter(|value| !value.is_null());
        // A scenario with a broadcast in it keeps what that has shown apart.
        whole.or_else(|| find(self.json.get("broadcast")?, path).filter(|value| !value.is_null()))
    }

    /// The number at a path.
    pub fn number(&self, path: &str) -> Option<f64> {
        self.at(path)?.as_f64()
    }

    /// The text at a path, or nothing.
    pub fn text(&self, path: &str) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// The strings of a list.
    pub fn strings(&self, path: &str) -> Vec<&str> {
        let list = self.at(path).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Whether the run calls itself valid. One that does not say so is not.
    pub fn is_valid(&self) -> bool {
        self.at("valid") == Some(&Value::Bool(true))
    }

    /// A column of numbers; what is missing is NaN.
    pub fn column(&self, path: &str) -> Vec<f64> {
        self.at(path).and_then(column).unwrap_or_default()
    }

    /// (share, milliseconds); of a run that kept no curve, the percentiles it has.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        if let Some(points) = self.at("latency_curve").and_then(Value::as_array) {
            return points
                .iter()
                .filter_map(|point| Some((point.get(0)?.as_f64()?, point.get(1)?.as_f64()?)))
                .collect();
        }
        let known = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
        known
            .into_iter()
            .filter_map(|(name, share)| Some((share, self.number(&format!("latency_ms.{name}"))?)))
            .collect()
    }
}

/// What stands at a path; numbers are places of a list.
pub fn find<'a>(json: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(json, |value, name| match value {
        Value::Array(list) => list.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// A list of numbers and nulls that has at least one number.
pub(super) fn column(value: &Value) -> Option<Vec<f64>> {
    let list = value.as_array()?;
    let fits = list.iter().all(|item| item.is_number() || item.is_null()) && list.iter().any(Value::is_number);
    fits.then(|| list.iter().map(|item| item.as_f64().unwrap_or(f64::NAN)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn repeated_runs_are_one_case() {
        let case = |name| Run::new(name, json!({})).case;
        assert_eq!(case("10000x10-1"), "10000x10");
        assert_eq!(case("shards-51-2"), "shards-51");
        assert_eq!(case("idle"), "idle");
        assert_eq!(case("-1"), "-1");
    }

    #[test]
    fn a_run_without_a_verdict_is_not_valid() {
        assert!(!Run::new("a", json!({"scenario": "x"})).is_valid());
        assert!(Run::new("a", json!({"valid": true})).is_valid());
    }

    #[test]
    fn an_old_file_without_a_curve_still_has_its_percentiles() {
        let run = Run::new("a", json!({"latency_ms": {"p50": 1.0, "p99": 4.0, "max": 5.0}}));
        assert_eq!(run.curve(), [(0.5, 1.0), (0.99, 4.0), (1.0, 5.0)]);
    }
}
