//! The cases, read from the files in `cases/`.
//!
//! A file has the lines `case ID`, `class CLASS`, `spec SECTION | SENTENCE` or `spec unspecified`,
//! and `why TEXT`, and may have `needs NEED` ([`Need`]); then `layer` for each layer, base first,
//! with its members; then what may come of it: `tree` with the whole tree, `or` with a tree that is
//! allowed too, `refuse` if it may be refused. A case that has `refuse` alone must be refused.
//! `text` has the form of the lines, `tarball` the members, `tree` the trees.
//!
//! Invariants: what is not understood is an error with its line; an id is there once; a new case is
//! an entry in one of the files and nothing else.

use std::fmt;

use crate::text::{self, CaseLine};
use crate::tree::{self, TreeEntry};
use crate::{Error, pack, tarball};

/// The number of the catalogue of cases and rules; CHANGELOG.md of this crate says what is new.
pub const VERSION: u32 = 5;

/// The files of cases.
const FILES: [(&str, &str); 9] = [
    ("whiteouts.cases", include_str!("../cases/whiteouts.cases")),
    ("links.cases", include_str!("../cases/links.cases")),
    ("changes.cases", include_str!("../cases/changes.cases")),
    ("escapes.cases", include_str!("../cases/escapes.cases")),
    ("names.cases", include_str!("../cases/names.cases")),
    ("attributes.cases", include_str!("../cases/attributes.cases")),
    ("tar.cases", include_str!("../cases/tar.cases")),
    ("readers.cases", include_str!("../cases/readers.cases")),
    ("packing.cases", include_str!("../cases/packing.cases")),
];

/// The content of each member that is aimed at a place outside of the root. No other member of such
/// a case has it.
pub const ESCAPED: &[u8] = b"escaped";

/// What a wrong answer costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A write or a read outside of the root, or a tree that a scanner does not see.
    Security,
    /// Files that are missing, are not hidden, or have other bytes.
    DataLoss,
    /// Owners, modes, times or attributes.
    Metadata,
    /// What programs do not notice.
    Cosmetic,
}

impl Class {
    /// All, the gravest first.
    pub const ALL: [Self; 4] = [Self::Security, Self::DataLoss, Self::Metadata, Self::Cosmetic];

    /// Whether a wrong answer makes the exit status 1.
    #[must_use]
    pub fn is_grave(self) -> bool {
        matches!(self, Self::Security | Self::DataLoss)
    }

    /// The class as cases and reports write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::DataLoss => "data-loss",
            Self::Metadata => "metadata",
            Self::Cosmetic => "cosmetic",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a case needs for its hazard to be there at all: without it every unpacker would seem safe,
/// or would be blamed for what it cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The running user can give files any owner.
    Owners,
    /// A hard link can lead from the directory of the run to the absolute canary.
    LinkToCanary,
}

impl Need {
    /// The need as cases write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owners => "owners",
            Self::LinkToCanary => "link-to-canary",
        }
    }
}

/// One layer of a case, made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseLayer {
    /// The tar.
    pub tar: Vec<u8>,
    /// The tar as it is in the image: perhaps compressed.
    pub blob: Vec<u8>,
    /// The media type in the manifest.
    pub media_type: &'static str,
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Stable, in kebab case.
    pub id: String,
    /// What a wrong answer costs.
    pub class: Class,
    /// The section of the image specification's `layer.md`, and its sentence; none where it says
    /// nothing.
    pub spec: Option<(String, String)>,
    /// Without this it is not run.
    pub needs: Option<Need>,
    /// The argument for the expectation.
    pub why: String,
    /// The layers, base first.
    pub layers: Vec<CaseLayer>,
    /// The right tree, and after it others that are allowed; none if the case must be refused.
    pub trees: Vec<Vec<TreeEntry>>,
    /// Whether it may be refused.
    pub may_refuse: bool,
}

impl Case {
    /// The section and the sentence, in one line.
    #[must_use]
    pub fn basis(&self) -> String {
        match &self.spec {
            Some((section, sentence)) => format!("layer.md, {section}: {sentence}"),
            None => "unspecified".to_owned(),
        }
    }
}

/// All cases.
///
/// # Errors
/// If one of them is not written as it must be.
pub fn all() -> crate::Result<Vec<Case>> {
    let mut found: Vec<Case> = Vec::new();
    for (file, text) in FILES {
        for case in parse(file, text)? {
            if found.iter().any(|other| other.id == case.id) {
                let why = format!("{} is there twice", case.id);
                return Err(Error::Catalogue { file: file.to_owned(), line: 0, why });
            }
            found.push(case);
        }
    }
    Ok(found)
}

/// The cases with these ids, or all.
///
/// # Errors
/// If there is no case of an id.
pub fn select(ids: &[String]) -> crate::Result<Vec<Case>> {
    let all = all()?;
    if let Some(absent) = ids.iter().find(|id| !all.iter().any(|case| case.id == **id)) {
        return Err(Error::NoCase(absent.clone()));
    }
    Ok(all.into_iter().filter(|case| ids.is_empty() || ids.contains(&case.id)).collect())
}

/// The cases of one text, in its order.
///
/// # Errors
/// If a line is not understood, or a case lacks a part.
pub fn parse(file: &str, text: &str) -> crate::Result<Vec<Case>> {
    let mut drafts: Vec<CaseDraft> = Vec::new();
    let mut last = 0;
    for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
        last = number;
        let fail = |why: String| Error::Catalogue { file: file.to_owned(), line: number, why };
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        if word == "case" && !line.starts_with(' ') {
            drafts.push(CaseDraft { line: number, id: rest.to_owned(), ..CaseDraft::default() });
            continue;
        }
        let item = if ["why", "spec"].contains(&word) {
            None
        } else {
            let item = text::parse(number, line).map_err(fail)?;
            if item.word.is_empty() {
                continue;
            }
            Some(item)
        };
        let draft = drafts.last_mut().ok_or_else(|| fail("before any case".to_owned()))?;
        draft.take(word, rest, item).map_err(fail)?;
    }
    let made = drafts.into_iter().map(|draft| {
        let line = draft.line.min(last);
        let made = draft.finish();
        made.map_err(|why| Error::Catalogue { file: file.to_owned(), line, why })
    });
    made.collect()
}

/// A case as far as it has been read.
#[derive(Default)]
struct CaseDraft {
    line: usize,
    id: String,
    class: Option<Class>,
    spec: Option<Option<(String, String)>>,
    why: Option<String>,
    needs: Option<Need>,
    /// The line `layer`, and the members.
    layers: Vec<(CaseLine, Vec<CaseLine>)>,
    trees: Vec<Vec<CaseLine>>,
    refuse: bool,
}

impl CaseDraft {
    fn take(&mut self, word: &str, rest: &str, item: Option<CaseLine>) -> Result<(), String> {
        let expecting = self.refuse || !self.trees.is_empty();
        match (word, item) {
            ("spec", _) if self.spec.is_none() => self.spec = Some(spec_of(rest)?),
            ("why", _) if self.why.is_none() && !rest.is_empty() => {
                self.why = Some(rest.to_owned());
            }
            ("class", Some(_)) if self.class.is_none() => {
                self.class = Some(class_of(rest)?);
            }
            ("needs", Some(_)) if self.needs.is_none() && self.layers.is_empty() => {
                self.needs = Some(need_of(rest)?);
            }
            ("layer", Some(item)) if !expecting => self.layers.push((item, Vec::new())),
            ("tree", Some(_)) if !expecting => self.trees.push(Vec::new()),
            ("or", Some(_)) if !self.trees.is_empty() && !self.refuse => {
                self.trees.push(Vec::new());
            }
            ("refuse", Some(_)) if !self.refuse => self.refuse = true,
            ("spec" | "why" | "class" | "needs" | "layer" | "tree" | "or" | "refuse", _) => {
                return Err(format!("{word} cannot be here"));
            }
            (_, Some(item)) if !self.refuse => {
                let members = match self.trees.last_mut() {
                    Some(tree) => tree,
                    None => &mut self.layers.last_mut().ok_or("before any layer")?.1,
                };
                members.push(item);
            }
            _ => return Err("after the refusal".to_owned()),
        }
        Ok(())
    }

    fn finish(self) -> Result<Case, String> {
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.id.is_empty() || !self.id.chars().all(kebab) {
            return Err(format!("{:?} is no id", self.id));
        }
        let lacks = |what: &str| format!("{} lacks its {what}", self.id);
        if self.layers.is_empty() {
            return Err(lacks("layers"));
        }
        if self.trees.is_empty() && !self.refuse {
            return Err(lacks("expectation"));
        }
        let mut layers = Vec::new();
        for (line, members) in &self.layers {
            let form = line.text("pack")?.unwrap_or("gzip");
            let tar = tarball::build(members).map_err(|why| format!("{}: {why}", self.id))?;
            let media = line.text("media")?.map_or_else(|| pack::media_of(form), Ok)?;
            let (blob, media_type) = (pack::pack(form, &tar)?, pack::media_type(media)?);
            layers.push(CaseLayer { tar, blob, media_type });
        }
        let trees = self.trees.iter().map(|lines| tree::of_lines(lines));
        let trees: Result<_, _> = trees.collect();
        Ok(Case {
            trees: trees.map_err(|why: String| format!("{}: {why}", self.id))?,
            class: self.class.ok_or_else(|| lacks("class"))?,
            spec: self.spec.clone().ok_or_else(|| lacks("spec"))?,
            why: self.why.clone().ok_or_else(|| lacks("why"))?,
            needs: self.needs,
            may_refuse: self.refuse,
            id: self.id,
            layers,
        })
    }
}

fn need_of(name: &str) -> Result<Need, String> {
    let found = [Need::Owners, Need::LinkToCanary].into_iter().find(|need| need.name() == name);
    found.ok_or_else(|| format!("{name} is nothing that a case can need"))
}

/// The class of a name.
pub(crate) fn class_of(name: &str) -> Result<Class, String> {
    let found = Class::ALL.into_iter().find(|class| class.name() == name);
    found.ok_or_else(|| format!("{name} is no class"))
}

/// `unspecified`, or a section and a sentence.
pub(crate) fn spec_of(text: &str) -> Result<Option<(String, String)>, String> {
    match text.split_once(" | ") {
        Some((section, sentence)) => Ok(Some((section.to_owned(), sentence.to_owned()))),
        None if text == "unspecified" => Ok(None),
        None => Err("neither SECTION | SENTENCE nor unspecified".to_owned()),
    }
}
