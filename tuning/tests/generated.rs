//! The files that are made from the rules are the ones in the checkout.
use std::{fs, path::Path};

#[test]
fn profiles_drop_ins_and_the_manuals_chapter_are_what_the_rules_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    for (path, text) in tuning::files() {
        let found = fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(found == text, "{path} is not what the rules say: run `cargo run -p tuning -- generate .`");
    }
}
