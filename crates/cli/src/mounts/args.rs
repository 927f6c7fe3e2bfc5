//! The arguments of `strata mount`, `umount` and `mounts`.
//!
//! Invariant: what [`MountRequest::daemon_args`] writes, [`MountArgs`] reads back to the same
//! request, whatever bytes the paths hold.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum, ValueHint};
use strata_fuse::Profile;
use stratafs::Engine;

use super::daemon::{MountRequest, Role};
use crate::remote::LazyArgs;

/// How files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// Fastest for many files; works for everyone
    NoOpen,
    /// The kernel reads the store's files itself, where it allows that (root, Linux 6.9)
    Passthrough,
}

/// What serves a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendArg {
    /// The kernel where that is possible, else a daemon; -v says which, and why
    Auto,
    /// The kernel: names from an EROFS image, contents from the store (root, Linux 6.13)
    Kernel,
    /// In a user namespace: a daemon for names, the kernel for contents (Linux 6.16)
    Userns,
    /// A daemon, through FUSE
    Fuse,
}

/// When a thread polls for the next request instead of sleeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BusyPollArg {
    /// While one caller asks one request after another, for up to 50 microseconds each
    Auto,
    /// Never: the daemon sleeps between requests, which takes longer and less of a processor
    Off,
}

/// Mount an image, read-only or with a writable layer
///
/// Returns when the mount is usable. For root, where the kernel can, the kernel serves it by itself
/// (--backend kernel); else a daemon in the background serves it until `strata umount`, or SIGTERM,
/// and no privilege is needed but fusermount3. Owners, modes, devices and attributes are
/// shown as the image has them. An image cannot be removed while it is mounted. An image that is
/// not in the store is pulled first.
#[derive(Debug, Clone, Args)]
pub(crate) struct MountArgs {
    /// The image: a reference, or an id or the beginning of one
    pub(crate) image: String,
    /// The directory to mount on
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
    /// Put a writable layer on top; it is removed when the mount ends
    #[arg(long)]
    pub(crate) rw: bool,
    /// With --rw: keep the layer, and print its name
    #[arg(long, requires = "rw", conflicts_with = "upper")]
    pub(crate) keep: bool,
    /// Put the writable layer NAME on top, which is made if there is none, and kept
    #[arg(long, value_name = "NAME")]
    pub(crate) upper: Option<String>,
    /// What serves the mount [default: $STRATA_BACKEND, else auto]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub(crate) backend: Option<BackendArg>,
    /// Say what serves the mount, and why
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Stay in the foreground until it is unmounted
    #[arg(short, long)]
    pub(crate) foreground: bool,
    /// Compare each content with its digest when it is first opened: one that was changed on the
    /// disk gives EIO. A daemon serves the mount; what a writable layer has is not compared
    #[arg(long)]
    pub(crate) verify: bool,
    /// Have the kernel compare each content with its fs-verity digest: what was changed on the disk
    /// gives EIO. Needs fs-verity in the kernel and in the file system of the store (ext4: `tune2fs
    /// -O verity`); the kernel serves the mount
    #[arg(long, conflicts_with_all = ["verify", "foreground"])]
    pub(crate) verity: bool,
    /// How the daemon reads files
    #[arg(long, value_enum, default_value = "no-open")]
    pub(crate) profile: ProfileArg,
    /// Honour set-user-id bits and file capabilities of the image (root only)
    #[arg(long)]
    pub(crate) suid: bool,
    /// Honour device nodes of the image (root only)
    #[arg(long)]
    pub(crate) dev: bool,
    /// Forbid running programs of the image
    #[arg(long)]
    pub(crate) noexec: bool,
    /// How many threads answer the kernel
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: u8,
    /// Whether a thread that has answered polls for the next request instead of sleeping
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) busy_poll: BusyPollArg,
    /// Be the daemon that is registered under this name
    #[arg(long, value_name = "NAME", hide = true, conflicts_with = "foreground")]
    pub(crate) daemon: Option<String>,
    /// The daemon's image, whatever its name means by now
    #[arg(long, value_name = "ID", hide = true, requires = "daemon")]
    pub(crate) image_id: Option<String>,
    #[command(flatten)]
    pub(crate) lazy: LazyArgs,
}

/// Unmount an image
///
/// Says who keeps it busy if files below it are open. What a dead daemon left is taken away too.
#[derive(Debug, Clone, Args)]
pub(crate) struct UmountArgs {
    /// The directory that it is mounted on
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
    /// Also if files are open: they can be read until they are closed
    #[arg(short, long)]
    pub(crate) lazy: bool,
    /// End the daemon too: the mount goes wherever it is, also in other mount namespaces, and open
    /// files give errors from then on
    #[arg(long, conflicts_with = "lazy")]
    pub(crate) abort: bool,
}

/// List the mounts
///
/// STATUS is alive, detached (unmounted with --lazy, files still open), elsewhere (not mounted
/// here, but in another mount namespace, such as a container's) or dead (its daemon was killed;
/// the next mount, umount or gc cleans up).
#[derive(Debug, Clone, Args)]
pub(crate) struct MountsArgs {}

impl MountArgs {
    /// What is to serve the mount.
    ///
    /// # Errors
    /// `STRATA_BACKEND` is none of the words.
    pub(crate) fn backend(&self) -> Result<BackendArg> {
        let named = std::env::var_os("STRATA_BACKEND").filter(|name| !name.is_empty());
        match (self.backend, named) {
            (Some(wanted), _) => Ok(wanted),
            (None, None) => Ok(BackendArg::Auto),
            (None, Some(name)) => {
                BackendArg::from_str(&name.to_string_lossy(), false).map_err(|_| {
                    anyhow!("STRATA_BACKEND is {name:?}; it can be auto, kernel, userns or fuse")
                })
            }
        }
    }

    /// The request. `engine` is the store; `globals` are the arguments before the
    /// subcommand that the daemon is to be started with, `--root` among them.
    pub(crate) fn request(
        &self,
        engine: Engine,
        globals: Vec<OsString>,
        upper: Option<String>,
    ) -> MountRequest {
        MountRequest {
            upper,
            names_only: self.backend == Some(BackendArg::Userns),
            engine,
            image: self.image.clone(),
            image_id: self.image_id.clone(),
            directory: self.directory.clone(),
            profile: match self.profile {
                ProfileArg::NoOpen => Profile::NoOpen,
                ProfileArg::Passthrough => Profile::Passthrough,
            },
            suid: self.suid,
            dev: self.dev,
            exec: !self.noexec,
            verify: self.verify,
            verity: self.verity,
            threads: usize::from(self.threads),
            busy_poll: self.busy_poll == BusyPollArg::Auto,
            role: match (&self.daemon, self.foreground) {
                (Some(name), _) => Role::Daemon(name.clone()),
                (None, true) => Role::Foreground,
                (None, false) => Role::Starter,
            },
            globals,
        }
    }
}

impl MountRequest {
    /// The profile's name on the command line.
    pub(super) fn profile_name(&self) -> &'static str {
        match self.profile {
            Profile::NoOpen => "no-open",
            Profile::Passthrough => "passthrough",
        }
    }

    /// The arguments that start the daemon for this request: `name` is its place in the
    /// registry, `directory` its mountpoint as an absolute path.
    pub(super) fn daemon_args(&self, name: &str, directory: &Path) -> Vec<OsString> {
        let mut args = self.globals.clone();
        args.extend(["mount", "--daemon", name, "--profile", self.profile_name()].map(Into::into));
        args.extend(["--threads".into(), self.threads.to_string().into()]);
        if self.names_only {
            args.extend(["--backend", "userns"].map(Into::into));
        }
        if !self.busy_poll {
            args.extend(["--busy-poll", "off"].map(Into::into));
        }
        let flags = [
            ("--suid", self.suid),
            ("--dev", self.dev),
            ("--noexec", !self.exec),
            ("--verify", self.verify),
        ];
        for (flag, wanted) in flags {
            if wanted {
                args.push(flag.into());
            }
        }
        if let Some(upper) = &self.upper {
            args.extend(["--upper".into(), upper.as_str().into()]);
        }
        if let Some(id) = &self.image_id {
            args.extend(["--image-id".into(), id.as_str().into()]);
        }
        args.extend(["--".into(), self.image.as_str().into(), directory.into()]);
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::ffi::OsStringExt;

    #[derive(Parser)]
    enum Command {
        Mount(MountArgs),
    }

    #[test]
    fn the_daemon_understands_what_it_is_started_with() {
        let directory = PathBuf::from(OsString::from_vec(b"/a/-\xff dir".to_vec()));
        let request = MountRequest {
            engine: Engine::new("/store"),
            image: "-odd:ref".into(),
            image_id: Some("sha256:1".into()),
            directory: directory.clone(),
            profile: Profile::Passthrough,
            suid: true,
            dev: false,
            exec: false,
            verify: true,
            verity: false,
            threads: 3,
            busy_poll: false,
            names_only: true,
            role: Role::Starter,
            upper: Some("work".into()),
            globals: Vec::new(),
        };
        let mut args: Vec<OsString> = vec!["strata".into()];
        args.extend(request.daemon_args("n", &directory));
        let Command::Mount(parsed) = Command::parse_from(args);
        let upper = parsed.upper.clone();
        let read = parsed.request(Engine::new("/store"), Vec::new(), upper);
        assert_eq!(read, MountRequest { role: Role::Daemon("n".into()), ..request });
    }
}
