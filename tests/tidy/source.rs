//! The sources as the compiler sees them: parsed, each with its place among its crate's modules.
//!
//! A crate is one or more programs (its library, its binaries); each is a tree of modules that
//! starts at one file. What is compiled for tests alone is left out: items and modules under a
//! `cfg` that names `test`.
//!
//! Invariant: a file is parsed once, also if two programs of its crate contain it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use quote::ToTokens as _;
use syn::visit::Visit;

use crate::compiled::module_file;
use crate::project::{files, is_rust, read};

/// A module: one file, or part of one.
pub(crate) struct Module {
    /// Relative to the project's top.
    pub(crate) file: PathBuf,
    pub(crate) items: Vec<syn::Item>,
}

/// A library or a binary: its modules by their paths, the root's is empty.
pub(crate) type Program = BTreeMap<Vec<String>, Module>;

/// A crate's directory name and its programs, the library first.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) programs: Vec<Program>,
}

impl Crate {
    /// The modules of all programs, those of a file that is in two of them once.
    pub(crate) fn modules(&self) -> Vec<&Module> {
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        let mut found = Vec::new();
        for program in &self.programs {
            let new = program.values().filter(|module| !seen.contains(module.file.as_path()));
            let new: Vec<&Module> = new.collect();
            seen.extend(new.iter().map(|module| module.file.as_path()));
            found.extend(new);
        }
        found
    }
}

/// All crates of the workspace.
pub(crate) fn crates() -> Vec<Crate> {
    let all: Vec<PathBuf> = files().into_iter().filter(|path| is_rust(path)).collect();
    let kit = Path::new("crates/testkit");
    let mut roots: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in all.iter().filter(|path| !path.starts_with(kit)) {
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        if let ["crates", name, "src", "lib.rs" | "main.rs"] | ["crates", name, "src", "bin", _] =
            parts.as_slice()
        {
            roots.entry((*name).to_owned()).or_default().push(path.clone());
        }
    }
    for (name, roots) in &mut roots {
        let here = Path::new("crates").join(name);
        // Programs whose root is in the manifest; tests are no part of the shape.
        for line in read(&here.join("Cargo.toml")).lines() {
            let named = line.strip_prefix("path = \"src/").and_then(|rest| rest.strip_suffix('"'));
            let path = named.map(|named| here.join("src").join(named));
            roots.extend(path.filter(|path| !roots.contains(path)));
        }
    }
    let mut crates = Vec::new();
    for (name, roots) in roots {
        let programs = roots.iter().map(|root| program(root, &all)).collect();
        crates.push(Crate { name, programs });
    }
    crates
}

fn program(root: &Path, all: &[PathBuf]) -> Program {
    let mut program = Program::new();
    let mut open = vec![(Vec::new(), root.to_owned(), parse(root))];
    while let Some((path, file, items)) = open.pop() {
        for item in &items {
            let syn::Item::Mod(module) = item else { continue };
            let name = module.ident.to_string();
            let below = [path.clone(), vec![name.clone()]].concat();
            match &module.content {
                Some((_, items)) => open.push((below, file.clone(), library(items.clone()))),
                None => {
                    let given = given_path(&module.attrs);
                    let found = module_file(&file, &name, given.as_deref());
                    let found = found.into_iter().find(|found| all.contains(found));
                    let found = found.unwrap_or_else(|| panic!("{}: mod {name}", file.display()));
                    let items = parse(&found);
                    open.push((below, found, items));
                }
            }
        }
        program.insert(path, Module { file, items });
    }
    program
}

fn parse(path: &Path) -> Vec<syn::Item> {
    let parsed = syn::parse_file(&read(path));
    library(parsed.unwrap_or_else(|error| panic!("{}: {error}", path.display())).items)
}

/// The program of one source, for the tests of the rules.
#[cfg(test)]
pub(crate) fn program_of(sources: &[(&str, &str)]) -> Program {
    let module = |(path, text): &(&str, &str)| {
        let names = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let items = library(syn::parse_file(text).unwrap().items);
        (names, Module { file: format!("{path}.rs").into(), items })
    };
    sources.iter().map(module).collect()
}

/// The items of `items` that are compiled outside of tests.
fn library(items: Vec<syn::Item>) -> Vec<syn::Item> {
    items.into_iter().filter(|item| !for_tests(attributes(item))).collect()
}

/// Whether a `cfg` among `attributes` asks for tests.
pub(crate) fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.meta.to_token_stream().to_string();
        attribute.path().is_ident("cfg")
            && !text.contains("not (test")
            && text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[path = "..."]`.
fn given_path(attributes: &[syn::Attribute]) -> Option<String> {
    let mut all = attributes.iter().filter(|attribute| attribute.path().is_ident("path"));
    let text = all.next()?.meta.to_token_stream().to_string();
    text.split('"').nth(1).map(str::to_owned)
}

/// Each function of `items` with a body, by name, with its length in lines from `fn` on (or what
/// stands before it in that line) to its last brace. Functions for tests are left out.
pub(crate) fn functions(items: &[syn::Item]) -> Vec<(String, usize)> {
    let mut found = Functions(Vec::new());
    // What a module contains is a module of its own.
    items.iter().filter(|item| !matches!(item, syn::Item::Mod(_))).for_each(|item| {
        found.visit_item(item);
    });
    found.0
}

struct Functions(Vec<(String, usize)>);

impl Functions {
    fn found(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let end = block.brace_token.span.close().end().line;
        self.0.push((sig.ident.to_string(), end + 1 - sig.fn_token.span.start().line));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.found(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !for_tests(&item.attrs) {
            self.found(&item.sig, &item.block);
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.found(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

/// A type that `item` defines: its name and who may use it.
pub(crate) fn defined(item: &syn::Item) -> Option<(String, &syn::Visibility)> {
    let (name, visibility) = match item {
        syn::Item::Enum(item) => (&item.ident, &item.vis),
        syn::Item::Struct(item) => (&item.ident, &item.vis),
        syn::Item::Trait(item) => (&item.ident, &item.vis),
        syn::Item::Type(item) => (&item.ident, &item.vis),
        syn::Item::Union(item) => (&item.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), visibility))
}

/// A value that `item` defines: its name and who may use it.
pub(crate) fn value(item: &syn::Item) -> Option<(String, &syn::Visibility)> {
    let (name, visibility) = match item {
        syn::Item::Const(item) => (&item.ident, &item.vis),
        syn::Item::Fn(item) => (&item.sig.ident, &item.vis),
        syn::Item::Static(item) => (&item.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), visibility))
}
