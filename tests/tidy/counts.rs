//! The figures of the shape, printed: `scripts/counts`.

use std::collections::BTreeMap;

use crate::circles::all_circles;
use crate::project::{files, is_rust, is_test, read};
use crate::shape::{ambiguous, long_functions, methods};
use crate::source::{Crate, Program, crates, defined, value};

/// The names that a crate's users can write: items of public modules, and what is handed on.
fn public_names(program: &Program, module: &[String]) -> usize {
    let Some(found) = program.get(module) else { return 0 };
    let public = |visibility: &syn::Visibility| matches!(visibility, syn::Visibility::Public(_));
    let count = |item: &syn::Item| match item {
        syn::Item::Mod(item) if public(&item.vis) => {
            public_names(program, &[module, &[item.ident.to_string()]].concat())
        }
        syn::Item::Use(item) if public(&item.vis) => leaves(&item.tree),
        item => {
            let named = defined(item).or_else(|| value(item));
            usize::from(named.is_some_and(|(_, visibility)| public(visibility)))
        }
    };
    found.items.iter().map(count).sum()
}

fn leaves(tree: &syn::UseTree) -> usize {
    match tree {
        syn::UseTree::Path(tree) => leaves(&tree.tree),
        syn::UseTree::Group(group) => group.items.iter().map(leaves).sum(),
        _ => 1,
    }
}

fn lines_of(name: &str) -> BTreeMap<&'static str, usize> {
    let mut lines = BTreeMap::from([("code", 0), ("tests", 0)]);
    let here = format!("crates/{name}/");
    for path in files().iter().filter(|path| is_rust(path) && path.starts_with(&here)) {
        let text = read(path);
        let all = text.lines().count();
        let code = match is_test(path) {
            true => 0,
            false => crate::code::without_tests(&text).lines().count(),
        };
        *lines.entry("code").or_default() += code;
        *lines.entry("tests").or_default() += all - code;
    }
    lines
}

#[test]
#[ignore = "prints figures"]
fn counts() {
    let crates = crates();
    println!("{:<14} {:>7} {:>7} {:>13}", "crate", "lines", "tests", "public names");
    for one in &crates {
        let Crate { name, programs } = one;
        let library = programs.iter().find(|program| {
            program.get([].as_slice()).is_some_and(|root| root.file.ends_with("lib.rs"))
        });
        let names = library.map_or(0, |library| public_names(library, &[]));
        let lines = lines_of(name);
        println!("{name:<14} {:>7} {:>7} {names:>13}", lines["code"], lines["tests"]);
    }
    let circles = all_circles(&crates);
    println!("\ncircles: {}", circles.len());
    circles.iter().for_each(|circle| println!("  {}: {}", circle.len(), circle.join(" ")));
    println!("\nlargest types by methods:");
    methods(&crates).iter().take(6).for_each(|(name, count)| println!("  {count:>4} {name}"));
    let ambiguous = ambiguous(&crates);
    println!("\ntype names defined more than once: {}", ambiguous.len());
    let mut names: Vec<_> = ambiguous.iter().map(|(name, places)| (places.len(), name)).collect();
    names.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    names.iter().take(12).for_each(|(count, name)| println!("  {count:>4} {name}"));
    let long = long_functions(&crates);
    println!("\nfunctions over 80 lines: {}", long.len());
    long.iter().for_each(|(name, lines)| println!("  {lines:>4} {name}"));
    let rust = files().into_iter().filter(|path| is_rust(path));
    let longest = rust.map(|path| (read(&path).lines().count(), path)).max();
    longest.iter().for_each(|(lines, path)| println!("\nlongest file: {lines} {}", path.display()));
    println!("README: {} lines", read("README.md".as_ref()).lines().count());
}
