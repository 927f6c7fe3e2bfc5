//! Manual pages, and the examples that `--help` shows.
//!
//! ```text
//! the command line's definition ──► NAME, SYNOPSIS, DESCRIPTION, OPTIONS
//! table, places ──────────────────► EXIT STATUS, ENVIRONMENT, FILES, EXAMPLES, SEE ALSO
//! overview ───────────────────────► strata(1), strata-overlay(1)
//! ```
//!
//! Invariant: a page of a command in a group (`image ls`) says what the page of the plain command
//! (`images`) says, in the group's words; a command without a row has no page, and a test fails.

mod overview;
mod places;
mod remote_table;
mod roff;
mod row;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::Command;

use places::PageEntry;
use roff::Roff;
use row::PageRow;

/// Exit codes that every command has.
const EXITS: [(u8, &str); 3] = [
    (0, "Done. A reader of standard output that goes away is no error."),
    (1, "An error, which one line on standard error names, with its cause and the way out."),
    (2, "The command line was wrong."),
];

/// Those of a group whose last word is not the plain command.
const ELSEWHERE: [(&str, &str); 5] = [
    ("image ls", "images"),
    ("image rm", "rmi"),
    ("image unmount", "umount"),
    ("container ls", "ps"),
    ("system info", "info"),
];

/// The command line, with examples under each command's `--help`.
pub(crate) fn command(root: Command) -> Command {
    with_examples(root, "")
}

fn with_examples(command: Command, path: &str) -> Command {
    command.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        let below = with_examples(below, &path);
        match CommandPage::of(path.trim()) {
            Some(facts) => below.after_help(facts.help()),
            None => below,
        }
    })
}

/// Every row.
fn rows() -> impl Iterator<Item = &'static PageRow> {
    remote_table::REMOTE_ROWS.iter().chain(table::ROWS)
}

/// What the table says of a command.
struct CommandPage {
    row: &'static PageRow,
    /// The command's words, and those that the row's examples have in their place.
    path: String,
    plain: &'static str,
}

impl CommandPage {
    fn of(path: &str) -> Option<Self> {
        let named = |name: &str| rows().find(|row| row.of == name);
        let elsewhere = ELSEWHERE.iter().find(|(group, _)| *group == path);
        let row = named(path).or_else(|| match elsewhere {
            Some((_, plain)) => named(plain),
            None => named(path.split_once(' ')?.1),
        })?;
        Some(Self { row, path: path.to_owned(), plain: row.of })
    }

    /// What each example is for, and its line, in this command's words.
    fn examples(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.row.examples.iter().map(|(what, line)| {
            let own = |line: &str| {
                let parts = line.split("strata ").map(|part| match part.strip_prefix(self.plain) {
                    Some(rest) if rest.is_empty() || rest.starts_with(' ') => {
                        format!("{}{rest}", self.path)
                    }
                    _ => part.to_owned(),
                });
                parts.collect::<Vec<_>>().join("strata ")
            };
            (*what, if self.path == self.plain { (*line).to_owned() } else { own(line) })
        })
    }

    /// As `--help` ends.
    fn help(&self) -> String {
        let mut text = "Examples:".to_owned();
        for (what, line) in self.examples() {
            text.push_str(&format!("\n  # {what}\n  {line}"));
        }
        text
    }

    fn exits(&self) -> Vec<(u8, &'static str)> {
        let own = |code: u8| self.row.exits.iter().find(|(own, _)| *own == code).copied();
        EXITS.iter().map(|usual| own(usual.0).unwrap_or(*usual)).collect()
    }

    fn files(&self) -> Vec<PageEntry> {
        once(self.row.uses.iter().flat_map(|one| one.files()))
    }

    fn variables(&self) -> Vec<PageEntry> {
        once(self.row.uses.iter().flat_map(|one| one.variables()).chain([&places::LOG]))
    }

    fn see(&self) -> Vec<String> {
        let page = |name: &&str| match name.contains('(') {
            true => (*name).to_owned(),
            false => format!("strata-{}(1)", name.replace(' ', "-")),
        };
        let plain = (self.path != self.plain).then_some(self.plain);
        let plain = plain.iter().map(page);
        let all = std::iter::once("strata(1)".to_owned()).chain(plain);
        all.chain(self.row.see.iter().map(page)).collect()
    }
}

fn once<'a>(entries: impl Iterator<Item = &'a PageEntry>) -> Vec<PageEntry> {
    let mut seen: Vec<PageEntry> = Vec::new();
    for entry in entries {
        if !seen.contains(entry) {
            seen.push(*entry);
        }
    }
    seen
}

/// All pages: the file's name, and its text.
///
/// # Errors
/// A command without a row; what clap's definition gives cannot be written.
pub(crate) fn all(root: Command) -> Result<Vec<(String, String)>> {
    let root = built(root);
    let mut pages = vec![
        ("strata.1".to_owned(), overview::strata(&root)?),
        ("strata-overlay.1".to_owned(), overview::overlay()?),
    ];
    below(&root, "", &mut pages)?;
    Ok(pages)
}

fn below(command: &Command, path: &str, pages: &mut Vec<(String, String)>) -> Result<()> {
    for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        let path = format!("{path} {}", one.get_name());
        let name = format!("strata{}.1", path.replace(' ', "-"));
        pages.push((name, page(one, path.trim())?));
        below(one, &path, pages)?;
    }
    Ok(())
}

/// strata(1), for standard output.
///
/// # Errors
/// As [`all`].
pub(crate) fn first(root: Command) -> Result<String> {
    overview::strata(&built(root))
}

fn built(root: Command) -> Command {
    let mut root = root.disable_help_subcommand(true);
    root.build();
    root
}

/// Writes all pages into a directory.
///
/// # Errors
/// It cannot be made, or a page in it.
pub(crate) fn write(root: Command, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for (name, text) in all(root)? {
        let file = dir.join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The page of one command.
fn page(command: &Command, path: &str) -> Result<String> {
    let facts = CommandPage::of(path).with_context(|| format!("no row for `strata {path}`"))?;
    let mut page = begun(command, &format!("strata-{}", path.replace(' ', "-")));
    page.section("SYNOPSIS");
    let usage = command.clone().render_usage().to_string();
    page.verbatim(usage.trim_start_matches("Usage: "));
    from_clap(&mut page, command)?;
    statuses(&mut page, &facts.exits());
    entries(&mut page, "ENVIRONMENT", &facts.variables());
    entries(&mut page, "FILES", &facts.files());
    page.section("EXAMPLES");
    for (what, line) in facts.examples() {
        page.paragraph(&format!("{what}:"));
        page.verbatim(&line);
    }
    page.section("SEE ALSO");
    page.paragraph(&facts.see().join(", "));
    Ok(page.into_text())
}

/// The title and NAME.
fn begun(command: &Command, name: &str) -> Roff {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Roff::titled(name, concat!("strata ", env!("CARGO_PKG_VERSION")));
    page.section("NAME");
    page.paragraph(&format!("{name} - {about}"));
    page
}

/// DESCRIPTION, OPTIONS and the commands below.
fn from_clap(page: &mut Roff, command: &Command) -> Result<()> {
    let man = clap_mangen::Man::new(command.clone());
    let mut text = Vec::new();
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    page.sections(&String::from_utf8(text)?);
    if command.has_subcommands() {
        page.section("COMMANDS");
        for below in command.get_subcommands() {
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            page.term(below.get_name(), &format!("{about}."));
        }
    }
    Ok(())
}

fn entries(page: &mut Roff, section: &str, entries: &[PageEntry]) {
    page.section(section);
    if entries.is_empty() {
        page.paragraph("None.");
    }
    for (name, text) in entries {
        page.term(name, text);
    }
}

fn statuses(page: &mut Roff, exits: &[(u8, &str)]) {
    page.section("EXIT STATUS");
    for (code, text) in exits {
        page.term(&code.to_string(), text);
    }
}

#[cfg(test)]
mod tests;
