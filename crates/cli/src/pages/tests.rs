//! Every page is whole, and what it tells people to type is what the program takes.

use clap::CommandFactory as _;

use super::*;
use crate::cli::Cli;
use overview::GROUPS;

const SECTIONS: [&str; 9] = [
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "ENVIRONMENT",
    "FILES",
    "EXAMPLES",
    "EXIT STATUS",
    "SEE ALSO",
];

fn paths(command: &Command, above: &str, found: &mut Vec<String>) {
    for below in command.get_subcommands() {
        let path = format!("{above} {}", below.get_name());
        found.push(path.trim().to_owned());
        paths(below, &path, found);
    }
}

fn commands() -> Vec<String> {
    let mut found = Vec::new();
    paths(&Cli::command(), "", &mut found);
    found
}

/// The words of a line as a shell makes them; what separates commands stands alone.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut quoted = false;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => (quote, quoted) = (Some(letter), true),
            (None, ' ') => {
                if quoted || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                quoted = false;
            }
            (_, letter) => word.push(letter),
        }
    }
    words.push(word);
    words
}

/// The commands of strata in a line, each as its arguments.
fn invocations(line: &str) -> Vec<Vec<String>> {
    let words = words(line);
    let commands = words.split(|word| ["|", "&&", ";"].contains(&word.as_str()));
    let own = commands.filter_map(|command| {
        let at = command.iter().position(|word| word == "strata")?;
        let plain = command[at..].iter().take_while(|word| !["<", ">"].contains(&word.as_str()));
        Some(plain.cloned().collect())
    });
    own.collect()
}

/// Takes a line apart with the program's own parser.
fn parsed(line: &str) -> Vec<Vec<String>> {
    let found = invocations(line);
    for words in &found {
        let parsed = Cli::command().try_get_matches_from(words);
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
    found
}

#[test]
fn every_command_has_a_page_with_every_section() {
    let pages = all(Cli::command()).unwrap();
    let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    for path in commands() {
        let name = format!("strata-{}.1", path.replace(' ', "-"));
        assert!(names.contains(&name.as_str()), "{name}");
    }
    assert_eq!(pages.len(), commands().len() + 2);
    for (name, text) in &pages {
        assert!(text.starts_with(".ie ") && text.matches(".TH ").count() == 1, "{name}");
        for section in SECTIONS {
            let heads = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
            let found: usize = heads.iter().map(|head| text.matches(head.as_str()).count()).sum();
            assert_eq!(found, 1, "{name} {section}");
        }
    }
}

#[test]
fn every_row_is_of_a_command_and_every_command_has_one() {
    let commands = commands();
    for row in rows() {
        assert!(commands.iter().any(|one| one == row.of), "{}", row.of);
        assert_eq!(rows().filter(|other| other.of == row.of).count(), 1, "{}", row.of);
    }
    for path in &commands {
        assert!(
            CommandPage::of(path).is_some(),
            "write a row for `strata {path}` in pages/table.rs"
        );
    }
}

#[test]
fn every_example_is_a_line_of_its_command_that_the_program_takes() {
    for path in commands() {
        let facts = CommandPage::of(&path).unwrap();
        assert!(!facts.row.examples.is_empty(), "{path}");
        for (what, line) in facts.examples() {
            let found = parsed(&line);
            assert!(!what.ends_with(['.', ':']), "{what}");
            let own: Vec<String> = path.split(' ').map(ToOwned::to_owned).collect();
            let here = found.iter().any(|words| words.windows(own.len()).any(|some| some == own));
            assert!(here, "{path}: {line}");
        }
    }
    for (_, lines) in overview::STEPS {
        assert!(lines.lines().map(parsed).any(|found| !found.is_empty()), "{lines}");
    }
}

#[test]
fn a_command_of_a_group_takes_what_its_plain_one_takes() {
    let root = Cli::command();
    let find = |path: &str| {
        let words = path.split(' ');
        words.fold(root.clone(), |here, word| here.find_subcommand(word).unwrap().clone())
    };
    let args = |command: Command| {
        let ids: Vec<String> =
            command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
        ids
    };
    let mut compared = 0;
    for path in commands() {
        let facts = CommandPage::of(&path).unwrap();
        if facts.path != facts.plain {
            assert_eq!(args(find(&path)), args(find(facts.plain)), "{path}");
            compared += 1;
        }
    }
    assert!(compared > 15);
}

#[test]
fn the_overview_has_each_command_once() {
    let root = Cli::command();
    for command in root.get_subcommands() {
        let groups = GROUPS.iter().flat_map(|(_, commands)| *commands);
        let found = groups.filter(|name| **name == command.get_name()).count();
        assert_eq!(found, 1, "{} in pages/overview.rs, GROUPS", command.get_name());
    }
}

#[test]
fn every_page_of_ours_that_is_named_is_there() {
    let pages: Vec<String> =
        all(Cli::command()).unwrap().into_iter().map(|(name, _)| name).collect();
    for path in commands() {
        for see in CommandPage::of(&path).unwrap().see() {
            if let Some(name) = see.strip_suffix("(1)").filter(|name| name.starts_with("strata")) {
                assert!(pages.contains(&format!("{name}.1")), "{path}: {see}");
            }
        }
    }
}

#[test]
fn help_shows_the_same_examples() {
    let mut root = command(Cli::command());
    let mount = root.find_subcommand_mut("mount").unwrap().render_long_help().to_string();
    assert!(mount.contains("# To look\n  mkdir look && strata mount alpine look"), "{mount}");
    let image = root.find_subcommand_mut("image").unwrap();
    let rm = image.find_subcommand_mut("rm").unwrap().render_long_help().to_string();
    assert!(rm.contains("strata image rm --dry-run alpine:3.20"), "{rm}");
}
