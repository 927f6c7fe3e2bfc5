//! What is typed to find names: a part of a name, or a glob; with a slash, of the path.
//!
//! Invariants: small letters stand for capitals too, capitals for themselves; a pattern that is no
//! glob yet, as while it is being typed, is looked for as it stands.

use glob::{MatchOptions, Pattern};
use strata_analysis::image_tree::{ImageTree, PathId};

/// A filter, ready to be asked.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    text: String,
    glob: Option<Pattern>,
    on_path: bool,
    any_case: bool,
}

impl Filter {
    /// `None` for an empty text.
    pub(crate) fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let is_glob = text.contains(['*', '?', '[']);
        let on_path = text.contains('/');
        // A path's glob may begin anywhere, as its part may.
        let pattern = match on_path && !text.starts_with('/') {
            true => format!("**/{text}"),
            false => text.to_owned(),
        };
        Some(Self {
            text: text.to_owned(),
            glob: Pattern::new(&pattern).ok().filter(|_| is_glob),
            on_path,
            any_case: !text.chars().any(char::is_uppercase),
        })
    }

    fn takes(&self, name: &[u8]) -> bool {
        match &self.glob {
            Some(glob) => {
                let options = MatchOptions {
                    case_sensitive: !self.any_case,
                    require_literal_separator: self.on_path,
                    require_literal_leading_dot: false,
                };
                glob.matches_with(&String::from_utf8_lossy(name), options)
            }
            None => contains(name, self.text.as_bytes(), self.any_case),
        }
    }

    /// For each path whether it matches; only those that `is_shown` are asked.
    pub(crate) fn matches(&self, tree: &ImageTree, is_shown: impl Fn(PathId) -> bool) -> Vec<bool> {
        let mut found = vec![false; tree.len()];
        if !self.on_path {
            for path in tree.paths().skip(1) {
                found[path.index()] = is_shown(path) && self.takes(tree.name(path));
            }
            return found;
        }
        // Depth first, so that one buffer holds the path.
        let mut path = Vec::new();
        let mut open = vec![(PathId::ROOT, 0)];
        while let Some((id, length)) = open.pop() {
            path.truncate(length);
            if id != PathId::ROOT {
                path.push(b'/');
                path.extend_from_slice(tree.name(id));
                found[id.index()] = is_shown(id) && self.takes(&path);
            }
            open.extend(tree.children(id).iter().map(|kid| (*kid, path.len())));
        }
        found
    }
}

/// Whether `text` has `part` in it; with `any_case`, `part` is in small letters and stands for
/// capitals too (of ASCII alone).
pub(crate) fn contains(text: &[u8], part: &[u8], any_case: bool) -> bool {
    position(text, part, any_case).is_some()
}

/// Where `part` is in `text` first.
pub(crate) fn position(text: &[u8], part: &[u8], any_case: bool) -> Option<usize> {
    let (first, rest) = part.split_first()?;
    let upper = first.to_ascii_uppercase();
    let starts = |byte: u8| byte == *first || any_case && byte == upper;
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| starts(*byte))?;
        let after = text.get(at + 1..at + 1 + rest.len())?;
        if after == rest || any_case && after.eq_ignore_ascii_case(rest) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(filter: &str, name: &str) -> bool {
        Filter::new(filter).unwrap().takes(name.as_bytes())
    }

    #[test]
    fn parts_and_globs_find_names() {
        assert!(Filter::new("").is_none());
        for (filter, name, found) in [
            ("pass", "passwd", true),
            ("pass", "PASSWD", true),
            ("Pass", "passwd", false),
            ("swd", "passwd", true),
            ("wdx", "passwd", false),
            ("aab", "aaab", true),
            ("*.conf", "a.conf", true),
            ("*.conf", "A.CONF", true),
            ("*.conf", "a.conf.d", false),
            ("[ab]?", "b1", true),
            // No glob yet.
            ("[ab", "x[ab", true),
            (".*", ".hidden", true),
        ] {
            assert_eq!(takes(filter, name), found, "{filter} {name}");
        }
    }

    #[test]
    fn with_a_slash_they_find_paths() {
        for (filter, path, found) in [
            ("etc/pass", "/etc/passwd", true),
            ("/etc", "/usr/etc", true),
            ("/etc/*", "/etc/passwd", true),
            ("/etc/*", "/etc/ssl/x", false),
            ("/etc/**/x", "/etc/ssl/x", true),
            ("ssl/*", "/etc/ssl/x", true),
            ("/etc/*", "/usr/etc/passwd", false),
        ] {
            assert_eq!(takes(filter, path), found, "{filter} {path}");
        }
    }
}
