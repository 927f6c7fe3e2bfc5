//! What people type that strata does not have, and what it has instead.
//!
//! The model: one table, word by word, of the verbs of docker, podman, skopeo, buildah and dive.
//! A wrong command line is looked up there before clap's own words are shown.
//!
//! Invariants: a word of the table is no command of ours (a test asks clap); clap's guess at what
//! was meant is shown only where it is near: a word that is half another one is no help.

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Verbs, and the one line that answers them.
const TABLE: &[(&[&str], &str)] = &[
    (
        &["run", "create", "start", "restart", "unpause"],
        "strata runs nothing; `strata mount --rw REF DIR` gives the files with a writable layer, \
         and podman runs containers on strata-overlay",
    ),
    (
        &["exec", "attach"],
        "strata runs nothing; `strata mount --rw REF DIR` and then chroot DIR, or read with \
         `strata cat REF:PATH`",
    ),
    (
        &["build", "buildx", "builder", "bud", "bake"],
        "strata builds nothing; change files under `strata mount --rw REF DIR` and then `strata \
         commit DIR NEW`, or load what docker or buildah built: docker save REF | strata load",
    ),
    (
        &["stop", "kill", "pause", "wait"],
        "nothing runs; `strata umount DIR` ends a mount, `strata rm NAME` removes a writable layer",
    ),
    (
        &["logs", "top", "events", "port", "rename", "update", "healthcheck"],
        "nothing runs, so there is nothing to ask; `strata ps` lists the writable layers, `strata \
         mounts` the mounts and their daemons",
    ),
    (
        &["stats"],
        "nothing runs; `strata df` tells what is stored, `strata system df` what could be freed",
    ),
    (
        &["prune"],
        "say of what: `strata image prune`, `strata container prune` or `strata system prune`; \
         `strata gc` removes what no image needs",
    ),
    (
        &["volume", "volumes", "network", "networks", "pod", "kube", "play", "generate", "machine"],
        "strata keeps images and writable layers alone; `strata uppers` lists the latter",
    ),
    (
        &["compose", "swarm", "service", "stack", "node", "secret", "config", "plugin"],
        "strata runs no services; it stores, compares and mounts images",
    ),
    (
        &["context", "daemon", "dockerd"],
        "there is no daemon to choose; `--root DIR` or STRATA_ROOT says which store is meant",
    ),
    (&["remove", "delete"], "`strata rmi IMAGE` removes images, `strata rm NAME` writable layers"),
    (&["untag"], "`strata rmi NAME` takes a name away, and the image with its last name"),
    (&["exists"], "`strata inspect -f '{{.Id}}' IMAGE` fails where there is no such image"),
    (
        &["tree", "dive", "browse", "analyze", "analyse"],
        "`strata explore IMAGE` goes through an image layer by layer, `strata layers IMAGE` lists \
         them, `strata reuse` shows what images share",
    ),
    (&["list"], "`strata images` lists images, `strata ls IMAGE:PATH` the files of one"),
    (
        &["list-tags"],
        "`strata search HOST/TERM` finds repositories, `strata pull -a NAME` fetches every tag",
    ),
    (&["sync"], "`strata copy SOURCE DESTINATION` copies one image, with --all all platforms"),
    (
        &["inspect-manifest", "raw", "manifest-digest"],
        "`strata manifest REF` shows it, `strata -q manifest REF` its digest",
    ),
    (&["add", "from"], "`strata mount --rw REF DIR`, copy into DIR, `strata commit DIR NEW`"),
    (&["unshare"], "strata needs no namespace of its own: an ordinary user mounts through FUSE"),
    (
        &["sign", "scan", "scout", "sbom"],
        "strata does not sign or scan; `strata trust check REF` asks whose signature it is, \
         `strata mount REF DIR` gives a scanner the files",
    ),
    (&["checkpoint"], "nothing runs; `strata commit NAME NEW` keeps the files of a writable layer"),
    (&["convert", "checkout"], "`strata unpack REF DIR` writes real files, `strata export` a tar"),
];

/// What strata does instead of `word`.
pub(crate) fn instead(word: &str) -> Option<&'static str> {
    TABLE.iter().find(|(words, _)| words.contains(&word)).map(|(_, line)| *line)
}

/// The error of a wrong command line as strata says it: the text, where it has words of its own.
pub(crate) fn explained(error: &mut Error) -> Option<String> {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let Some(line) = instead(word)
    {
        return Some(format!("there is no `{word}` here: {line}"));
    }
    for (given, guessed) in [
        (ContextKind::InvalidSubcommand, ContextKind::SuggestedSubcommand),
        (ContextKind::InvalidArg, ContextKind::SuggestedArg),
        (ContextKind::InvalidValue, ContextKind::SuggestedValue),
    ] {
        keep_near(error, given, guessed);
    }
    None
}

/// Takes away what clap guesses where it is far from what was given.
fn keep_near(error: &mut Error, given: ContextKind, guessed: ContextKind) {
    let Some(ContextValue::String(word)) = error.get(given) else { return };
    let word = word.clone();
    let near = |guess: &str| is_near(&word, guess);
    let kept = match error.remove(guessed) {
        Some(ContextValue::String(one)) if near(&one) => Some(ContextValue::String(one)),
        Some(ContextValue::Strings(all)) => {
            let all: Vec<String> = all.into_iter().filter(|one| near(one)).collect();
            (!all.is_empty()).then_some(ContextValue::Strings(all))
        }
        _ => None,
    };
    if let Some(kept) = kept {
        error.insert(guessed, kept);
    }
}

/// Whether a slip of the fingers leads from one word to the other: a letter of three.
fn is_near(word: &str, guess: &str) -> bool {
    let bare = |text: &str| text.trim_start_matches('-').to_owned();
    let (word, guess) = (bare(word), bare(guess));
    let length = word.chars().count().max(guess.chars().count());
    distance(&word, &guess) <= (length / 3).max(1) && length > 1
}

/// Letters to put in, take out, change, or swap with the next, from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// The help of a command, or of one of its commands: what `--help` shows there, as clap gives it.
///
/// # Errors
/// What was asked for, if there is no such command.
pub(crate) fn help(root: Command, path: &[String]) -> Result<Option<Error>, String> {
    let mut here = &root;
    for word in path {
        here = here.find_subcommand(word).ok_or_else(|| match instead(word) {
            Some(line) => format!("there is no `{word}` here: {line}"),
            None => format!("there is no command {word:?}; `strata help` lists them"),
        })?;
    }
    let name = [root.get_name().to_owned()];
    let words = name.iter().chain(path).cloned().chain(["--help".to_owned()]);
    Ok(root.clone().try_get_matches_from(words).err())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_names_no_command_of_ours_and_none_twice() {
        let cli = crate::cli::Cli::command();
        let mut seen = Vec::new();
        for word in TABLE.iter().flat_map(|(words, _)| *words) {
            assert!(cli.find_subcommand(word).is_none(), "{word} is a command");
            assert!(!seen.contains(word), "{word} is there twice");
            seen.push(word);
        }
    }

    #[test]
    fn every_command_that_the_table_names_is_there() {
        let cli = crate::cli::Cli::command();
        for (_, line) in TABLE {
            for quoted in line.split('`').skip(1).step_by(2) {
                let mut words = quoted.split(' ');
                if words.next() != Some("strata") {
                    continue;
                }
                let verb = words.find(|word| !word.starts_with('-')).unwrap_or_default();
                let found = cli.find_subcommand(verb).unwrap_or_else(|| panic!("{quoted}"));
                if found.has_subcommands() {
                    let next = words.next().unwrap_or_default();
                    assert!(found.find_subcommand(next).is_some(), "{quoted}");
                }
            }
        }
    }

    #[test]
    fn only_what_is_near_is_a_guess() {
        for (word, guess, near) in [
            ("imges", "images", true),
            ("isnpect", "inspect", true),
            ("umuont", "umount", true),
            ("hsitory", "history", true),
            ("--fromat", "--format", true),
            ("serach", "search", true),
            ("deploy", "explore", false),
            ("x", "rm", false),
            ("frobnicate", "import", false),
            ("apply", "copy", false),
        ] {
            assert_eq!(is_near(word, guess), near, "{word} {guess}");
        }
    }
}
