//! Which paths are whiteouts (OCI image-spec layer.md, "Whiteouts"), and what they mark.
//!
//! ```text
//! a/.wh.b          b is hidden in a          a/.wh..wh..opq   a is opaque
//! .wh..wh.plnk/..  AUFS' link store          a/.wh.b/c        refused
//! ```
//!
//! Invariants: this is the only place that reads `.wh.`; a whiteout never creates a directory
//! that would show, so one in an absent directory does nothing.

use strata_tree::{Name, NameBuf, Presence, TreePath};

use super::{DirId, Draft, Effects, MemberPlace, ROOT, Slot};
use crate::error::{Error, Result};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

impl Draft {
    /// Parses a member's path, clamped to the root.
    pub(super) fn classify(&self, raw: &[u8], directory: bool) -> Result<MemberPlace> {
        // `..` is resolved first, so that `.wh.x/../y` is just `y`.
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in raw.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        let limits = &self.limits;
        self.bound("path components", parts.len() as u64, limits.depth, "--max-depth")?;
        let Some((last, parents)) = parts.split_last() else {
            return Ok(MemberPlace::Plain(TreePath::root()));
        };
        let hidden = parents.iter().any(|part| part.starts_with(AUFS))
            || (last.starts_with(AUFS) && *last != OPAQUE);
        if !hidden && parents.iter().any(|part| part.starts_with(PREFIX)) {
            return Err(self.rule_raw(raw, "a whiteout may not be a directory"));
        }
        let mut parent = TreePath::root();
        for part in parents {
            parent.push(self.name(raw, part)?);
        }
        self.bound("bytes in a path", raw.len() as u64, limits.path_bytes, "--max-path")?;
        if hidden {
            return Ok(MemberPlace::Hidden(parent.join(self.name(raw, last)?)));
        }
        if *last == OPAQUE {
            return Ok(MemberPlace::Opaque(parent));
        }
        match last.strip_prefix(PREFIX) {
            Some(_) if directory => Err(self.rule_raw(raw, "a whiteout may not be a directory")),
            Some(name) => {
                let name = self.name(raw, name)?.to_owned();
                Ok(MemberPlace::Whiteout { parent, name })
            }
            None => Ok(MemberPlace::Plain(parent.join(self.name(raw, last)?))),
        }
    }

    fn name<'a>(&self, raw: &[u8], part: &'a [u8]) -> Result<Name<'a>> {
        Name::new(part).map_err(|why| self.rule_raw(raw, &why.to_string()))
    }

    fn bound(&self, what: &'static str, n: u64, limit: u64, option: &'static str) -> Result<()> {
        if n <= limit {
            return Ok(());
        }
        Err(Error::Limit { layer: self.label.clone(), what, limit, option })
    }

    pub(super) fn whiteout(&mut self, parent: &TreePath, name: &NameBuf) -> Result<()> {
        if let Some(dir) = self.phantom_dirs(parent)? {
            self.nodes.hide(dir, name.as_bytes())?;
        }
        Ok(())
    }

    pub(super) fn opaque(&mut self, path: &TreePath) -> Result<()> {
        if let Some(dir) = self.phantom_dirs(path)? {
            self.nodes.set_opaque(dir)?;
        }
        Ok(())
    }

    /// The directory that a whiteout stands in; `None` if this layer has no directory there but
    /// something else, below which nothing of a lower layer shows anyway.
    fn phantom_dirs(&mut self, path: &TreePath) -> Result<Option<DirId>> {
        let mut dir = ROOT;
        let mut here = TreePath::root();
        let mut effects = Effects::default();
        for name in path.names() {
            here.push(name);
            dir = match self.nodes.slot(dir, name)? {
                Some(Slot::Dir(known)) => known,
                Some(Slot::File { .. } | Slot::Waiting { .. }) => return Ok(None),
                None => self.add_dir(dir, name, &here, Presence::Phantom, &mut effects)?,
            };
        }
        Ok(Some(dir))
    }
}
