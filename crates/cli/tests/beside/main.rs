//! The same commands in the same directories, mounted by `strata-overlay` and by the kernel's
//! overlayfs: what they print is compared.
//!
//! Invariant: what is printed does not depend on the order of names in a directory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod data;
mod flags;

use std::process::Command;

use strata_testkit::needs;

/// What every script begins with: in a directory of its own, `$2`, with `l`, `u`, `w` and `m`.
const PRELUDE: &str = r#"
program=$1
cd "$2" || exit 1
on() { # LOWERS
  local options=$1,upperdir=u,workdir=w
  if [ "$program" = kernel ]; then
    mount -t overlay overlay m -o $options,redirect_dir=on,metacopy=on,index=off
  else
    "$program" -o $options m
  fi
}
off() { umount m; }
part() { echo "== $*"; }
try() { # What it says, or that it works.
  local said; said=$("$@" 2>&1) && echo "$1: ok $said" || echo "$1: ${said##*: }"
}
chmod 755 . && mkdir l u w m
"#;

/// What a script prints under `strata-overlay`, and what under the kernel's overlayfs; `None` where
/// nothing can be mounted.
fn beside(script: &str) -> Option<(String, String)> {
    if !needs::root_and_fuse() {
        return None;
    }
    let run = |program: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-c", &format!("{PRELUDE}{script}"), "beside", program]).arg(dir.path());
        let output = bash.env("LC_ALL", "C").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text + &String::from_utf8_lossy(&output.stderr)
    };
    Some((run(env!("CARGO_BIN_EXE_strata-overlay")), run("kernel")))
}
