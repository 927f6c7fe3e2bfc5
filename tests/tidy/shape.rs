//! The shape of libraries and programs: how many methods a type has, how long functions are, what
//! type names mean.
//!
//! Tests are left out. A type's methods are those of its inherent impls in all files of its crate;
//! an impl of a trait counts for the trait. A type is private to its file if nothing makes it
//! visible (no `pub` of any kind).
//!
//! Invariant: these rules have no exceptions.

use std::collections::BTreeMap;

use crate::project::none;
use crate::source::{Crate, crates, defined, for_tests, functions};

const MAX_METHODS: usize = 40;
const MAX_FUNCTION: usize = 80;

/// The methods of each type, most first: `crate::Type`, or `crate::module::Type` where more than
/// one file of the crate has a type of that name.
pub(crate) fn methods(crates: &[Crate]) -> Vec<(String, usize)> {
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for one in crates {
        for module in one.modules() {
            let own: Vec<String> = module
                .items
                .iter()
                .filter_map(defined)
                .filter(|(_, visibility)| matches!(visibility, syn::Visibility::Inherited))
                .map(|(name, _)| name)
                .collect();
            for item in &module.items {
                let syn::Item::Impl(item) = item else { continue };
                let (None, Some(name)) = (&item.trait_, type_name(&item.self_ty)) else { continue };
                let count = item.items.iter().filter(|item| match item {
                    syn::ImplItem::Fn(function) => !for_tests(&function.attrs),
                    _ => false,
                });
                let key = match own.contains(&name) {
                    true => format!("{}::{name}", module.file.display()),
                    false => format!("{}::{name}", one.name),
                };
                *counted.entry(key).or_default() += count.count();
            }
        }
    }
    let mut counted: Vec<(String, usize)> = counted.into_iter().collect();
    counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    counted
}

fn type_name(of: &syn::Type) -> Option<String> {
    match of {
        syn::Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

/// Functions that are too long, as `file::function`, with their lines.
pub(crate) fn long_functions(crates: &[Crate]) -> Vec<(String, usize)> {
    let modules = crates.iter().flat_map(Crate::modules);
    let all = modules.flat_map(|module| {
        let named = |(name, lines)| (format!("{}::{name}", module.file.display()), lines);
        functions(&module.items).into_iter().map(named)
    });
    let mut long: Vec<(String, usize)> = all.filter(|(_, lines)| *lines > MAX_FUNCTION).collect();
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    long
}

/// Type names with more than one definition that is not private to its file, with the files.
pub(crate) fn ambiguous(crates: &[Crate]) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in crates.iter().flat_map(Crate::modules) {
        for (name, visibility) in module.items.iter().filter_map(defined) {
            let private = matches!(visibility, syn::Visibility::Inherited);
            if !private && !["Error", "Result"].contains(&name.as_str()) {
                places.entry(name).or_default().push(module.file.display().to_string());
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    places
}

#[test]
fn no_type_is_too_large() {
    let large = methods(&crates()).into_iter().filter(|(_, count)| *count > MAX_METHODS);
    let wrong = large.map(|(name, count)| {
        format!(
            "{name}: {count} methods, {MAX_METHODS} are allowed: its parts want their own state"
        )
    });
    none(wrong.collect());
}

#[test]
fn no_function_is_too_long() {
    let wrong = long_functions(&crates()).into_iter();
    let wrong =
        wrong.map(|(name, lines)| format!("{name}: {lines} lines, {MAX_FUNCTION} are allowed"));
    none(wrong.collect());
}

#[test]
fn a_type_name_means_one_thing() {
    let wrong = ambiguous(&crates()).into_iter();
    let wrong =
        wrong.map(|(name, places)| format!("type {name}: defined in {}", places.join(", ")));
    none(wrong.collect());
}

#[test]
fn methods_functions_and_names_are_counted_as_the_rules_say() {
    let program = crate::source::program_of(&[
        ("", "mod a; mod b;\npub struct One;\nimpl One { fn x() {} #[cfg(test)] fn y() {} }"),
        ("a", "impl crate::One { fn z() {} }\nimpl Drop for One { fn drop(&mut self) {} }\n"),
        (
            "b",
            "struct One;\nimpl One { fn p() {} fn q() {} fn r() {\n\n} }\npub(crate) enum Two {}",
        ),
        ("c", "pub trait Two {}\n#[cfg(test)]\npub struct One;\npub type Error = u8;"),
    ]);
    let crates = [Crate { name: "k".to_owned(), programs: vec![program] }];
    let counted = [("b.rs::One".to_owned(), 3), ("k::One".to_owned(), 2)];
    assert_eq!(methods(&crates), counted);
    let ambiguous = ambiguous(&crates);
    assert_eq!(ambiguous["Two"], ["b.rs", "c.rs"]);
    assert_eq!(ambiguous.len(), 1);
    let lengths = functions(&crates[0].programs[0][&vec!["b".to_owned()]].items);
    assert_eq!(lengths.iter().map(|(_, lines)| *lines).collect::<Vec<_>>(), [1, 1, 3]);
}
