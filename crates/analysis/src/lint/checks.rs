//! What `strata lint` looks for: each check with what it costs and what programs do.
//!
//! Invariants: an id is stable, for allow lists name it; what a program does was seen with
//! `strata-conform`, in the versions of docs/CONFORMANCE.md.

/// What an entry can cost its user; the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LintClass {
    /// Programs show another tree than a scanner sees, or write elsewhere.
    Security,
    /// Files that are missing, not hidden, or have other bytes somewhere.
    DataLoss,
    /// Owners, times or attributes that are lost somewhere.
    Metadata,
    /// What an ordinary user cannot unpack as it is.
    Privilege,
    /// Bytes that a later layer hides.
    Space,
}

impl LintClass {
    /// All, the gravest first.
    pub const ALL: [Self; 5] =
        [Self::Security, Self::DataLoss, Self::Metadata, Self::Privilege, Self::Space];

    /// As reports and `--fail-on` write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::DataLoss => "data-loss",
            Self::Metadata => "metadata",
            Self::Privilege => "privilege",
            Self::Space => "space",
        }
    }
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Stable, in kebab case.
    pub id: &'static str,
    /// What it costs.
    pub class: LintClass,
    /// What the entry is.
    pub what: &'static str,
    /// Who does what with it.
    pub who: &'static str,
}

macro_rules! checks {
    ($($(#[$doc:meta])*
        $name:ident = $id:literal, $class:ident, $what:literal, $who:literal;)*) => {
        $($(#[$doc])* pub(super) const $name: Check =
            Check { id: $id, class: LintClass::$class, what: $what, who: $who };)*

        /// All checks, by class.
        pub const CHECKS: &[Check] = &[$($name),*];
    };
}

checks! {
    /// A path that leads out.
    PATH_ESCAPES = "path-escapes", Security, "the path leads out of the root",
        "strata refuses the layer; others refuse it or put the file inside of the root";
    /// A parent that is a link.
    BELOW_SYMLINK = "below-symlink", Security, "a parent of it is a symbolic link",
        "some programs follow the link, some put a directory in its place, some refuse the layer";
    /// A whiteout behind a link.
    WHITEOUT_BELOW_SYMLINK = "whiteout-below-symlink", Security, "a whiteout below a symbolic link",
        "podman, buildah and containerd with overlayfs show a name that cannot be opened";
    /// A hard link out of the root.
    LINK_ESCAPES = "link-escapes", Security, "a hard link to a path out of the root",
        "strata refuses the layer; others refuse it or link inside of the root";
    /// What strata does not read.
    REFUSED = "refused", DataLoss, "strata cannot read the layer from here on",
        "tar readers disagree on such bytes, or refuse them as well";
    /// A whiteout and its name.
    WHITEOUT_BESIDE_NAME = "whiteout-beside-name", DataLoss,
        "one layer has a name and a whiteout of it",
        "podman, buildah and containerd with overlayfs refuse the layer; containerd's native \
         snapshotter removes the new file";
    /// A whiteout below a file, or nowhere.
    WHITEOUT_NOWHERE = "whiteout-nowhere", DataLoss, "a whiteout where no directory is",
        "podman, buildah and containerd with overlayfs show a name that cannot be opened";
    /// An opaque mark that comes late.
    OPAQUE_AFTER_ENTRIES = "opaque-after-entries", DataLoss,
        "an opaque whiteout after entries of its directory",
        "containerd's native snapshotter removes the entries of this layer too";
    /// An opaque root.
    OPAQUE_ROOT = "opaque-root", DataLoss, "an opaque whiteout in the root",
        "podman, buildah and containerd with overlayfs show what is below it";
    /// An opaque mark and whiteouts.
    OPAQUE_AND_WHITEOUT = "opaque-and-whiteout", DataLoss,
        "a directory has an opaque whiteout and others",
        "containerd with overlayfs loses entries of the directory";
    /// A whiteout that is something else.
    WHITEOUT_NOT_A_FILE = "whiteout-not-a-file", DataLoss,
        "the name of a whiteout, and not an empty file",
        "umoci, podman, buildah and containerd show a directory of that name; containerd's native \
         snapshotter loses files where it has content";
    /// Names of aufs.
    WHITEOUT_OF_AUFS = "whiteout-of-aufs", DataLoss, "a name that aufs keeps for itself",
        "umoci, podman, buildah and containerd show it";
    /// A device that looks like a mark.
    DEVICE_LIKE_WHITEOUT = "device-like-whiteout", DataLoss, "a character device 0:0",
        "podman, buildah and containerd with overlayfs take it for a whiteout";
    /// An attribute that looks like a mark.
    MARK_OF_OVERLAYFS = "mark-of-overlayfs", DataLoss, "an attribute that overlayfs reads",
        "podman and buildah take it for a mark of their own: files below may be hidden";
    /// A name twice.
    NAME_TWICE = "name-twice", DataLoss, "one layer has the name twice",
        "most programs keep the last one, some refuse the layer";
    /// A name below a file.
    BELOW_FILE = "below-file", DataLoss, "a parent of it is a file",
        "umoci and containerd's native snapshotter refuse the layer, and the others where the file \
         is of the same layer; else they put a directory in its place";
    /// A link to another layer.
    LINK_ACROSS_LAYERS = "link-across-layers", DataLoss, "a hard link to a file of a layer below",
        "containerd's native snapshotter loses both names";
    /// A link to nothing.
    LINK_TO_NOTHING = "link-to-nothing", DataLoss, "a hard link to a name that is not there",
        "podman, buildah and containerd with overlayfs leave it out; others refuse the layer";
    /// A link to a directory.
    LINK_TO_DIRECTORY = "link-to-directory", DataLoss, "a hard link to a directory",
        "programs refuse the layer";
    /// A name that is too long.
    TOO_LONG = "too-long", DataLoss, "a name of more than 255, or a path of more than 4,095 bytes",
        "no file system of Linux keeps it";
    /// What compresses a layer.
    COMPRESSION = "compression", Metadata, "a form of compression that not every program reads",
        "umoci 0.4.7 and docker 20.10 refuse zstd; podman 4.3 and buildah 1.28 refuse skippable \
         frames of it, as zstd:chunked writes them; xz and bzip2 are in no specification";
    /// What a media type claims.
    MEDIA_TYPE = "media-type", Metadata, "the media type and the bytes disagree on the compression",
        "umoci and containerd refuse the layer where they believe the media type";
    /// A media type of docker.
    MEDIA_TYPE_OF_DOCKER = "media-type-of-docker", Metadata, "a media type of docker's",
        "umoci 0.4.7 refuses it; buildah 1.28 where the manifest is OCI's";
    /// A directory twice.
    DIRECTORY_TWICE = "directory-twice", Metadata, "one layer has the directory twice",
        "podman, buildah, skopeo and docker refuse the layer";
    /// A second name with attributes of its own.
    LINK_ATTRIBUTES = "link-attributes", Metadata,
        "a hard link has another mode, owner or time than its target",
        "umoci keeps the target's, the others those of the link";
    /// An attribute without a value.
    EMPTY_ATTRIBUTE = "empty-attribute", Metadata, "an attribute has an empty value",
        "umoci, podman, buildah, skopeo and docker leave it out";
    /// A root that is not described.
    ROOT_NOT_DESCRIBED = "root-not-described", Metadata, "no layer has an entry for the root",
        "podman, buildah and skopeo give it mode 0555, the others 0755";
    /// A name in two cases.
    CASE_TWINS = "case-twins", Metadata, "two names differ in their case alone",
        "file systems that fold case keep one of them";
    /// A directory that is not described again.
    DIRECTORY_NOT_DESCRIBED = "directory-not-described", Metadata,
        "the layer changes a directory of a layer below, and has no entry for it",
        "podman, buildah, skopeo and docker give it mode 0755, root as its owner and no attributes";
    /// Attributes that the entry above lacks.
    ATTRIBUTE_DROPPED = "attribute-dropped", Metadata,
        "a directory's entry lacks an attribute that a layer below has set",
        "containerd's native snapshotter keeps the attribute";
    /// Two names of what is no file.
    LINK_TO_SPECIAL = "link-to-special", Metadata,
        "a hard link to a symbolic link, a FIFO or a device",
        "containerd's native snapshotter makes two nodes of it";
    /// Times of directories.
    DIRECTORY_TIMES = "directory-times", Metadata,
        "directories that are not empty have times of their own",
        "containerd's native snapshotter gives them the time at which it copies the layer";
    /// A root that is described.
    ROOT_DESCRIBED = "root-described", Metadata, "an entry for the root with attributes of its own",
        "podman, buildah, docker and containerd ignore it";
    /// A global header.
    GLOBAL_HEADER = "global-header", Metadata, "a global extended header",
        "umoci 0.4.7 refuses the layer; podman, buildah, docker and containerd leave a directory \
         PaxHeaders and ignore its records";
    /// A time before 1970.
    TIME_BEFORE_1970 = "time-before-1970", Metadata, "the time is before 1970",
        "podman, buildah and containerd set it to 1970";
    /// A time that ext4 lacks.
    TIME_AFTER_2446 = "time-after-2446", Metadata, "the time is after 2446", "ext4 cannot keep it";
    /// An owner that a user namespace lacks.
    OWNER_BEYOND_65535 = "owner-beyond-65535", Privilege, "an owner beyond 65535",
        "rootless podman and docker map 65,536 ids: they refuse the layer";
    /// A device.
    DEVICE = "device", Privilege, "a device", "rootless programs leave it out or refuse the layer";
    /// Set-user-id.
    SETUID = "setuid", Privilege, "a set-user-id or set-group-id program",
        "it gives its owner's rights to whoever runs it; mounts with nosuid ignore it";
    /// Capabilities.
    CAPABILITY = "capability", Privilege, "a program with file capabilities",
        "an ordinary user cannot set them: the program then lacks them";
    /// Attributes of root.
    PRIVILEGED_ATTRIBUTE = "privileged-attribute", Privilege, "an attribute that only root can set",
        "rootless programs leave it out";
    /// Bytes that are hidden.
    HIDDEN_LATER = "hidden-later", Space, "a later layer removes or replaces it",
        "every pull still fetches its bytes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_checks_are_by_class() {
        for (at, check) in CHECKS.iter().enumerate() {
            assert!(CHECKS[..at].iter().all(|other| other.id != check.id), "{}", check.id);
            assert!(CHECKS[..at].iter().all(|other| other.class <= check.class), "{}", check.id);
        }
    }
}
