//! The rules themselves: each a function over one file, each shown by a test to refuse a bad example.
use super::{
    Complaint, File, Paths, has_extension,
    source::{functions, has_word, is_word},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Where `unsafe` may stand besides `ring/`, and why. The module itself states its invariant and how it is tested.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("ring/", "talks to the kernel: submission entries carry addresses"),
    ("gateway/src/alloc.rs", "a global allocator that counts is an unsafe trait"),
    ("gateway/src/source/kafka/credentials.rs", "calls a function of librdkafka that its crate does not wrap"),
    (
        "gateway/src/source/kafka/native.rs",
        "calls functions of librdkafka that its crate does not wrap, or wraps with a panic",
    ),
    ("gateway/tests/kafka/odd.rs", "gives rdkafka a header whose name is no text"),
];

/// Marks of work left undone, in halves: this file is checked too.
const UNDONE: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Folders of somebody's machine that no file may name.
const MACHINE_FOLDERS: &[&str] = &[concat!("/ho", "me"), concat!("/ro", "ot"), concat!("/wo", "rk")];

/// What the protocol crate must not know: bytes in, events out.
const PROTOCOL_REFUSED: &[&str] = &["std::io", "std::net", "Instant", "SystemTime"];

/// Words after which a name is defined. Private fields are left out: they look like those of a foreign struct in use.
const DEFINES: &[&str] = &["const", "static", "let", "mut", "fn", "pub", "pub(crate)", "pub(super)"];

/// Applies every rule that concerns this kind of file.
pub(super) fn apply(file: &File, paths: &Paths, out: &mut Vec<Complaint>) {
    whitespace(file, out);
    undone(file, out);
    machine_folders(file, out);
    if file.is_rust() {
        opening_sentence(file, out);
        file_length(file, out);
        function_length(file, out);
        unsafe_places(file, out);
        ignored_tests(file, out);
        maxima(file, out);
        protocol_purity(file, out);
    } else if has_extension(&file.path, "md") {
        links(file, paths, out);
        named_files(file, paths, out);
    }
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

fn whitespace(file: &File, out: &mut Vec<Complaint>) {
    for (number, line) in lines(&file.text) {
        if line.ends_with([' ', '\t']) {
            out.push(file.complain(number, "whitespace at the end of the line"));
        }
        if file.is_rust() && line.contains('\t') {
            out.push(file.complain(number, "a tab; indent with spaces"));
        }
    }
}

fn undone(file: &File, out: &mut Vec<Complaint>) {
    for (number, line) in lines(&file.text) {
        for mark in UNDONE.iter().filter(|mark| has_word(line, mark)) {
            out.push(file.complain(number, format!("{mark}: do it, or drop it")));
        }
    }
    for (number, line) in lines(&file.code) {
        for call in ["todo!", "unimplemented!"] {
            if line.contains(call) {
                out.push(file.complain(number, format!("{call}: write it, or leave it out")));
            }
        }
    }
}

fn machine_folders(file: &File, out: &mut Vec<Complaint>) {
    for (number, line) in lines(&file.text) {
        for folder in MACHINE_FOLDERS {
            let named = line.match_indices(folder).any(|(at, _)| {
                let inside = |c: char| is_word(c) || matches!(c, '.' | '-' | '/' | '}' | ']');
                !line[..at].ends_with(inside) && !line[at + folder.len()..].starts_with(|c| is_word(c) || c == '-')
            });
            if named {
                out.push(file.complain(number, format!("names {folder}, a folder of one machine")));
            }
        }
    }
}

fn opening_sentence(file: &File, out: &mut Vec<Complaint>) {
    let paragraph: Vec<&str> = file.text.lines().map_while(|line| line.strip_prefix("//! ")).collect();
    if !paragraph.last().is_some_and(|line| line.ends_with(['.', ':'])) {
        out.push(file.complain(1, "must begin with one `//!` sentence on what the file is"));
    }
}

fn file_length(file: &File, out: &mut Vec<Complaint>) {
    let count = file.text.lines().count();
    let excused = file.text.lines().take(10).any(is_excuse);
    if count > FILE_LINES_MAX && !excused {
        let message =
            format!("{count} lines, at most {FILE_LINES_MAX}: split it, or say why near the top (`// long: reason`)");
        out.push(file.complain(1, message));
    }
}

fn function_length(file: &File, out: &mut Vec<Complaint>) {
    let text: Vec<&str> = file.text.lines().collect();
    for function in functions(&file.code) {
        let count = function.last - function.first + 1;
        // Attributes and comments may stand between the excuse and the function.
        let above = text[..function.first - 1].iter().rev();
        let excused = above
            .map(|line| line.trim_start())
            .take_while(|line| line.starts_with("//") || line.starts_with("#["))
            .any(is_excuse);
        if count > FUNCTION_LINES_MAX && !excused {
            let message = format!(
                "`{}` has {count} lines, at most {FUNCTION_LINES_MAX}: split it, or say why above it (`// long: reason`)",
                function.name
            );
            out.push(file.complain(function.first, message));
        }
    }
}

fn is_excuse(line: &str) -> bool {
    line.trim_start().strip_prefix("// long: ").is_some_and(|reason| !reason.trim().is_empty())
}

fn unsafe_places(file: &File, out: &mut Vec<Complaint>) {
    if UNSAFE_ALLOWED.iter().any(|(place, _)| file.path.starts_with(place)) {
        return;
    }
    for (number, line) in lines(&file.code) {
        if has_word(line, "unsafe") {
            out.push(file.complain(number, "unsafe outside the places listed in tidy"));
        }
    }
}

fn ignored_tests(file: &File, out: &mut Vec<Complaint>) {
    for (number, line) in lines(&file.code) {
        let line = line.trim_start();
        if line.starts_with("#[ignore") || (line.starts_with("#[cfg_attr") && has_word(line, "ignore")) {
            out.push(file.complain(number, "an ignored test: run it, or delete it"));
        }
    }
}

/// Units and qualifiers stand last: `STALL_MS_MAX`. Only what is defined here counts, not foreign names in use.
fn maxima(file: &File, out: &mut Vec<Complaint>) {
    for (number, line) in lines(&file.code) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| DEFINES.contains(&pair[0])) {
            if pair[1].starts_with("MAX_") || pair[1].starts_with("max_") {
                let name: String = pair[1].chars().take_while(|&c| is_word(c)).collect();
                out.push(file.complain(number, format!("`{name}`: a maximum ends in `_max` or `_MAX`")));
            }
        }
    }
}

fn protocol_purity(file: &File, out: &mut Vec<Complaint>) {
    if !file.path.starts_with("protocol/src/") {
        return;
    }
    for (number, line) in lines(&file.code) {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break; // tests stand last and may use what they like
        }
        for refused in PROTOCOL_REFUSED.iter().filter(|refused| has_word(line, refused)) {
            out.push(file.complain(number, format!("{refused} in the protocol crate: it knows no I/O and no clock")));
        }
    }
}

/// Relative links lead to files of the checkout.
fn links(file: &File, paths: &Paths, out: &mut Vec<Complaint>) {
    let mut fenced = false;
    for (number, line) in lines(&file.text) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for target in line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !resolved(&file.path, target).is_some_and(|path| exists(&path, paths)) {
                out.push(file.complain(number, format!("the link to {target} leads nowhere")));
            }
        }
    }
}

/// A file named in backticks by its path from the root is there. What does not begin with a folder of the checkout is
/// no such path.
fn named_files(file: &File, paths: &Paths, out: &mut Vec<Complaint>) {
    for (number, line) in lines(&file.text) {
        for name in line.split('`').skip(1).step_by(2) {
            let plain = name.chars().all(|c| is_word(c) || matches!(c, '/' | '.' | '-'));
            let inside = name.split_once('/').is_some_and(|(first, _)| !first.is_empty() && exists(first, paths));
            if plain && inside && !resolved("", name).is_some_and(|path| exists(&path, paths)) {
                out.push(file.complain(number, format!("names {name}, which is not there")));
            }
        }
    }
}

/// `target` as a path from the root; none if it leaves the checkout.
fn resolved(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn exists(path: &str, paths: &Paths) -> bool {
    let folder = format!("{path}/");
    path.is_empty() || paths.contains(path) || paths.iter().any(|other| other.starts_with(&folder))
}

#[cfg(test)]
mod tests;
