//! The two pages that are no command's: strata(1), and strata-overlay(1).
//!
//! Invariant: every command stands in one group of the overview; what strata-overlay takes is what
//! its own `--help` prints.

use anyhow::{Context as _, Result};
use clap::Command;

use super::places::{LOG, Use};
use super::{EXITS, begun, entries, once, statuses};

/// The commands of the overview, by what they are for.
pub(super) const GROUPS: &[(&str, &[&str])] = &[
    ("Getting and giving images", &["load", "import", "pull", "save", "push", "copy", "serve"]),
    ("Under engines", &["layer-store", "containerd"]),
    ("Registries", &["login", "logout", "search", "manifest", "verify"]),
    ("Whose images are accepted", &["trust"]),
    ("Images", &["images", "inspect", "history", "tag", "rmi"]),
    (
        "Looking inside",
        &["ls", "cat", "cp", "stat", "layers", "lint", "explore", "unpack", "export"],
    ),
    ("Mounting", &["mount", "umount", "mounts"]),
    ("Writable layers", &["uppers", "ps", "diff", "commit", "rm"]),
    ("Where the bytes are", &["df", "why", "duplicates", "reuse", "report", "facts"]),
    ("The store", &["fsck", "gc", "info"]),
    ("docker's groups of commands", &["image", "container", "system"]),
    ("This program", &["version", "help", "completions", "man"]),
];

const WHAT: &[&str] = &[
    "strata stores container images without a container engine. It unpacks each layer once, keeps \
     equal files once for all layers of all images, and knows every fact about them. It mounts any \
     image through FUSE, as root or as an ordinary user, read-only or with a writable layer on \
     top; it lists, reads, compares and exports images without a mount as well.",
    "No daemon has to run and nothing has to be set up: the first command that adds an image makes \
     the store. Each mount has a daemon of its own, which ends with it.",
    "An image is named as elsewhere: alpine, app:2, ghcr.io/acme/tool@sha256:..., or by its id or \
     the beginning of it. A file in an image is IMAGE:PATH, as in alpine:/etc/passwd. A writable \
     layer (an upper) has a name, and is also known by the directory that it is mounted on. \
     Listings are tables for people; --format json prints what docker's JSON has, or a document \
     where docker has no such command, --format json-full always the latter, with exact numbers, \
     and --format '{{...}}' rows by a Go template.",
];

const FIRST: &[(&str, &str)] = &[
    (
        "Have an image: from docker or podman, from an archive, or from a registry",
        "docker save alpine | strata load\nstrata load -i app.tar\nstrata pull alpine",
    ),
    (
        "Look at it",
        "strata images\nstrata ls -l alpine:/etc\nstrata cat alpine:/etc/os-release\n\
         strata explore alpine",
    ),
    ("Mount it", "mkdir look\nstrata mount alpine look\nls -l look\nstrata umount look"),
    (
        "Change it, and make a new image of that",
        "mkdir work\nstrata mount --upper demo alpine work\necho hello > work/etc/motd\n\
         strata diff work\nstrata umount work\nstrata commit demo alpine:mine\n\
         strata save -o mine.tar alpine:mine",
    ),
    ("See what it takes, and remove it", "strata df\nstrata rm demo\nstrata rmi alpine:mine"),
];

/// strata(1).
///
/// # Errors
/// A group names a command that there is not.
pub(super) fn strata(root: &Command) -> Result<String> {
    let mut page = begun(root, "strata");
    page.section("SYNOPSIS");
    page.verbatim("strata [OPTIONS] COMMAND ...\nstrata help [COMMAND]");
    page.section("DESCRIPTION");
    for text in WHAT {
        page.paragraph(text);
    }
    page.section("COMMANDS");
    page.paragraph("Each has a page of its own: strata-load(1), and so on.");
    for (group, commands) in GROUPS {
        page.heading(group);
        for name in *commands {
            let one = root.find_subcommand(name);
            let one = one.with_context(|| format!("the overview names `strata {name}`"))?;
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            page.term(name, &format!("{about}."));
        }
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(root.clone()).render_options_section(&mut text)?;
    page.sections(&String::from_utf8(text)?);
    page.section("FIRST STEPS");
    for (what, lines) in FIRST {
        page.paragraph(&format!("{what}:"));
        page.verbatim(lines);
    }
    let all = [
        Use::Store,
        Use::Layers,
        Use::Blobs,
        Use::Trees,
        Use::Uppers,
        Use::Mounts,
        Use::Leftovers,
        Use::Fuse,
        Use::Credentials,
        Use::Registries,
        Use::Scratch,
        Use::Colour,
        Use::Completion,
    ];
    statuses(&mut page, &EXITS);
    page.paragraph(
        "verify, and diff with --exit-code, use 1 to say that there are differences; fsck that \
         something is wrong.",
    );
    let variables = once(all.iter().flat_map(|one| one.variables()).chain([&LOG]));
    entries(&mut page, "ENVIRONMENT", &variables);
    entries(&mut page, "FILES", &once(all.iter().flat_map(|one| one.files())));
    page.section("EXAMPLES");
    page.paragraph("FIRST STEPS above; each command's page has its own.");
    page.paragraph("Two stores beside each other:");
    page.verbatim("strata --root /srv/images images\nSTRATA_ROOT=/srv/images strata df");
    page.section("SEE ALSO");
    let pages = GROUPS.iter().flat_map(|(_, commands)| *commands);
    let pages: Vec<String> = pages.map(|name| format!("strata-{name}(1)")).collect();
    page.paragraph(&format!(
        "strata-overlay(1), {}, docker(1), podman(1), skopeo(1)",
        pages.join(", ")
    ));
    Ok(page.into_text())
}

const OVERLAY: &[&str] = &[
    "strata-overlay shows overlay directories as one tree, in user space: what the kernel's \
     overlayfs does, for ordinary users too, in place of fuse-overlayfs. podman and buildah take \
     it as their mount program. What it writes into the upper directory is the kernel's own \
     format, so either can go on where the other ended.",
    "The command returns when the mount is usable; a daemon in the background serves it until it \
     is unmounted.",
];

const STORAGE: &str = "[storage]\ndriver = \"overlay\"\n\n[storage.options.overlay]\n\
                       mount_program = \"/usr/local/bin/strata-overlay\"";

/// strata-overlay(1).
///
/// # Errors
/// The usage has no options.
pub(super) fn overlay() -> Result<String> {
    let about = "Show overlay directories as one tree through FUSE";
    let mut page = begun(&Command::new("strata-overlay").about(about), "strata-overlay");
    let usage = strata_overlay::USAGE;
    let (synopsis, options) = usage.split_once("\n\n").context("a usage without options")?;
    let (said, options) = options.split_once("\n\n").context("a usage without options")?;
    page.section("SYNOPSIS");
    page.verbatim(synopsis.trim_start_matches("Usage: "));
    page.section("DESCRIPTION");
    for text in OVERLAY {
        page.paragraph(text);
    }
    page.paragraph(&said.replace('\n', " "));
    page.section("OPTIONS");
    page.verbatim(options);
    let exits = [
        (0, "The mount is usable."),
        (1, "An error, which one line on standard error names; nothing is left mounted."),
        (2, "The command line was wrong."),
    ];
    statuses(&mut page, &exits);
    let variables: &[_] = &[("PATH", "Where fusermount3 is looked for.")];
    entries(&mut page, "ENVIRONMENT", variables);
    let mut files = vec![
        (
            "UPPER, WORK",
            "The directory that changes go to, and one beside it on the same file system.",
        ),
        (
            "/etc/containers/storage.conf, ~/.config/containers/storage.conf",
            "Where podman and buildah learn of it, as below.",
        ),
    ];
    files.extend(Use::Fuse.files());
    entries(&mut page, "FILES", &files);
    page.section("EXAMPLES");
    for line in strata_overlay::EXAMPLES.lines() {
        match line.strip_prefix("# ") {
            Some(what) => page.paragraph(&format!("{what}:")),
            None => page.verbatim(line),
        }
    }
    page.paragraph("For podman and buildah, in storage.conf:");
    page.verbatim(STORAGE);
    page.section("SEE ALSO");
    page.paragraph(
        "strata(1), strata-mount(1), mount(8), mount.fuse3(8), fusermount3(1), podman(1)",
    );
    Ok(page.into_text())
}

#[cfg(test)]
pub(super) const STEPS: &[(&str, &str)] = FIRST;
