//! Writes the release's archive and Debian package: `packaging WORKSPACE PROGRAMS OUT`.
use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use clap::Parser;

/// Packs programs that are built, with everything around them, into a tarball and a .deb.
#[derive(Parser)]
struct Arguments {
    /// The checkout.
    workspace: PathBuf,
    /// The folder with halley, halley-tune and halley-bench.
    programs: PathBuf,
    /// Where the packages go.
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packaging: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let files = packaging::release(&arguments.workspace, &arguments.programs)?;
    fs::create_dir_all(&arguments.out)?;
    for (name, bytes) in [packaging::tarball(&files)?, packaging::deb(&files)?] {
        let path = arguments.out.join(name);
        fs::write(&path, bytes)?;
        println!("{}", path.display());
    }
    Ok(())
}
