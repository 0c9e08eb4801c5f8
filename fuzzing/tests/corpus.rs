//! Replays what fuzzers kept, and checks that every target has a corpus and a program.

use std::path::PathBuf;

use fuzzing::TARGETS;

fn fuzz(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(path)
}

#[test]
fn every_corpus_passes() {
    for (target, run) in TARGETS {
        let mut files = 0;
        for entry in std::fs::read_dir(fuzz("corpus").join(target)).expect("a corpus for every target") {
            let path = entry.expect("readable").path();
            let bytes = std::fs::read(&path).expect("readable");
            let run = std::panic::catch_unwind(|| run(&bytes));
            assert!(run.is_ok(), "{}", path.display());
            files += 1;
        }
        assert!(files > 0, "{target} has nothing to replay");
        run(&[]);
    }
}

#[test]
fn every_target_has_a_program_and_no_other_has() {
    let mut programs: Vec<_> = std::fs::read_dir(fuzz("fuzz_targets"))
        .expect("the programs")
        .map(|entry| entry.expect("readable").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    programs.sort();
    assert_eq!(programs, TARGETS.map(|(target, _)| target));
    let manifest = std::fs::read_to_string(fuzz("Cargo.toml")).expect("the manifest");
    for (target, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
    }
}
