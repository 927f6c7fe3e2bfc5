//! Redirects: where the layers below have what a layer shows at another name (overlayfs.rst,
//! "redirect_dir", "Metadata only copy up").
//!
//! A search goes down the layers. It starts with one name in the parts of a merged directory; a
//! relative redirect changes the name, an absolute one the start: from there on it is a path from
//! the root of each layer. A directory on such a path may be redirected itself, and then that
//! component, or all up to it, changes for the layers further down.
//!
//! A metacopy whose content no layer below has, and that an absolute redirect has led away from its
//! own name, has it in a layer of data alone: at that path, and no mark of such a layer counts.
//!
//! Invariants: a search only goes down, so it ends; what a whiteout, a non-directory or an opaque
//! directory hides is not found by a path through it either, unless an absolute redirect further
//! along the path says where to go on.

use strata_tree::{Entry, Error, Kind, Name, Redirect, Result, TreePath};

use crate::merge::{Merge, Part};
use crate::stack::Stack;

/// A search below a layer.
struct Search<'a> {
    /// What remains of the directory where it started.
    parts: std::slice::Iter<'a, Part>,
    /// The layers not yet asked are those below this one.
    below: u32,
    way: Redirect,
    /// Nothing further down shows.
    stop: bool,
}

impl<'a> Search<'a> {
    fn new(parts: &'a [Part], below: u32, way: Redirect) -> Self {
        Self { parts: parts.iter(), below, way, stop: false }
    }

    /// The layer to ask next, and where in it to start.
    fn next(&mut self, stack: &Stack) -> Result<Option<Part>> {
        if self.stop {
            return Ok(None);
        }
        let next = match &self.way {
            Redirect::Sibling(_) => self.parts.next().copied(),
            Redirect::Path(_) => match self.below.checked_sub(1) {
                Some(layer) => Some(Part { layer, node: stack.layer(layer)?.root() }),
                None => None,
            },
        };
        if let Some(part) = next {
            self.below = part.layer;
        }
        Ok(next)
    }

    /// What the layer has at the end of the way.
    fn walk(&mut self, stack: &Stack, from: Part) -> Result<Option<Entry>> {
        let lower = stack.layer(from.layer)?;
        let path = match &self.way {
            Redirect::Sibling(name) => return lower.lookup(from.node, name.as_name()),
            Redirect::Path(path) => path.clone(),
        };
        let mut at = from.node;
        let mut after = path.depth();
        for name in path.names() {
            after -= 1;
            let Some(entry) = lower.lookup(at, name)? else { return Ok(None) };
            if after == 0 {
                return Ok(Some(entry));
            }
            match entry {
                Entry::Node(node) if node.stat.kind.is_dir() => {
                    if node.marks.opaque {
                        self.stop = true;
                    } else {
                        self.turn(lower.continues(node.id)?.redirect, after);
                    }
                    at = node.id;
                }
                Entry::Node(_) | Entry::Whiteout | Entry::LowerLink(_) => {
                    self.stop = true;
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// Changes the way at the component that `after` others follow.
    fn turn(&mut self, redirect: Option<Redirect>, after: usize) {
        let Some(redirect) = redirect else { return };
        self.way = match (&self.way, redirect) {
            (Redirect::Sibling(_), redirect) => redirect,
            (Redirect::Path(way), redirect) => {
                let names: Vec<Name<'_>> = way.names().collect();
                let (before, rest) = names.split_at(names.len() - after);
                let mut path = match redirect {
                    Redirect::Path(path) => {
                        self.stop = false;
                        path
                    }
                    Redirect::Sibling(name) => {
                        let kept = before.split_last().map_or(before, |(_, kept)| kept);
                        let mut path = TreePath::root();
                        kept.iter().for_each(|name| path.push(*name));
                        path.push(name.as_name());
                        path
                    }
                };
                rest.iter().for_each(|name| path.push(*name));
                Redirect::Path(path)
            }
        };
    }
}

impl Stack {
    /// Tells `merge` what the layers below `below` have of a directory that is redirected;
    /// `parts` are what is left of the directory that holds it.
    pub(crate) fn tell_redirected(
        &self,
        merge: &mut Merge,
        parts: &[Part],
        below: u32,
        redirect: Redirect,
        path: &dyn Fn() -> TreePath,
    ) -> Result<()> {
        let mut search = Search::new(parts, below, redirect);
        while let Some(from) = search.next(self)? {
            let Some(entry) = search.walk(self, from)? else { continue };
            let redirect = self.tell(merge, from.layer, entry, path)?;
            if merge.settled() {
                break;
            }
            search.turn(redirect, 0);
        }
        Ok(())
    }

    /// Which layer has the content of a regular file, and as which node: its own layer, or for
    /// a metacopy file one below, or one of data alone.
    ///
    /// # Errors
    /// `Io` with `EIO` if none has it.
    pub(crate) fn content_part(&self, part: Part) -> Result<Part> {
        let lower = self.layer(part.layer)?;
        let goes = lower.continues(part.node)?;
        if !goes.metacopy {
            return Ok(part);
        }
        let path = lower.content(part.node)?.path;
        let lost = || {
            let what = format!(
                "{path} has only metadata in layer {} of the stack, its content is in no layer \
                 below: mount it with the lowers that it was written on",
                part.layer
            );
            Error::io(what, std::io::Error::from_raw_os_error(EIO))
        };
        // Along the path in its own layer, for what the directories on it say.
        let mut search = Search::new(&[], part.layer, Redirect::Path(path.clone()));
        search.walk(self, Part { layer: part.layer, node: lower.root() })?;
        let mut absolute = matches!(goes.redirect, Some(Redirect::Path(_)));
        search.turn(goes.redirect, 0);
        while let Some(from) = search.next(self)? {
            let found = match search.walk(self, from)? {
                None => continue,
                Some(Entry::Node(node)) => Part { layer: from.layer, node: node.id },
                Some(Entry::LowerLink(target)) => {
                    let (layer, node) = self.follow_link(from.layer, path.clone(), target)?;
                    Part { layer, node: node.id }
                }
                Some(Entry::Whiteout) => break,
            };
            if self.kind(found)? != Kind::Regular {
                return Err(lost());
            }
            let goes = self.layer(found.layer)?.continues(found.node)?;
            if !goes.metacopy {
                return Ok(found);
            }
            absolute |= matches!(goes.redirect, Some(Redirect::Path(_)));
            search.turn(goes.redirect, 0);
        }
        match search.way {
            Redirect::Path(way) if absolute => self.data(&way)?.ok_or_else(lost),
            Redirect::Path(_) | Redirect::Sibling(_) => Err(lost()),
        }
    }

    /// The regular file at a path of the first layer of data that has one.
    fn data(&self, path: &TreePath) -> Result<Option<Part>> {
        for layer in self.data_layers() {
            let lower = self.layer(layer)?;
            let mut at = Some(lower.node(lower.root())?);
            for name in path.names() {
                let Some(dir) = at.take().filter(|node| node.stat.kind.is_dir()) else { break };
                at = lower.lookup(dir.id, name)?.and_then(|entry| entry.node().copied());
            }
            if let Some(found) = at.filter(|node| node.stat.kind == Kind::Regular) {
                return Ok(Some(Part { layer, node: found.id }));
            }
        }
        Ok(None)
    }

    fn kind(&self, part: Part) -> Result<Kind> {
        Ok(self.layer(part.layer)?.node(part.node)?.stat.kind)
    }
}

/// As in the kernel: the content should be there and is not.
const EIO: i32 = 5;
