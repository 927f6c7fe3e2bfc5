//! What the whole-program tests share: the built program with a store of its own.
//!
//! Invariant: a [`Sandbox`] takes its mounts and files away however its test ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::fixture;

/// A directory with a store in it.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// A program of the package whose test this is: Cargo has built it, and says where.
pub fn program(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return path.into();
    }
    // Beside the directory of the tests, where Cargo says it only to the compiler.
    let path = std::env::current_exe().unwrap();
    let path = path.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

impl Sandbox {
    pub fn new() -> Self {
        let sandbox = Self { dir: tempfile::tempdir().unwrap() };
        // A file that is named has to be there.
        std::fs::write(sandbox.path().join("registries.conf"), "").unwrap();
        sandbox
    }

    /// With the image `cases.oci:1` loaded.
    pub fn with_cases() -> Self {
        Self::with("cases.oci")
    }

    /// With the images of one fixture loaded.
    pub fn with(name: &str) -> Self {
        let sandbox = Self::new();
        sandbox.ok(&["load", "-i", fixture(name).to_str().unwrap()]);
        sandbox
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A new directory.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    /// `strata --root ... ARGS`, to be run in the sandbox.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_on(&self.path().join("store"), args)
    }

    /// The same on another store.
    pub fn command_on(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program("strata"));
        command.arg("--root").arg(root).args(args);
        command.current_dir(self.path()).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env_remove("COLUMNS");
        // The same for root and others; a test of the kernel's own mounts says so.
        command.env("STRATA_BACKEND", "fuse");
        // No registry, mirror or proxy of this machine, and nobody's credentials.
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_ascii_uppercase());
        }
        command.env("CONTAINERS_REGISTRIES_CONF", self.path().join("registries.conf"));
        command.env("DOCKER_CONFIG", self.path().join("docker"));
        command.env("XDG_CONFIG_HOME", self.path().join("config"));
        command.env("XDG_RUNTIME_DIR", self.path().join("run")).env_remove("REGISTRY_AUTH_FILE");
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs what must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}: {error}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what must fail with exit code 1; the one line of its error.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        error
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--format", "json-full"];
        all.extend(args);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let here = self.path().to_str().unwrap_or_default();
        for line in table.lines().rev() {
            let point = line.split(' ').nth(4).unwrap_or_default();
            if point.starts_with(here) {
                // A test that failed left it; its own message is the one that counts.
                let _ = self.run(&["umount", "--lazy", point]);
            }
        }
    }
}
