//! The rules, read from the files in `rules/`.
//!
//! A file has the lines `rule ID`, `class CLASS`, `spec SOURCE | SENTENCE` and `why TEXT`; then
//! `lower` for each lower, base first, with its tree; `do` with the steps, one a line; and `tree`
//! with what the mount then shows, `or` with another tree that is allowed, `refused` with the tree
//! that is allowed if every step with `may` has ended with one of its errors. `private` says that
//! the upper keeps this in a form of its own, so that the kernel's overlayfs is not asked.
//!
//! Invariants: what is not understood is an error with its line; an id is there once; the time of a
//! node counts only if the tree gives it.

use super::operation::RuleStep;
use crate::catalogue::{Class, class_of, spec_of};
use crate::text::{self, CaseLine};
use crate::tree::{self, TreeEntry};
use crate::{Error, Result};

/// The files of rules.
const FILES: [(&str, &str); 5] = [
    ("names.rules", include_str!("../../rules/names.rules")),
    ("copy-up.rules", include_str!("../../rules/copy-up.rules")),
    ("renames.rules", include_str!("../../rules/renames.rules")),
    ("lowers.rules", include_str!("../../rules/lowers.rules")),
    ("open.rules", include_str!("../../rules/open.rules")),
];

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Stable, in kebab case.
    pub id: String,
    /// What a wrong answer costs.
    pub class: Class,
    /// Where the rule is from, and its sentence there.
    pub spec: (String, String),
    /// The argument for the expectation.
    pub why: String,
    /// The lowers, base first.
    pub lowers: Vec<Vec<TreeEntry>>,
    /// What is done.
    pub steps: Vec<RuleStep>,
    /// What is shown then, and after it what is allowed too.
    pub trees: Vec<Vec<TreeEntry>>,
    /// What is allowed too where the union has refused all that it may refuse.
    pub refused: Option<Vec<TreeEntry>>,
    /// Whether the kernel must read the same from the upper.
    pub kernel: bool,
}

impl Rule {
    /// The source and the sentence, in one line.
    #[must_use]
    pub fn basis(&self) -> String {
        format!("{}: {}", self.spec.0, self.spec.1)
    }
}

/// All rules.
///
/// # Errors
/// If one of them is not written as it must be.
pub fn all() -> Result<Vec<Rule>> {
    let mut found: Vec<Rule> = Vec::new();
    for (file, text) in FILES {
        for rule in parse(file, text)? {
            if found.iter().any(|other| other.id == rule.id) {
                let why = format!("{} is there twice", rule.id);
                return Err(Error::Catalogue { file: file.to_owned(), line: 0, why });
            }
            found.push(rule);
        }
    }
    Ok(found)
}

/// The rules with these ids, or all.
///
/// # Errors
/// If there is no rule of an id.
pub fn select(ids: &[String]) -> Result<Vec<Rule>> {
    let all = all()?;
    if let Some(absent) = ids.iter().find(|id| !all.iter().any(|rule| rule.id == **id)) {
        return Err(Error::NoRule(absent.clone()));
    }
    Ok(all.into_iter().filter(|rule| ids.is_empty() || ids.contains(&rule.id)).collect())
}

/// The rules of one text, in its order.
///
/// # Errors
/// If a line is not understood, or a rule lacks a part.
pub fn parse(file: &str, text: &str) -> Result<Vec<Rule>> {
    let mut found: Vec<(usize, RuleDraft)> = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        let fail = |why: String| Error::Catalogue { file: file.to_owned(), line: number, why };
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        if word == "rule" && !line.starts_with(' ') {
            found.push((number, RuleDraft { id: rest.to_owned(), ..RuleDraft::default() }));
            continue;
        }
        if word.is_empty() || word.starts_with('#') {
            continue;
        }
        let (_, draft) = found.last_mut().ok_or_else(|| fail("before any rule".to_owned()))?;
        draft.take(number, word, rest, line).map_err(fail)?;
    }
    let made = found.into_iter().map(|(line, draft)| {
        let made = draft.finish();
        made.map_err(|why| Error::Catalogue { file: file.to_owned(), line, why })
    });
    made.collect()
}

/// What the indented lines of a draft belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum RulePart {
    #[default]
    Head,
    Lower,
    Do,
    Tree,
    Refused,
}

#[derive(Default)]
struct RuleDraft {
    id: String,
    class: Option<Class>,
    spec: Option<(String, String)>,
    why: String,
    part: RulePart,
    lowers: Vec<Vec<CaseLine>>,
    steps: Vec<RuleStep>,
    trees: Vec<Vec<CaseLine>>,
    refused: Option<Vec<CaseLine>>,
    private: bool,
}

impl RuleDraft {
    fn take(
        &mut self,
        number: usize,
        word: &str,
        rest: &str,
        line: &str,
    ) -> std::result::Result<(), String> {
        if line.starts_with(' ') {
            let line = text::parse(number, line)?;
            let lines = match self.part {
                RulePart::Head => return Err("belongs to no part".to_owned()),
                RulePart::Do => {
                    self.steps.push(RuleStep::parse(&line)?);
                    return Ok(());
                }
                RulePart::Lower => self.lowers.last_mut(),
                RulePart::Tree => self.trees.last_mut(),
                RulePart::Refused => self.refused.as_mut(),
            };
            lines.ok_or("belongs to no part")?.push(line);
            return Ok(());
        }
        match word {
            "class" => self.class = Some(class_of(rest)?),
            "spec" => self.spec = Some(spec_of(rest)?.ok_or("a rule has a source")?),
            "why" => self.why = rest.to_owned(),
            "private" => self.private = true,
            "lower" if self.part != RulePart::Tree => {
                self.part = RulePart::Lower;
                self.lowers.push(Vec::new());
            }
            "do" => self.part = RulePart::Do,
            "tree" | "or" if (word == "tree") == self.trees.is_empty() => {
                self.part = RulePart::Tree;
                self.trees.push(Vec::new());
            }
            "refused" if self.refused.is_none() && !self.trees.is_empty() => {
                self.part = RulePart::Refused;
                self.refused = Some(Vec::new());
            }
            _ => return Err(format!("{word} cannot be here")),
        }
        Ok(())
    }

    fn finish(self) -> std::result::Result<Rule, String> {
        let lacks = |what: &str| format!("{} lacks its {what}", self.id);
        if self.trees.is_empty() || self.lowers.is_empty() || self.why.is_empty() {
            return Err(lacks("trees, lowers or argument"));
        }
        let named = |why: String| format!("{}: {why}", self.id);
        let lowers = self
            .lowers
            .iter()
            .map(|lines| tree::of_lines(lines))
            .collect::<std::result::Result<_, _>>();
        let trees =
            self.trees.iter().map(|lines| timed(lines)).collect::<std::result::Result<_, _>>();
        let refused = self.refused.as_deref().map(timed).transpose();
        if self.refused.is_some() && self.steps.iter().all(|step| step.may.is_empty()) {
            return Err(named("nothing may be refused".to_owned()));
        }
        Ok(Rule {
            class: self.class.ok_or_else(|| lacks("class"))?,
            spec: self.spec.clone().ok_or_else(|| lacks("spec"))?,
            lowers: lowers.map_err(named)?,
            trees: trees.map_err(named)?,
            refused: refused.map_err(named)?,
            why: self.why,
            steps: self.steps,
            kernel: !self.private,
            id: self.id,
        })
    }
}

/// The tree of these lines, in which only times that are given count.
fn timed(lines: &[CaseLine]) -> std::result::Result<Vec<TreeEntry>, String> {
    let mut tree = tree::of_lines(lines)?;
    for entry in &mut tree {
        let line = lines.iter().find(|line| line.args.first() == Some(&entry.path));
        if line.is_none_or(|line| line.option("mtime").is_none()) {
            entry.mtime = None;
        }
    }
    Ok(tree)
}
