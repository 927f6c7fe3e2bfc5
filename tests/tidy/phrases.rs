//! Phrases that the prose does not use: another language's word order, and words that the field
//! has better ones for.
//!
//! Prose is what people read: documents, comments, messages. A phrase that a line break cuts in two
//! is found as well.
//!
//! Invariant: the list is of phrases that occur nowhere; this file is not read.

use std::fs;

use crate::project::{files, none, top};

/// Each with what to write instead.
const BANNED: [(&str, &str); 14] = [
    ("anew", "again, or say what is made"),
    ("just those", "exactly those, or name them"),
    ("so many", "this many, or name the number"),
    ("whoever is", "a caller that is, or name who"),
    ("heeded", "obeyed, followed, or say what is done"),
    ("who asks for", "a caller that asks for"),
    ("whoever asks", "a caller, or name who"),
    ("whoever uses", "a caller that uses, or name who"),
    ("what is none", "name what the thing is"),
    ("told from", "distinguished from"),
    ("whoever has", "a caller that has, or name who"),
    ("in vain", "without success, or say what fails"),
    ("it is looked again", "name who looks"),
    ("many times must", "must ... times"),
];

/// The words of `text`, in lower case, without the marks that begin a comment's lines, each with
/// the number of its line.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start().trim_start_matches(['/', '!', '#', '*']);
        for word in line.split_whitespace() {
            let word = word.trim_start_matches(['"', '(', '`', '\'', '*', '_']);
            found.push((number + 1, word.to_lowercase()));
        }
    }
    found
}

/// Where `text` has `phrase`: numbers of lines.
fn places(words: &[(usize, String)], phrase: &str) -> Vec<usize> {
    let wanted: Vec<&str> = phrase.split(' ').collect();
    let end = |word: &str| word.trim_end_matches(|c: char| !c.is_alphanumeric()).to_owned();
    words
        .windows(wanted.len())
        .filter(|window| {
            window.iter().zip(&wanted).enumerate().all(|(at, ((_, word), wanted))| {
                word == wanted || at + 1 == window.len() && end(word) == *wanted
            })
        })
        .map(|window| window[0].0)
        .collect()
}

#[test]
fn prose_is_plain() {
    let mut wrong = Vec::new();
    for path in files() {
        let name = path.to_str().unwrap();
        if name == "tests/tidy/phrases.rs" || name == "Cargo.lock" || name.contains("/assets/") {
            continue;
        }
        let Ok(text) = fs::read_to_string(top().join(&path)) else { continue };
        let words = words(&text);
        for (phrase, instead) in BANNED {
            let found = places(&words, phrase).into_iter();
            wrong.extend(found.map(|line| format!("{name}:{line}: \"{phrase}\": {instead}")));
        }
    }
    none(wrong);
}

#[test]
fn a_phrase_is_found_across_lines_and_not_within_words() {
    let words = words("// He looks in\n    // vain.\n/// \"In vain\" is\nin vainglory");
    assert_eq!(places(&words, "in vain"), [1, 3]);
}
