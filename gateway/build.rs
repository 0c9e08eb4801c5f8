//! Packs the files of `page/` into the program: as they are, compressed, and named by a hash of their bytes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha1::{Digest as _, Sha1};

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where it builds")).join("page");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to"));
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.sort();
    let mut table = String::from("&[\n");
    for file in &files {
        pack(file, &out, &mut table)?;
    }
    fs::write(out.join("assets.rs"), table + "]")
}

/// Compresses one file, and adds its line to the table.
fn pack(file: &Path, out: &Path, table: &mut String) -> io::Result<()> {
    let name = file.file_name().expect("a file of a folder").to_string_lossy();
    let bytes = fs::read(file)?;
    let compressed = out.join(format!("{name}.gz"));
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    fs::write(&compressed, gzip.finish()?)?;
    let hash = Sha1::digest(&bytes).iter().take(8).fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
    let include = |path: &Path| format!("include_bytes!({:?})", path.display().to_string());
    writeln!(
        table,
        "Asset {{ name: {name:?}, tag: \"\\\"{hash}\\\"\", plain: {}, gzip: {} }},",
        include(file),
        include(&compressed)
    )
    .expect("a String takes everything");
    Ok(())
}
