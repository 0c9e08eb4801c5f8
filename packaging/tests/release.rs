//! The packages, unpacked into a scratch root as a host would, and the gateway started from there.
mod gateway;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
};

use packaging::{File, PROGRAMS, release};
use serde_json::Value;

use gateway::{Running, halley, workspace};

/// A release of small stand-ins, which pack quickly.
fn stand_ins() -> Vec<File> {
    let programs = tempfile::tempdir().expect("a folder");
    for program in PROGRAMS {
        fs::write(programs.path().join(program), "#!/bin/sh\n").expect("a stand-in");
    }
    release(workspace(), programs.path()).expect("a release")
}

/// The .deb, unpacked by dpkg where there is one, and else by its format.
fn unpacked() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let mut files = stand_ins();
    let gateway = files.iter_mut().find(|file| file.path == "usr/bin/halley").expect("the gateway");
    // Without what debuggers read it is a tenth; where there is no strip it goes as it is.
    let stripped = scratch.path().join("halley");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(halley()).status();
    let program = if strip.is_ok_and(|status| status.success()) { stripped } else { halley() };
    gateway.bytes = fs::read(program).expect("the gateway");
    let (name, bytes) = packaging::deb(&files).expect("a package");
    let package = scratch.path().join(name);
    fs::write(&package, &bytes).expect("the package");
    let root = scratch.path().join("root");
    let extracted = Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root).status();
    if !extracted.is_ok_and(|status| status.success()) {
        let mut archive = ar::Archive::new(bytes.as_slice());
        while let Some(entry) = archive.next_entry() {
            let entry = entry.expect("an entry");
            if entry.header().identifier() == b"data.tar.gz" {
                tar::Archive::new(flate2::read::GzDecoder::new(entry)).unpack(&root).expect("the files");
            }
        }
    }
    scratch
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// The gateway of the scratch root as nobody, without capabilities and new privileges, where this test may do that.
fn unprivileged(root: &Path) -> Command {
    let program = root.join("usr/bin/halley");
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    let able = Command::new("setpriv").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_root || !able {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]);
    command.args(["--inh-caps=-all"]).arg(program);
    command
}

#[test]
fn the_package_starts_an_unprivileged_gateway_from_a_scratch_root() {
    let scratch = unpacked();
    let root = scratch.path().join("root");
    // nobody must be able to get there
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("a folder of ours");
    let configuration = root.join("etc/halley/halley.toml");
    let token = "HALLEY__API__TOKENS";
    let (right, text) =
        said(unprivileged(&root).arg("--config").arg(&configuration).arg("--check-config").env_remove(token));
    assert!(!right && text.contains("api.tokens"), "without a token it does not start: {text}");

    let as_packed = fs::read_to_string(&configuration).expect("the configuration");
    let anywhere =
        ["3101", "3102", "3111"].iter().fold(as_packed, |text, port| text.replace(&format!(":{port}\""), ":0\""));
    fs::write(&configuration, anywhere).expect("a configuration with ports of the kernel's choice");
    let mut command = unprivileged(&root);
    command.arg("--config").arg(&configuration).env(token, "['0123456789abcdef']");
    let mut gateway = Running(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts"));
    let lines = BufReader::new(gateway.0.stderr.take().expect("piped")).lines();
    let ready = lines.map_while(Result::ok).find_map(|line| {
        let json: Value = serde_json::from_str(&line).ok()?;
        (json["event"] == "ready").then_some(json)
    });
    let ready = ready.expect("it serves");
    assert_eq!(ready["listeners"].as_array().map(Vec::len), Some(2), "{ready}");
    let api: std::net::SocketAddr = ready["api"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    assert!(api.ip().is_loopback(), "as packaged, nobody else reaches the API");
    std::net::TcpStream::connect(api).expect("the API listens");
}

#[test]
fn the_packaged_sockets_are_those_of_the_packaged_configuration() {
    let files = stand_ins();
    let of = |path: &str, key: &str| -> Vec<String> {
        let file = files.iter().find(|file| file.path == path).expect("the file");
        let lines = std::str::from_utf8(&file.bytes).expect("text").lines();
        lines.filter_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"').to_owned()).collect()
    };
    let sockets = of("usr/lib/systemd/system/halley.socket", "ListenStream=");
    // The first is the API's, which systemd does not hold.
    assert_eq!(sockets, of("etc/halley/halley.toml", "bind = ")[1..]);
    assert!(sockets.iter().all(|address| address.starts_with("127.0.0.1:")), "nobody else unless the operator says so");
}

/// What a page links to, from the root: web pages and places of the page itself left out.
fn targets(page: &File) -> Vec<String> {
    let text = std::str::from_utf8(&page.bytes).expect("text");
    let links = text.split("](").skip(1).filter_map(|link| link.split([')', '#', ' ']).next());
    let relative = links.filter(|link| !link.is_empty() && !link.contains(':'));
    let target = |link: &str| {
        let mut parts: Vec<&str> = page.path.split('/').collect();
        parts.pop();
        for part in link.split('/') {
            if part == ".." {
                parts.pop().expect("within the root");
            } else {
                parts.push(part);
            }
        }
        parts.join("/")
    };
    relative.map(target).collect()
}

#[test]
fn every_link_of_an_installed_page_has_its_target_in_the_package() {
    let files = stand_ins();
    let mut linked = std::collections::BTreeSet::new();
    for page in files.iter().filter(|file| Path::new(&file.path).extension().is_some_and(|end| end == "md")) {
        for target in targets(page) {
            let there = |file: &File| file.path == target || file.path.starts_with(&format!("{target}/"));
            assert!(files.iter().any(there), "{} links to {target}, which is not installed", page.path);
            linked.insert(target);
        }
    }
    for path in ["doc/halley/kafka.md", "doc/halley/overview.md", "doc/halley/copyright", "halley/halley.service.d"] {
        assert!(linked.contains(&format!("usr/share/{path}")), "{path} is linked by no page: {linked:?}");
    }
}

#[test]
fn every_program_has_its_page_and_its_completions() {
    let files = stand_ins();
    let has = |path: &str| files.iter().any(|file| file.path == path && !file.bytes.is_empty());
    for program in PROGRAMS {
        for path in [
            format!("usr/bin/{program}"),
            format!("usr/share/man/man1/{program}.1.gz"),
            format!("usr/share/bash-completion/completions/{program}"),
            format!("usr/share/zsh/vendor-completions/_{program}"),
            format!("usr/share/fish/vendor_completions.d/{program}.fish"),
        ] {
            assert!(has(&path), "{path}");
        }
    }
    for path in [
        "usr/share/man/man1/halley-tune-apply.1.gz",
        "usr/lib/systemd/system/halley.socket",
        "usr/share/halley/sysctl.d/90-halley-gateway.conf",
        "usr/share/doc/halley/operations/runbook.md",
    ] {
        assert!(has(path), "{path}");
    }
    assert!(!files.iter().any(|file| file.path.contains("floor-server")), "hidden commands have no page");
}

#[test]
fn debians_tools_read_the_package() {
    let files = stand_ins();
    let (name, bytes) = packaging::deb(&files).expect("a package");
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let package = scratch.path().join(&name);
    fs::write(&package, bytes).expect("the package");
    let Ok(output) = Command::new("dpkg-deb").arg("--info").arg(&package).output() else {
        eprintln!("skipped: dpkg is not installed here");
        return;
    };
    let about = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in ["Package: halley", "postinst", "conffiles", "Depends: libc6"] {
        assert!(about.contains(part), "{part} in {about}");
    }
    let (_, listed) = said(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let halley = listed.lines().find(|line| line.ends_with("usr/bin/halley")).expect("the program");
    assert!(halley.starts_with("-rwxr-xr-x root/root"), "{halley}");
    for script in ["postinst", "prerm", "postrm"] {
        let path = workspace().join("packaging/deb").join(script);
        let (right, text) = said(Command::new("sh").arg("-n").arg(&path));
        assert!(right, "{script}: {text}");
    }
}

#[test]
fn the_tarball_holds_the_same_files_below_one_folder() {
    let files = stand_ins();
    let (name, bytes) = packaging::tarball(&files).expect("an archive");
    let folder = name.strip_suffix(".tar.gz").expect("its ending").to_owned();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
    let inside = archive.entries().expect("entries").map(|entry| entry.expect("an entry"));
    let plain = inside.filter(|entry| entry.header().entry_type().is_file());
    let paths: Vec<String> = plain.map(|entry| entry.path().expect("a path").display().to_string()).collect();
    let wanted: Vec<String> = files.iter().map(|file| format!("{folder}/{}", file.path)).collect();
    assert_eq!(paths, wanted);
}

#[test]
fn the_seccomp_profile_allows_rings_and_refuses_what_it_does_not_name() {
    let text = fs::read_to_string(workspace().join("packaging/seccomp.json")).expect("the profile");
    let profile: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    let calls = profile["syscalls"][0]["names"].as_array().expect("names");
    let allowed = |name: &str| calls.iter().any(|other| other == name);
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register", "sched_setaffinity", "prlimit64", "execve"] {
        assert!(allowed(call), "{call}");
    }
    for call in ["ptrace", "mount", "bpf", "init_module", "keyctl", "unshare", "setns", "userfaultfd"] {
        assert!(!allowed(call), "{call}");
    }
}
