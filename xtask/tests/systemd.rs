//! The unit files of `systemd/`, read by systemd itself where it is installed.
use std::{fs, path::Path, process::Command};

const UNITS: [&str; 3] = ["halley.service", "halley.socket", "halley-tune.service"];

/// The exposure that `systemd-analyze security` may give the gateway at most (0.0 to 10.0, in tenths); it is stated in
/// docs/operations/security.md.
const EXPOSURE_MAX: u32 = 14;

/// A folder with all units. The programs that they start need not be installed: this test's own stands in for them.
fn scratch(change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = std::env::current_exe().expect("the path of this test").display().to_string();
    for name in UNITS {
        let text = change(&unit(name));
        let text = text.replace("/usr/bin/halley-tune", &program).replace("/usr/bin/halley", &program);
        fs::write(scratch.path().join(name), text).expect("a copy of the unit");
    }
    scratch
}

/// What `systemd-analyze` with these arguments says about our units; none where it is not installed.
fn analyze(folder: &Path, arguments: &[&str]) -> Option<Result<String, String>> {
    let output = Command::new("systemd-analyze").args(arguments).current_dir(folder).output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    // An unknown key is only a warning to it, and to us a mistake. What it says about other units is theirs.
    let ours = said.lines().any(|line| UNITS.iter().any(|unit| line.contains(unit)));
    Some(if output.status.success() && !ours { Ok(out) } else { Err(said + &out) })
}

fn unit(name: &str) -> String {
    // cargo runs tests in their package's folder
    fs::read_to_string(Path::new("../systemd").join(name)).expect("the unit")
}

fn verify(folder: &Path) -> Option<Result<String, String>> {
    let paths = UNITS.map(|name| format!("./{name}"));
    analyze(folder, &["verify", "--man=no", &paths[0], &paths[1], &paths[2]])
}

#[test]
fn systemd_accepts_the_units_and_would_refuse_a_misspelt_one() {
    let Some(verdict) = verify(scratch(str::to_owned).path()) else {
        eprintln!("skipped: systemd-analyze is not installed here");
        return;
    };
    assert!(verdict.is_ok(), "{verdict:?}");
    let misspelt = scratch(|unit| unit.replace("LimitMEMLOCK=", "LimitMEMLOK="));
    assert!(matches!(verify(misspelt.path()), Some(Err(_))), "verify accepts anything here");
}

#[test]
fn the_drop_ins_of_the_profiles_are_accepted_too() {
    for profile in ["gateway", "gateway-lowmem"] {
        let scratch = scratch(str::to_owned);
        let folder = scratch.path().join("halley.service.d");
        fs::create_dir(&folder).expect("a folder");
        fs::copy(format!("../systemd/halley.service.d/{profile}.conf"), folder.join("50-halley.conf")).expect("a copy");
        if let Some(verdict) = verify(scratch.path()) {
            assert!(verdict.is_ok(), "{verdict:?}");
        }
    }
}

#[test]
fn the_gateways_exposure_is_what_the_manual_says_and_more_would_fail() {
    let security = |change: &dyn Fn(&str) -> String| {
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        analyze(scratch(change).path(), &["security", "--offline=yes", &threshold, "./halley.service"])
    };
    let Some(verdict) = security(&|unit| unit.to_owned()) else {
        eprintln!("skipped: systemd-analyze is not installed here");
        return;
    };
    if let Err(said) = &verdict {
        assert!(said.contains("--offline"), "more exposed than stated: {said}");
        eprintln!("skipped: this systemd-analyze reads no files");
        return;
    }
    let open = security(&|unit| unit.replace("PrivateDevices=yes", "").replace("CapabilityBoundingSet=\n", ""));
    assert!(matches!(open, Some(Err(_))), "any exposure is accepted here");
    let manual = fs::read_to_string("../docs/operations/security.md").expect("the chapter");
    let stated = format!("{}.{}", EXPOSURE_MAX / 10, EXPOSURE_MAX % 10);
    assert!(manual.contains(&format!("**{stated}**")), "docs/operations/security.md does not say {stated}");
}

#[test]
fn the_unit_gives_the_gateway_what_it_needs() {
    let unit = unit("halley.service");
    let set = |line: &str| unit.lines().any(|other| other == line);
    assert!(set("LimitMEMLOCK=infinity"), "ring memory counts against it");
    assert!(set("LimitNOFILE=1048576"), "the file table of a ring may not be larger");
    assert!(!unit.contains("ProcSubset="), "the start-up check reads /proc/sys");
    assert!(set("SystemCallFilter=@system-service"), "holds the io_uring calls, through @aio");
    assert!(set("ProtectSystem=strict") && set("StateDirectory=halley"), "the one place to write is for positions");
    let kafka = fs::read_to_string("../docs/kafka.md").expect("the page on Kafka");
    assert!(kafka.contains("position_file = \"/var/lib/halley/"), "the example of docs/kafka.md is in that place");
    assert!(set("Type=notify") && unit.contains("\nWatchdogSec="), "started means that it serves");
}
