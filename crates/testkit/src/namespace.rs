//! A process in a mount namespace of its own, with a copy of one mount.
//!
//! Invariants: nothing of other tests is kept there, since they end their mounts themselves; the
//! namespace ends with the drop of this.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The process. See the module.
pub struct Namespace(Child);

impl Namespace {
    /// One with the mount on `point`. Needs root.
    pub fn with(point: &Path) -> Self {
        let script = "awk -v own=\"$1\" '$5 != own && $5 ~ \"^(/tmp|/var/tmp)/\" {print $5}' \
             /proc/self/mountinfo | tac | xargs -r umount -l 2> /dev/null; echo ready; \
             exec sleep 1000 < /dev/null";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        let mut child = command.arg(point).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut said).unwrap();
        Self(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
