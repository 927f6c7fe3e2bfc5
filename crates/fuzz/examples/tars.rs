//! Writes the tars that inputs of the targets `layer` and `members` mean, for
//! `scripts/differential`: what libFuzzer has found to be of interest to strata's reader is so for
//! others.
//!
//! usage: tars OUT TARGET INPUT...

#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};

fn main() {
    let mut args = std::env::args_os().skip(1);
    let out = PathBuf::from(args.next().expect("OUT"));
    let target = args.next().expect("TARGET").into_string().expect("a name");
    for input in args {
        // libFuzzer, if it runs, replaces inputs by better ones.
        let Ok(bytes) = std::fs::read(&input) else { continue };
        let Some(tar) = strata_fuzz::tar_in(&target, &bytes) else { continue };
        let name = Path::new(&input).file_name().expect("a file").to_string_lossy().into_owned();
        std::fs::write(out.join(format!("{target}-{name}.tar")), tar).expect("written");
    }
}
