//! No circle between the files of a crate: a newcomer can read them one after the other.
//!
//! A file needs another one if it names something that the other defines: by `use`, or by a path
//! in its code that begins at `crate`, `super`, `self`, a child module or a module that was
//! imported. A name that a module only hands on (`pub use`) leads to the file that defines it;
//! handing on is no need by itself, and neither is `mod`. What a module takes of the modules around
//! it is no need either: it is a part of those.
//!
//! This is an approximation: a method is called without naming its file, so that impls of one type
//! in many files show no arrow; a macro's arguments are read where they are expressions.
//!
//! Invariant: a circle that is left follows from the matter, and is listed here with its reason.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::visit::Visit;

use crate::project::none;
use crate::source::{Crate, Program, crates, defined, for_tests, value};

/// Circles that follow from the matter, each with its reason.
const ALLOWED: [&[&str]; 1] = [
    // What a layer did is replayed on what the layers below it left, and those are chains again.
    &["history/chain.rs", "history/replay.rs"],
];

/// One name that a `use` brings in: the path that it stands for, and who else may have it.
struct Import {
    path: Vec<String>,
    handed_on: bool,
}

/// What is known of a module's names.
#[derive(Default)]
struct Names {
    defined: BTreeSet<String>,
    imports: BTreeMap<String, Import>,
    globs: Vec<Import>,
}

struct Resolver<'a> {
    program: &'a Program,
    names: BTreeMap<&'a [String], Names>,
}

impl<'a> Resolver<'a> {
    fn new(program: &'a Program) -> Resolver<'a> {
        let mut names = BTreeMap::new();
        for (path, module) in program {
            let mut of: Names = Names::default();
            for item in &module.items {
                of.defined.extend(defined(item).map(|(name, _)| name));
                of.defined.extend(value(item).map(|(name, _)| name));
                match item {
                    syn::Item::Use(item) => {
                        let handed_on = !matches!(item.vis, syn::Visibility::Inherited);
                        imported(&item.tree, &mut Vec::new(), handed_on, &mut of);
                    }
                    syn::Item::Macro(item) => {
                        of.defined.extend(item.ident.as_ref().map(ToString::to_string));
                    }
                    _ => {}
                }
            }
            names.insert(path.as_slice(), of);
        }
        Resolver { program, names }
    }

    /// The module that `path` begins at, seen from `from`, and the rest of the path; None if it
    /// does not begin in this crate.
    fn begin(
        &self,
        from: &[String],
        path: &[String],
        depth: usize,
    ) -> Option<(Vec<String>, usize)> {
        let mut at = from.to_vec();
        match path.first()?.as_str() {
            "crate" => return Some((Vec::new(), 1)),
            "self" => return Some((at, 1)),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                at.truncate(at.len().checked_sub(ups)?);
                return Some((at, ups));
            }
            first => {
                at.push(first.to_owned());
                if self.program.contains_key(&at) {
                    return Some((at, 1));
                }
            }
        }
        // An imported module: what the import stands for.
        let import = self.names.get(from)?.imports.get(&path[0])?;
        if depth == 0 || import.path.first() == path.first() {
            return None;
        }
        let (mut at, used) = self.begin(from, &import.path, depth - 1)?;
        at.extend_from_slice(&import.path[used..]);
        self.program.contains_key(&at).then_some((at, 1))
    }

    /// The file that defines what `path` names, seen from the module `from`; None if that is a
    /// module, or nothing of this program.
    fn file(&self, from: &[String], path: &[String], depth: usize) -> Option<&'a Path> {
        let (mut at, mut used) = self.begin(from, path, 8)?;
        while let Some(part) = path.get(used) {
            at.push(part.clone());
            if !self.program.contains_key(&at) {
                at.pop();
                return self.definer(&at, part, depth);
            }
            used += 1;
        }
        // Both a module and, under the same name, a function.
        let name = at.pop()?;
        self.definer(&at, &name, depth)
    }

    fn definer(&self, module: &[String], name: &str, depth: usize) -> Option<&'a Path> {
        let names = self.names.get(module)?;
        if names.defined.contains(name) {
            return Some(&self.program.get(module)?.file);
        }
        let depth = depth.checked_sub(1)?;
        if let Some(import) = names.imports.get(name) {
            return self.file(module, &import.path, depth);
        }
        names.globs.iter().find_map(|glob| {
            let path = [glob.path.as_slice(), &[name.to_owned()]].concat();
            self.file(module, &path, depth)
        })
    }
}

fn imported(tree: &syn::UseTree, above: &mut Vec<String>, handed_on: bool, names: &mut Names) {
    let path = |name: &str| match name {
        "self" => above.clone(),
        name => [above.as_slice(), &[name.to_owned()]].concat(),
    };
    match tree {
        syn::UseTree::Path(tree) => {
            above.push(tree.ident.to_string());
            imported(&tree.tree, above, handed_on, names);
            above.pop();
        }
        syn::UseTree::Name(name) => {
            let path = path(&name.ident.to_string());
            let Some(last) = path.last().cloned() else { return };
            names.imports.insert(last, Import { path, handed_on });
        }
        syn::UseTree::Rename(name) => {
            let path = path(&name.ident.to_string());
            names.imports.insert(name.rename.to_string(), Import { path, handed_on });
        }
        syn::UseTree::Glob(_) => names.globs.push(Import { path: above.clone(), handed_on }),
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| imported(tree, above, handed_on, names));
        }
    }
}

/// Paths in code with more than one part.
struct Paths(BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Paths {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            self.0.insert(path.segments.iter().map(|part| part.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let arguments = Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        if let Ok(arguments) = item.parse_body_with(arguments) {
            arguments.iter().for_each(|argument| {
                let mut below = Paths(BTreeSet::new());
                below.visit_expr(argument);
                self.0.extend(below.0);
            });
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !for_tests(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }
}

/// Which file needs which others.
fn needs(program: &Program) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
    let resolver = Resolver::new(program);
    let mut needs: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
    for (path, module) in program {
        let names = &resolver.names[path.as_slice()];
        let mut paths = Paths(BTreeSet::new());
        for item in &module.items {
            match item {
                syn::Item::Use(_) | syn::Item::Mod(_) => {}
                item => paths.visit_item(item),
            }
        }
        let own = names.imports.values().filter(|import| !import.handed_on);
        paths.0.extend(own.map(|import| import.path.clone()));
        let around = (0..path.len()).map(|end| program[&path[..end]].file.as_path());
        let around: BTreeSet<&Path> = around.chain([module.file.as_path()]).collect();
        let found = paths.0.iter().filter_map(|named| resolver.file(path, named, 8));
        let others = found.filter(|file| !around.contains(file)).map(Path::to_owned);
        needs.entry(module.file.clone()).or_default().extend(others);
    }
    needs
}

/// The circles: sets of files of which each reaches each, the files in order.
fn circles(needs: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Vec<Vec<&Path>> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> = needs
        .keys()
        .map(|file| {
            let mut reached = BTreeSet::new();
            let mut open = vec![file.as_path()];
            while let Some(next) = open.pop() {
                for other in needs.get(next).into_iter().flatten() {
                    if reached.insert(other.as_path()) {
                        open.push(other);
                    }
                }
            }
            (file.as_path(), reached)
        })
        .collect();
    let mut found = BTreeSet::new();
    for (file, reach) in &reached {
        let back = reach.iter().filter(|other| reached[*other].contains(file));
        let circle: Vec<&Path> = back.copied().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// The circles of all crates, each by its files without `crates/` and `src/`.
pub(crate) fn all_circles(crates: &[Crate]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for program in crates.iter().flat_map(|one| &one.programs) {
        let needs = needs(program);
        found.extend(circles(&needs).into_iter().map(|circle| {
            let short = |file: &Path| {
                let name = file.display().to_string();
                name.trim_start_matches("crates/").replacen("/src/", "/", 1)
            };
            circle.into_iter().map(short).collect()
        }));
    }
    found
}

#[test]
fn files_need_each_other_one_way() {
    let mut wrong = Vec::new();
    for circle in all_circles(&crates()) {
        let allowed = ALLOWED.iter().any(|allowed| {
            let pairs = allowed.iter().zip(&circle);
            allowed.len() == circle.len()
                && pairs.into_iter().all(|(end, name)| name.ends_with(end))
        });
        if !allowed {
            wrong.push(format!("a circle of {}", circle.join(", ")));
        }
    }
    none(wrong);
}

#[test]
fn needs_are_seen_through_imports_paths_and_what_is_handed_on() {
    let program = crate::source::program_of(&[
        ("", "mod a; mod b; mod c; mod d;\npub use b::handed; fn main() { a::run(); }"),
        // Through the root to b, and by a path to c.
        ("a", "use crate::{d, handed};\npub fn run() { handed(&super::c::THERE, d::of()); }"),
        // A call in a macro's argument; a child module.
        ("b", "mod in_b; pub fn handed() { println!(\"{}\", crate::a::run()); in_b::of(); }"),
        // A part of b, which names b.
        ("b::in_b", "use super::handed; pub fn of() { handed() }"),
        // What is handed on, or declared, is not needed.
        ("c", "pub use crate::a::run;\npub const THERE: u8 = 0;\n#[cfg(test)] use crate::d::of;"),
        ("d", "use std::fs;\npub fn of() { fs::read(\"\") }"),
    ]);
    let needs = needs(&program);
    let of = |file: &str| -> Vec<&str> {
        needs[Path::new(file)].iter().map(|file| file.to_str().unwrap()).collect()
    };
    assert_eq!(of(".rs"), ["a.rs"]);
    assert_eq!(of("a.rs"), ["b.rs", "c.rs", "d.rs"]);
    assert_eq!(of("b.rs"), ["a.rs", "b::in_b.rs"]);
    assert!(of("b::in_b.rs").is_empty());
    assert!(of("c.rs").is_empty() && of("d.rs").is_empty());
    assert_eq!(circles(&needs), [[Path::new("a.rs"), Path::new("b.rs")]]);
}
