//! What `fsck` says of the uppers.
//!
//! What was written into an upper is recorded nowhere else, so there is nothing to compare it with.
//! What can be told is whether the upper can be mounted: its `upper.json` is whole, its directories
//! are there, and so is the image below.
//!
//! Invariants: nothing is changed; an upper that goes meanwhile is no problem.

use strata_layer::Store;

use super::{NamedUpper, Uppers};
use crate::error::{ErrorContext, Result};

/// Why an upper cannot be mounted. Nothing mends it: what was written into it is its owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpperProblem {
    /// The upper's name.
    pub name: String,
    /// What is wrong, and the way out.
    pub what: String,
}

impl std::fmt::Display for UpperProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "upper {}: {}", self.name, self.what)
    }
}

impl Uppers {
    /// What keeps uppers from being mounted, by name; `store` is the one that they are of.
    ///
    /// # Errors
    /// `Doing`, `Io`, naming the upper; `Store`.
    pub fn problems(&self, store: &Store) -> Result<Vec<UpperProblem>> {
        let all = self.listed()?;
        let mut problems = Vec::new();
        for upper in all {
            if let Some(what) = self.wrong_with(&upper, store)? {
                // Unless it was unmounted or removed meanwhile, and its image after it.
                if self.known(&upper.name)?.as_ref() == Some(&upper) {
                    problems.push(UpperProblem { name: upper.name, what });
                }
            }
        }
        Ok(problems)
    }

    fn wrong_with(&self, upper: &NamedUpper, store: &Store) -> Result<Option<String>> {
        let (name, reference) = (&upper.name, &upper.reference);
        if let Some(why) = &upper.damage {
            return Ok(Some(format!(
                "its upper.json is damaged: {why}; what was written is in {}, and `strata rm \
                 {name}` removes it",
                self.path(name)?.join("upper").display()
            )));
        }
        let image = upper.image_id()?;
        if store.images().get(&image)?.is_none() {
            let short = image.short();
            return Ok(Some(format!(
                "its image {reference} ({short}) is not in the store; load or pull it again, or \
                 remove the upper with `strata rm {name}`"
            )));
        }
        for part in ["upper", "work"] {
            let dir = self.path(name)?.join(part);
            let there = dir.try_exists().with_context(|| format!("cannot read {}", dir.display()));
            if !there? {
                return Ok(Some(format!(
                    "its directory {part} is not there; make {} again to mount what is left of it, \
                     or remove it with `strata rm {name}`",
                    dir.display()
                )));
            }
        }
        Ok(None)
    }
}
