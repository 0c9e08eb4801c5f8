//! The archives: a tarball, and a Debian package (deb(5): an `ar` of a version, `control.tar.gz` and `data.tar.gz`).
use std::{
    collections::BTreeSet,
    env,
    io::{self, Write as _},
    time::SystemTime,
};

use flate2::{Compression, write::GzEncoder};

use crate::{VERSION, files::File};

const DESCRIPTION: &str = "connection gateway on io_uring that speaks goim's protocol\n \
    Holds many long-lived TCP and WebSocket connections on one machine and pushes messages to them. With the gateway come\n \
    halley-tune, which explains and changes what a host allows, and halley-bench, a load generator.\n";

/// What happens on the host after unpacking, before removal, and after it.
const SCRIPTS: [(&str, &str); 3] = [
    ("postinst", include_str!("../deb/postinst")),
    ("prerm", include_str!("../deb/prerm")),
    ("postrm", include_str!("../deb/postrm")),
];

/// Name and bytes of `halley-VERSION-ARCHITECTURE-linux.tar.gz`; everything below a folder of that name.
///
/// # Errors
/// None in practice: everything is in memory.
pub fn tarball(files: &[File]) -> io::Result<(String, Vec<u8>)> {
    let name = format!("halley-{VERSION}-{}-linux", env::consts::ARCH);
    let bytes = archive(files, &format!("{name}/"))?;
    Ok((format!("{name}.tar.gz"), bytes))
}

/// Name and bytes of `halley_VERSION_ARCHITECTURE.deb`.
///
/// # Errors
/// None in practice: everything is in memory.
pub fn deb(files: &[File]) -> io::Result<(String, Vec<u8>)> {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let kib = files.iter().map(|file| file.bytes.len().div_ceil(1024)).sum::<usize>();
    let control = format!(
        "Package: halley\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: Halley <halley@example.org>\n\
         Installed-Size: {kib}\nDepends: libc6 (>= 2.34), libgcc-s1\nRecommends: systemd (>= 247)\nSection: net\n\
         Priority: optional\nDescription: {DESCRIPTION}"
    );
    let mut about = vec![
        File::plain("control".to_owned(), control.into_bytes()),
        File::plain("conffiles".to_owned(), b"/etc/halley/halley.toml\n".to_vec()),
    ];
    for (name, text) in SCRIPTS {
        about.push(File { path: name.to_owned(), program: true, bytes: text.as_bytes().to_vec() });
    }
    let mut package = ar::Builder::new(Vec::new());
    let parts = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", archive(&about, "./")?),
        ("data.tar.gz", archive(files, "./")?),
    ];
    for (name, bytes) in parts {
        let mut header = ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64);
        header.set_mode(0o100_644);
        header.set_mtime(made());
        package.append(&header, bytes.as_slice())?;
    }
    Ok((format!("halley_{VERSION}_{architecture}.deb"), package.into_inner()?))
}

/// Files and the folders above them, owned by root, packed.
fn archive(files: &[File], below: &str) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let mut folders = BTreeSet::new();
    for file in files {
        let path = format!("{below}{}", file.path);
        for (at, _) in path.match_indices('/') {
            let folder = &path[..=at];
            if folder != "./" && folders.insert(folder.to_owned()) {
                archive.append_data(&mut header(tar::EntryType::Directory, 0o755, 0)?, folder, io::empty())?;
            }
        }
        let mode = if file.program { 0o755 } else { 0o644 };
        let mut header = header(tar::EntryType::Regular, mode, file.bytes.len() as u64)?;
        archive.append_data(&mut header, &path, file.bytes.as_slice())?;
    }
    archive.into_inner()?.finish()
}

fn header(kind: tar::EntryType, mode: u32, bytes: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_mtime(made());
    Ok(header)
}

/// The time that files carry, Unix seconds: `SOURCE_DATE_EPOCH` where a build is to be repeated byte by byte.
fn made() -> u64 {
    let given = env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Packed by gzip, without a name or a time in it.
pub(crate) fn packed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
