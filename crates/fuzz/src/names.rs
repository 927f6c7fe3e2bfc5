//! Text that people and registries write: names of images, options of mounts.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use strata_overlay::{check_command_line, separate};
use strata_registry::Reference;

/// A name of an image: what is accepted is written so that it means the same.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(found) = text.parse::<Reference>() {
        for written in [found.to_string(), found.familiar()] {
            assert_eq!(written.parse().ok().as_ref(), Some(&found), "{written}");
        }
    }
}

/// The options of a mount: no byte appears from nowhere, and what the program says of them is the
/// same each time. After a null byte come further words of the command line.
pub(crate) fn options(data: &[u8]) {
    let total: usize = separate(data).map(|option| option.len()).sum();
    assert!(total <= data.len());
    let mut words = vec![OsString::from("-o")];
    words.extend(data.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())));
    words.push("/mnt".into());
    let said = check_command_line(&words);
    assert_eq!(check_command_line(&words), said, "read twice");
    assert!(said.as_ref().err().is_none_or(|why| !why.is_empty()), "refused without a word");
}
