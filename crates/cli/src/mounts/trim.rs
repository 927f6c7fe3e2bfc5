//! Gives back the pages of the program that only its start needed.
//!
//! Reading the command line, the index and the layers runs through several megabytes of code that
//! a daemon never comes to again; they would count as its memory as long as it lives.
//!
//! Invariant: only mappings of files that nothing can write to are touched; what is used again is
//! mapped again from the same file.
#![allow(unsafe_code)]

use std::fs;

use rustix::mm::{Advice, madvise};

/// Unmaps the pages of all code; what runs comes back by itself.
pub(super) fn trim() {
    // Not to be had, or of another form: then there is nothing to win.
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for (start, end) in maps.lines().filter_map(code) {
        // SAFETY: the range is one mapping of this process, private, readable, executable and not
        // writable (see `code`). Nothing was ever written to its pages, for no code here makes
        // code writable, so they are those of the file, and that is what comes back.
        let done = unsafe {
            madvise(std::ptr::without_provenance_mut(start), end - start, Advice::LinuxDontNeed)
        };
        if let Err(error) = done {
            tracing::debug!("cannot give back pages of the program: {error}");
        }
    }
}

/// The range of a line of proc_pid_maps(5), if it is code of a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, access) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    if access != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let parse = |text| usize::from_str_radix(text, 16).ok();
    Some((parse(start)?, parse(end)?)).filter(|(start, end)| start < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_files_alone() {
        let exe = "55d0c8a00000-55d0c9000000 r-xp 00200000 fe:00 1234   /usr/bin/strata";
        assert_eq!(code(exe), Some((0x55d0_c8a0_0000, 0x55d0_c900_0000)));
        for other in [
            "55d0c8a00000-55d0c9000000 r--p 00200000 fe:00 1234   /usr/bin/strata",
            "55d0c8a00000-55d0c9000000 rwxp 00200000 fe:00 1234   /usr/bin/strata",
            "7ffd1b7d6000-7ffd1b7d8000 r-xp 00000000 00:00 0      [vdso]",
            "7ffd1b7d6000-7ffd1b7d8000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_runs_on() {
        trim();
        assert_eq!("a".repeat(3), "aaa");
    }
}
