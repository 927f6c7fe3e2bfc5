//! The files and variables that commands use, each described once.
//!
//! The model: a command [`Use`]s parts of the store, registries, FUSE and so on; each of these
//! stands for some files and some variables of the environment, which a page then lists.
//!
//! Invariant: what is said here is what `context`, `remote::config` and `mounts` read, and a page
//! lists nothing that its command leaves alone.

/// Something that a command uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The store itself: the index and the names.
    Store,
    /// The files of images.
    Layers,
    /// Manifests and configs.
    Blobs,
    /// Compiled trees.
    Trees,
    /// Writable layers.
    Uppers,
    /// What is mounted where.
    Mounts,
    /// What was interrupted.
    Leftovers,
    /// The kernel's side of mounts.
    Fuse,
    /// Logins.
    Credentials,
    /// Addresses, mirrors, proxies and certificates.
    Registries,
    /// Policies, and where signatures are.
    Policies,
    /// Files without a name, for archives that come as a stream.
    Scratch,
    /// Colours of the terminal.
    Colour,
    /// Shells that ask.
    Completion,
}

/// A file, or a variable, and what it is for.
pub(super) type PageEntry = (&'static str, &'static str);

/// What every command reads.
pub(super) const LOG: PageEntry = (
    "RUST_LOG",
    "What to log, where --log-level does not say it: warn, debug, strata_image=trace.",
);

const ROOT: PageEntry = (
    "ROOT/index.db, ROOT/images.json",
    "What is known of layers, files, images and names; the names once more, for fsck --repair. \
     ROOT is the directory that --root or STRATA_ROOT names, else /var/lib/stratafs for root and \
     $XDG_DATA_HOME/stratafs or ~/.local/share/stratafs for others.",
);

const STRATA_ROOT: PageEntry =
    ("STRATA_ROOT", "The store's directory, where --root does not say it.");
const DATA: PageEntry =
    ("XDG_DATA_HOME, HOME", "Where an ordinary user's store is, where nothing else says it.");

const CACHE: PageEntry = (
    "/var/cache/stratafs, $XDG_CACHE_HOME/stratafs, ~/.cache/stratafs",
    "What belongs to a store that cannot be written: compiled trees and the records of mounts.",
);
const CACHE_HOME: PageEntry =
    ("XDG_CACHE_HOME", "Where an ordinary user's cache is, for stores that cannot be written.");

impl Use {
    /// Its files.
    pub(super) fn files(self) -> &'static [PageEntry] {
        match self {
            Self::Store => &[ROOT],
            Self::Layers => &[(
                "ROOT/layers/DIFF_ID/",
                "A layer each: diff/ has its files, equal contents as hard links of one inode, \
                 headers.zst the rest of its tar.",
            )],
            Self::Blobs => &[("ROOT/blobs/sha256/", "Manifests and configs, as they came.")],
            Self::Trees => &[
                ("ROOT/trees/", "Merged trees of images, compiled; made again if removed."),
                CACHE,
            ],
            Self::Uppers => &[("ROOT/uppers/NAME/", "A writable layer each.")],
            Self::Mounts => {
                &[("ROOT/mounts/", "A record and a log for each mount and its daemon."), CACHE]
            }
            Self::Leftovers => {
                &[("ROOT/staging/, ROOT/trash/", "What is being written, and being removed.")]
            }
            Self::Fuse => &[
                ("/dev/fuse", "How the kernel asks the daemon."),
                ("fusermount3", "What mounts for an ordinary user, looked for in PATH."),
            ],
            Self::Credentials => &[
                (
                    "$XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json",
                    "Logins as podman and skopeo keep them. Without XDG_RUNTIME_DIR the first is \
                     /run/containers/UID/auth.json.",
                ),
                (
                    "~/.docker/config.json",
                    "Logins as docker keeps them, and the names of its credential helpers \
                     (docker-credential-NAME in PATH).",
                ),
            ],
            Self::Policies => &[
                (
                    "~/.config/containers/policy.json, /etc/containers/policy.json",
                    "Whose images are accepted: the first that is there. Without either every \
                     image is.",
                ),
                (
                    "~/.config/containers/registries.d/, /etc/containers/registries.d/",
                    "Where signatures of registries' images are: the first that is there.",
                ),
                (
                    "/var/lib/containers/sigstore, ~/.local/share/containers/sigstore",
                    "Signatures where registries.d names no lookaside; the second for ordinary \
                     users.",
                ),
                ("gpgv", "What verifies OpenPGP signatures, looked for in PATH."),
            ],
            Self::Registries => &[
                (
                    "/etc/docker/daemon.json, ~/.config/docker/daemon.json",
                    "registry-mirrors and insecure-registries.",
                ),
                (
                    "~/.config/containers/registries.conf, /etc/containers/registries.conf",
                    "Mirrors, other locations, insecure and blocked registries; the first that is \
                     there.",
                ),
                (
                    "/etc/containers/registries.conf.d/, ~/.config/containers/registries.conf.d/",
                    "The same, read after it: both in this order, or the second alone where the \
                     user has a registries.conf.",
                ),
                (
                    "/etc/stratafs/registries.conf, ~/.config/stratafs/registries.conf",
                    "The same for strata alone; what is said there counts more.",
                ),
            ],
            Self::Scratch | Self::Colour | Self::Completion => &[],
        }
    }

    /// Its variables.
    pub(super) fn variables(self) -> &'static [PageEntry] {
        match self {
            Self::Store | Self::Uppers => &[STRATA_ROOT, DATA],
            Self::Trees | Self::Mounts => &[STRATA_ROOT, DATA, CACHE_HOME],
            Self::Layers | Self::Blobs | Self::Leftovers => &[],
            Self::Fuse => &[("PATH", "Where fusermount3 is looked for.")],
            Self::Credentials => &[
                (
                    "REGISTRY_AUTH_FILE",
                    "The one file with logins, where --authfile does not say it.",
                ),
                ("DOCKER_CONFIG", "The directory of docker's config.json, instead of ~/.docker."),
                (
                    "XDG_RUNTIME_DIR, XDG_CONFIG_HOME, HOME",
                    "Where auth.json and config.json are, as said below; without HOME, \
                     /etc/passwd says where the home directory is.",
                ),
            ],
            Self::Policies => &[
                ("HOME", "Where the user's policy is; if unset, /etc/passwd says it."),
                ("PATH", "Where gpgv is."),
            ],
            Self::Registries => &[
                (
                    "CONTAINERS_REGISTRIES_CONF",
                    "A registries.conf to read instead of those of containers below.",
                ),
                (
                    "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY",
                    "Proxies, and what is reached without them; in small letters too.",
                ),
                ("SSL_CERT_FILE, SSL_CERT_DIR", "Certificates to trust, instead of the system's."),
            ],
            Self::Scratch => &[(
                "TMPDIR",
                "Where an archive from a pipe is kept while it is read, if no store can be \
                 written; /tmp if unset.",
            )],
            Self::Colour => &[("NO_COLOR", "If set and not empty: no colours.")],
            Self::Completion => {
                &[("STRATA_COMPLETE", "Set by the scripts when they ask; to a shell's name.")]
            }
        }
    }
}
