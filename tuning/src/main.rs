//! `halley-tune`: says how many connections a host carries and what stops the next one, changes it, and undoes that.
use std::{
    error::Error,
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Parser;
use tuning::cli::{self, Apply, Cli, Command, PlanArguments};
use tuning::{Changes, Demand, Journal, Plan, Report, Tree, revert};

/// Whether the answer was "enough"; an error is exit code 2.
type Answer = Result<bool, Box<dyn Error>>;

fn main() -> ExitCode {
    let answer = match Cli::parse().command {
        Command::Report(arguments) => report(&arguments),
        Command::Apply(arguments) => apply(&arguments),
        Command::Revert { yes, root } => undo(yes, &root),
        Command::Plan(arguments) => plan(&arguments),
        Command::Record => record(),
        Command::Generate { folder } => generate(&folder),
    };
    match answer {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("halley-tune: {error}");
            ExitCode::from(2)
        }
    }
}

fn report(arguments: &cli::Report) -> Answer {
    let tree = Tree::open(&arguments.root)?;
    let tree = if let Some(process) = arguments.pid { tree.of_process(process)? } else { tree };
    let report = Report::of(&tree, &arguments.demand())?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.text(arguments.all));
    }
    Ok(report.enough)
}

fn apply(arguments: &Apply) -> Answer {
    let changes = Changes::of(&Tree::open(&arguments.root)?, arguments.profile)?;
    print!("{}", changes.diff());
    for sentence in &changes.left {
        println!("left: {sentence}");
    }
    if changes.steps.is_empty() {
        println!("nothing to change");
        return Ok(true);
    }
    if arguments.dry_run || !agreed(arguments.yes, "Change this?")? {
        println!("nothing was changed");
        return Ok(true);
    }
    changes.apply(&arguments.root)?;
    println!("changed; `halley-tune revert` restores what was found");
    if changes.steps.iter().any(|step| step.path.starts_with("etc/systemd/")) {
        println!("limits of the unit hold from its next start: systemctl daemon-reload && systemctl restart halley");
    }
    Ok(true)
}

fn undo(yes: bool, root: &Path) -> Answer {
    let Some(journal) = Journal::load(root)? else {
        revert(root)?;
        println!("nothing is applied");
        return Ok(true);
    };
    print!("{}", journal.diff());
    if !agreed(yes, "Restore this?")? {
        println!("nothing was changed");
        return Ok(true);
    }
    revert(root)?;
    println!("restored");
    Ok(true)
}

fn plan(arguments: &PlanArguments) -> Answer {
    let plan = Plan::new(arguments.traffic()?, arguments.node());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        print!("{}", plan.text());
    }
    Ok(true)
}

fn record() -> Answer {
    let tree = Tree::open(Path::new("/"))?;
    for profile in tuning::Profile::ALL {
        Report::of(&tree, &Demand { profile, ..Demand::gateway(1) })?;
        Changes::of(&tree, profile)?;
    }
    print!("{}", tree.recording());
    Ok(true)
}

fn generate(folder: &Path) -> Answer {
    for (path, text) in tuning::files() {
        let path = folder.join(path);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, text)?;
    }
    Ok(true)
}

/// Asks, unless that was answered on the command line.
fn agreed(yes: bool, question: &str) -> Result<bool, Box<dyn Error>> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err("nobody to ask: say --yes, or --dry-run".into());
    }
    print!("{question} [y/N] ");
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
