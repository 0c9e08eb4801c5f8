//! JSON files that people read and that stay small in a repository: a list of numbers is one line.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

/// Writes a report.
///
/// # Errors
/// If it cannot be written.
pub fn write(report: &impl Serialize, path: &Path) -> io::Result<()> {
    let mut text = String::new();
    pretty(&serde_json::to_value(report)?, 0, &mut text);
    text.push('\n');
    std::fs::write(path, text)
}

fn pretty(value: &Value, depth: usize, out: &mut String) {
    let is_flat = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Array(list) if !list.is_empty() && !list.iter().all(is_flat) => {
            let items = list.iter().map(|item| (String::new(), item));
            block('[', items, ']', depth, out);
        }
        Value::Object(map) if !map.is_empty() => {
            let items = map.iter().map(|(name, item)| (format!("{}: ", Value::from(name.as_str())), item));
            block('{', items, '}', depth, out);
        }
        flat => out.push_str(&flat.to_string()),
    }
}

fn block<'a>(
    open: char,
    items: impl Iterator<Item = (String, &'a Value)>,
    close: char,
    depth: usize,
    out: &mut String,
) {
    let indent = |depth: usize| format!("\n{}", "  ".repeat(depth));
    out.push(open);
    for (index, (name, item)) in items.enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        out.push_str(&indent(depth + 1));
        out.push_str(&name);
        pretty(item, depth + 1, out);
    }
    out.push_str(&indent(depth));
    out.push(close);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_numbers_are_one_line_and_everything_reads_back() {
        let value = json!({"a\"": [1.5, null, "x"], "b": [[0, 1], [1, 2]], "c": {}, "d": [], "e": [{"f": true}]});
        let mut text = String::new();
        pretty(&value, 0, &mut text);
        assert!(text.contains("  \"a\\\"\": [1.5,null,\"x\"],\n"), "{text}");
        assert!(text.contains("\n    [0,1],\n"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
