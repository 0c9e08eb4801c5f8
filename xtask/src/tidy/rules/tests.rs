//! Every rule of tidy on a bad example, and on the nearest good one.
use super::*;

/// What tidy says about one file, without its opening sentence being wrong.
fn messages(path: &str, text: &str) -> Vec<String> {
    let paths: Paths = ["docs/glossary.md", "README.md"].map(str::to_owned).into();
    let mut out = Vec::new();
    let text = if has_extension(path, "rs") { format!("//! A file.\n{text}") } else { text.to_owned() };
    apply(&File::new(path, text), &paths, &mut out);
    out.into_iter().map(|complaint| complaint.message).collect()
}

fn refused(path: &str, text: &str, because: &str) {
    let found = messages(path, text);
    assert!(found.len() == 1 && found[0].contains(because), "{path}: {text}\ngave {found:?}");
}

fn accepted(path: &str, text: &str) {
    assert_eq!(messages(path, text), [""; 0], "{path}: {text}");
}

#[test]
fn whitespace_at_the_end_and_tabs_are_refused() {
    refused("a.toml", "x = 1 \n", "whitespace");
    refused("a.rs", "\tfn f() {}\n", "tab");
    accepted("Makefile", "all:\n\tcc\n");
}

#[test]
fn marks_of_undone_work_are_refused_in_any_file() {
    for mark in UNDONE {
        refused("a.toml", &format!("# {mark}: later\n"), mark);
    }
    refused("a.rs", "fn f() { todo!() }\n", "todo!");
    refused("a.rs", "fn f() { unimplemented!() }\n", "unimplemented!");
    accepted("a.sh", &format!("mktemp name.{}\n", "X".repeat(6)));
}

#[test]
fn folders_of_one_machine_are_refused() {
    for folder in MACHINE_FOLDERS {
        refused("a.md", &format!("see {folder}/notes\n"), folder);
        refused("a.sh", &format!("cd {folder}\n"), folder);
        accepted("a.md", &format!("see docs{folder}/notes\n"));
    }
}

#[test]
fn a_file_begins_with_a_sentence() {
    let opening = |text: &str| {
        let mut out = Vec::new();
        opening_sentence(&File::new("a.rs", text.to_owned()), &mut out);
        out.len()
    };
    assert_eq!(opening("use std::fmt;\n"), 1);
    assert_eq!(opening("//! gateway\n"), 1);
    assert_eq!(opening("//! A sentence over\n//! two lines.\nuse std::fmt;\n"), 0);
}

#[test]
fn a_long_file_needs_a_reason() {
    let long = "const A: u8 = 0;\n".repeat(FILE_LINES_MAX);
    refused("a.rs", &long, "501 lines");
    refused("a.rs", &format!("// long: \n{long}").replace(": \n", ":\n"), "502 lines");
    accepted("a.rs", &format!("// long: one table\n{long}"));
    accepted("a.rs", &"const A: u8 = 0;\n".repeat(FILE_LINES_MAX - 1));
}

#[test]
fn a_long_function_needs_a_reason() {
    let long = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    refused("a.rs", &long(FUNCTION_LINES_MAX + 1), "`f` has 71 lines");
    accepted("a.rs", &format!("// long: one match\n#[inline]\n{}", long(FUNCTION_LINES_MAX + 1)));
    accepted("a.rs", &long(FUNCTION_LINES_MAX));
}

#[test]
fn unsafe_stands_only_where_tidy_lists_it() {
    let text = "fn f() { unsafe { g() } }\n";
    refused("gateway/src/shard/mod.rs", text, "unsafe");
    refused("protocol/src/lib.rs", text, "unsafe");
    accepted("ring/src/kernel.rs", text);
    accepted("gateway/src/shard/mod.rs", "// nothing unsafe here\n#![forbid(unsafe_code)]\n");
}

#[test]
fn ignored_tests_are_refused() {
    refused("a.rs", "#[ignore = \"slow\"]\nfn f() {}\n", "ignored test");
    refused("a.rs", "#[cfg_attr(miri, ignore)]\nfn f() {}\n", "ignored test");
}

#[test]
fn maxima_are_named_with_max_last() {
    refused("a.rs", "pub const MAX_ROOMS: usize = 1;\n", "MAX_ROOMS");
    refused("a.rs", "    pub max_rooms: usize,\n", "max_rooms");
    accepted("a.rs", "const ROOMS_MAX: usize = 1;\nlet x = iter.max_by(f);\n");
    accepted("a.rs", "    max_message_size: Some(1),\n");
}

#[test]
fn the_protocol_knows_neither_io_nor_clock() {
    for refused_name in PROTOCOL_REFUSED {
        let text = format!("use {refused_name};\n");
        refused("protocol/src/frame.rs", &text, refused_name);
        accepted("protocol/src/frame.rs", &format!("#[cfg(test)]\nmod tests {{ {text} }}\n"));
        accepted("gateway/src/frame.rs", &text);
    }
}

#[test]
fn links_lead_to_files_of_the_checkout() {
    refused("docs/a.md", "[x](missing.md)\n", "missing.md");
    refused("docs/a.md", "[x](../../outside.md)\n", "outside.md");
    accepted(
        "docs/a.md",
        "[x](glossary.md#run) [y](../README.md) [z](https://example.org/a) [w](#here) [d](../docs/)\n",
    );
    accepted("docs/a.md", "```\n[x](missing.md)\n```\n");
}

#[test]
fn files_named_in_documents_are_there() {
    refused("a.md", "see `docs/missing.md`\n", "docs/missing.md");
    accepted("a.md", "see `docs/glossary.md`, `docs/`, `target/debug/halley`, `/v1/push`, `docs/{a,b}.md`\n");
}
