//! Examples of shell commands: fenced blocks of the language `console`, run by bash.
//!
//! A line `$ COMMAND` is run, lines `> ...` after it belong to it, all other lines are what it
//! prints. The words after `console` say who runs the block (`root`, `user`) and whether the
//! kernel's overlayfs is needed (`kernel`); a block without a word is not run. A block of the
//! language `bash` is read before each example: the document shows the functions that it uses.
//!
//! Invariants: each example has a directory of its own, in which nothing is mounted afterwards;
//! a command that fails must say so; what cannot be understood is an error with its line.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

/// The ordinary user, where root runs the tests.
const NOBODY: u32 = 65534;
/// Between the output of two commands; nothing else prints it.
const MARK: &str = "\u{1}end of command\u{1}";

/// One example.
pub(crate) struct Example {
    /// The line of the document on which its block begins.
    pub(crate) line: usize,
    pub(crate) user: bool,
    pub(crate) kernel: bool,
    steps: Vec<ConsoleCommand>,
}

struct ConsoleCommand {
    line: usize,
    command: String,
    expected: String,
}

/// A document's examples, and what is read before each.
pub(crate) struct Document {
    pub(crate) examples: Vec<Example>,
    prelude: String,
}

/// Reads a document.
pub(crate) fn parse(text: &str) -> Result<Document, String> {
    let mut document = Document { examples: Vec::new(), prelude: String::new() };
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(words) = line.strip_prefix("```") else { continue };
        let block = lines.by_ref().take_while(|(_, line)| *line != "```");
        let mut words = words.split(' ');
        match (words.next(), words.collect::<Vec<_>>()) {
            (Some("bash"), _) => block.for_each(|(_, line)| {
                document.prelude.push_str(line);
                document.prelude.push('\n');
            }),
            (Some("console"), words) if !words.is_empty() => {
                let mut example =
                    Example { line: at + 1, user: false, kernel: false, steps: steps(block)? };
                for word in words {
                    match word {
                        "root" => {}
                        "user" => example.user = true,
                        "kernel" => example.kernel = true,
                        word => return Err(format!("line {}: what is {word}?", at + 1)),
                    }
                }
                document.examples.push(example);
            }
            _ => block.for_each(drop),
        }
    }
    Ok(document)
}

fn steps<'a>(block: impl Iterator<Item = (usize, &'a str)>) -> Result<Vec<ConsoleCommand>, String> {
    let mut steps: Vec<ConsoleCommand> = Vec::new();
    for (at, line) in block {
        if let Some(command) = line.strip_prefix("$ ") {
            let (line, command) = (at + 1, format!("{command}\n"));
            steps.push(ConsoleCommand { line, command, expected: String::new() });
            continue;
        }
        let step = steps.last_mut();
        let step = step.ok_or_else(|| format!("line {}: output before a command", at + 1))?;
        match line.strip_prefix("> ") {
            Some(more) if step.expected.is_empty() => {
                step.command.push_str(more);
                step.command.push('\n');
            }
            _ => {
                step.expected.push_str(line);
                step.expected.push('\n');
            }
        }
    }
    Ok(steps)
}

/// Whether an example can be run here: the mounts are root's, or an ordinary user's.
pub(crate) fn can_run(example: &Example) -> bool {
    let root = rustix::process::geteuid().is_root();
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).exists())
    };
    let tools = ["getfattr", "getfacl", "python3", "tar"].into_iter().all(there);
    let tools = tools && Path::new("/dev/fuse").exists();
    let user = !root || there("setpriv");
    tools
        && match (example.user, example.kernel) {
            (true, _) => user && there("fusermount3"),
            (false, true) => root && kernel_mounts(),
            (false, false) => root,
        }
}

/// Whether the kernel's overlayfs takes an upper where the examples have theirs.
fn kernel_mounts() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(at(name)).unwrap();
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    );
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "-o", &options, "overlay"]).arg(at("merged"));
    let mounted = mount.stderr(Stdio::null()).status().unwrap().success();
    leave_nothing_mounted(dir.path());
    mounted
}

/// Directories that everybody can reach, with the programs in them.
pub(crate) struct Programs(tempfile::TempDir);

impl Programs {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let programs = [
            ("strata", env!("CARGO_BIN_EXE_strata")),
            ("strata-overlay", env!("CARGO_BIN_EXE_strata-overlay")),
        ];
        for (name, program) in programs {
            fs::copy(program, dir.path().join(name)).unwrap();
        }
        Self(dir)
    }
}

/// Runs an example; where its output is not what the document says.
pub(crate) fn differences(
    document: &Document,
    example: &Example,
    programs: &Programs,
) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut script = format!("exec 2>&1\n{}", document.prelude);
    for step in &example.steps {
        script.push_str(&step.command);
        script.push_str(&format!("printf '%s %s\\n' '{MARK}' $?\n"));
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut bash = bash(example.user);
    if example.user && rustix::process::geteuid().is_root() {
        chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    bash.args(["--norc", "--noprofile", "-c", &script])
        .current_dir(dir.path())
        .env_clear()
        .env("STRATA_BACKEND", "fuse")
        .env("PATH", format!("{}:{path}", programs.0.path().display()))
        .env("HOME", dir.path())
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    let output = bash.output().unwrap();
    leave_nothing_mounted(dir.path());
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rest = output.as_str();
    let mut wrong = Vec::new();
    for ConsoleCommand { line, command, expected } in &example.steps {
        let command = command.trim_end();
        let Some((seen, after)) = rest.split_once(MARK) else {
            wrong.push(format!("{line}: $ {command}\nended it all: {rest}"));
            break;
        };
        let (code, next) = after.split_once('\n').unwrap_or((after, ""));
        rest = next;
        if seen != expected {
            wrong.push(format!("{line}: $ {command}\n{seen}--- expected:\n{expected}"));
        } else if code.trim() != "0" && seen.is_empty() {
            wrong.push(format!("{line}: $ {command}\nfailed with{code} and said nothing"));
        }
    }
    wrong
}

/// Bash, as root or as an ordinary user.
fn bash(user: bool) -> Command {
    if !(user && rustix::process::geteuid().is_root()) {
        return Command::new("bash");
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}"));
    command.args(["--clear-groups", "--inh-caps=-all", "bash"]);
    command
}

fn leave_nothing_mounted(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points: Vec<_> = points.filter(|point| Path::new(point).starts_with(dir)).collect();
    for point in points.iter().rev() {
        let unmounted = Command::new("umount").args(["-l", point]).status().unwrap();
        assert!(unmounted.success(), "cannot unmount {point}");
    }
}
