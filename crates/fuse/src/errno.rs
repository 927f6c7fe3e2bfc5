//! The errno that the kernel gets when a request is refused.
//!
//! Invariants: every refusal has exactly one number, decided here; a fault of the store (a
//! missing or unreadable content file) is always EIO, never mistaken for a fact of the image.

use fuser::Errno;
use rustix::io::Errno as Os;
use strata_tree::{Error as TreeError, Kind};
use strata_union::writable::Error as UnionError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The tree did not answer.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The writable union refused.
    #[error(transparent)]
    Union(#[from] UnionError),
    /// A name of more than 255 bytes.
    #[error("the name is too long")]
    NameTooLong,
    /// Bytes that no name in an image can be.
    #[error("there is no such name")]
    NoEntry,
    /// The node has no extended attribute of this name.
    #[error("there is no such attribute")]
    NoXattr,
    /// The caller's buffer is too small.
    #[error("the buffer is too small")]
    Range,
    /// A content file is shorter than its tree says.
    #[error("the content of node {node} ends at byte {at}; the tree says it is longer")]
    Short {
        /// The node.
        node: u64,
        /// The content's true length, in bytes.
        at: u64,
    },
    /// A combination of flags that means nothing.
    #[error("the flags contradict each other")]
    Flags,
    /// Looking for data before the beginning.
    #[error("there is nothing at this offset")]
    BeyondEnd,
    /// A handle that was never given out.
    #[error("there is no open file with this handle")]
    NoHandle,
    /// An attribute of a kind that is turned off.
    #[error("attributes of this kind are turned off")]
    NotSupported,
    /// A caller whose number has none on disk (user_namespaces(7), "Unmapped user and group IDs").
    #[error("the caller has no number on disk")]
    UnmappedCaller,
    /// An owner to be set that has no number on disk.
    #[error("the owner has no number on disk")]
    UnmappedOwner,
    /// An ioctl(2) that is not known, or that what it is asked of does not have.
    #[error("there is no such ioctl")]
    NoIoctl,
    /// Anything that would change the tree.
    #[error("the tree is read-only")]
    ReadOnly,
}

/// The number for a refusal; those that no ordinary request causes are logged.
pub(crate) fn errno(refusal: &RequestError) -> Errno {
    match refusal {
        RequestError::Tree(error) => tree_errno(error),
        RequestError::Union(error) => union_errno(error),
        RequestError::Flags | RequestError::UnmappedOwner => Errno::EINVAL,
        RequestError::BeyondEnd => Errno::ENXIO,
        RequestError::NoHandle => Errno::EBADF,
        RequestError::NoIoctl => Errno::ENOTTY,
        RequestError::NotSupported => Errno::EOPNOTSUPP,
        RequestError::UnmappedCaller => Errno::EOVERFLOW,
        RequestError::NameTooLong => Errno::ENAMETOOLONG,
        RequestError::NoEntry => Errno::ENOENT,
        RequestError::NoXattr => Errno::ENODATA,
        RequestError::Range => Errno::ERANGE,
        RequestError::ReadOnly => Errno::EROFS,
        RequestError::Short { .. } => {
            tracing::error!("{refusal}");
            Errno::EIO
        }
    }
}

fn union_errno(error: &UnionError) -> Errno {
    match error {
        UnionError::Refused(os) => Errno::from_i32(os.raw_os_error()),
        UnionError::Upper { errno, .. } => {
            // A full disk concerns the caller alone; any other failure of the upper is logged.
            if !matches!(*errno, Os::NOSPC | Os::DQUOT | Os::FBIG) {
                tracing::error!("{error}");
            }
            Errno::from_i32(errno.raw_os_error())
        }
        UnionError::Attribute { errno, .. } => {
            // The errno does not tell the caller which attribute it is.
            tracing::error!("{error}");
            Errno::from_i32(errno.raw_os_error())
        }
        UnionError::Lower(error) => tree_errno(error),
        UnionError::InUse { .. } => Errno::EBUSY,
        UnionError::Unusable { .. } => {
            tracing::error!("{error}");
            Errno::EIO
        }
    }
}

fn tree_errno(error: &TreeError) -> Errno {
    match error {
        TreeError::NoNode(_) => Errno::ESTALE,
        TreeError::NotDirectory(_) => Errno::ENOTDIR,
        TreeError::NotRegular { kind: Kind::Directory, .. } => Errno::EISDIR,
        TreeError::NotRegular { .. } | TreeError::NotSymlink(_) => Errno::EINVAL,
        TreeError::TooManyLinks { .. } => Errno::ELOOP,
        TreeError::TooLarge { .. } => Errno::EOVERFLOW,
        TreeError::Corrupt { .. }
        | TreeError::DanglingLink { .. }
        | TreeError::Unanswered { .. } => {
            tracing::error!("{error}");
            Errno::EIO
        }
        TreeError::Io { source, .. } => {
            tracing::error!("{error}");
            match Os::from_io_error(source) {
                Some(os @ (Os::MFILE | Os::NFILE | Os::NOMEM | Os::INTR)) => {
                    Errno::from_i32(os.raw_os_error())
                }
                _ => Errno::EIO,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_tree::NodeId;

    #[test]
    fn a_fault_of_the_store_is_never_a_fact_of_the_image() {
        let missing = std::io::Error::from_raw_os_error(Os::NOENT.raw_os_error());
        assert_eq!(errno(&TreeError::io("open", missing).into()).code(), Errno::EIO.code());
        let files = std::io::Error::from_raw_os_error(Os::MFILE.raw_os_error());
        assert_eq!(errno(&TreeError::io("open", files).into()).code(), Errno::EMFILE.code());
    }

    #[test]
    fn directories_are_told_from_other_files_without_content() {
        let refusal = |kind| RequestError::from(TreeError::NotRegular { node: NodeId(5), kind });
        assert_eq!(errno(&refusal(Kind::Directory)).code(), Errno::EISDIR.code());
        assert_eq!(errno(&refusal(Kind::Fifo)).code(), Errno::EINVAL.code());
    }
}
