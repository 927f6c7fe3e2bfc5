//! ioctl(2) on files and directories: those for the flags of inodes, and for generations.
//!
//! The kernel asks for flags by messages of its own, with the inode opened for the purpose, and
//! checks who may set them. Other ioctls it hands on as they are; none is known here.
//!
//! Invariant: an answer has the length that was asked for, or it is a refusal.

use std::ffi::c_long;

use rustix::ioctl::{Opcode, opcode};
use strata_tree::{FlagsForm, InodeFlags, NodeId};

use crate::errno::RequestError;

/// `FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS`: a `long` is what the number says, 4 bytes are sent.
const GET_FLAGS: Opcode = opcode::read::<c_long>(b'f', 1);
const SET_FLAGS: Opcode = opcode::write::<c_long>(b'f', 2);
/// `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR`.
const GET_EXTENDED: Opcode = opcode::read::<[u8; FlagsForm::Extended.size()]>(b'X', 31);
const SET_EXTENDED: Opcode = opcode::write::<[u8; FlagsForm::Extended.size()]>(b'X', 32);

/// `FS_IOC_GETVERSION`; file systems answer with 4 bytes of the 8 that the number says.
const GET_VERSION: Opcode = opcode::read::<c_long>(b'v', 1);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ioctl {
    /// The flags, in this form.
    Get(FlagsForm),
    /// To set them.
    Set(InodeFlags),
    /// The generation.
    Version,
}

/// What is asked for; `data` comes with it, and `room` bytes are wanted back.
pub(crate) fn parse(command: u32, data: &[u8], room: u32) -> Result<Ioctl, RequestError> {
    let get = |form: FlagsForm| match usize::try_from(room) == Ok(form.size()) {
        true => Ok(Ioctl::Get(form)),
        false => Err(RequestError::NoIoctl),
    };
    let set = |form: FlagsForm| form.parse(data).map(Ioctl::Set).ok_or(RequestError::NoIoctl);
    match command {
        GET_FLAGS => get(FlagsForm::Plain),
        GET_EXTENDED => get(FlagsForm::Extended),
        SET_FLAGS => set(FlagsForm::Plain),
        SET_EXTENDED => set(FlagsForm::Extended),
        GET_VERSION if room >= 4 => Ok(Ioctl::Version),
        _ => Err(RequestError::NoIoctl),
    }
}

/// What has the flags of inodes.
pub(crate) trait HasFlags {
    fn inode_flags(&self, node: NodeId, form: FlagsForm) -> Result<InodeFlags, RequestError>;
    fn inode_version(&self, node: NodeId) -> Result<u32, RequestError>;
    fn set_inode_flags(&self, node: NodeId, flags: InodeFlags) -> Result<(), RequestError>;
}

/// Does what is asked for; gives the bytes of the answer.
pub(crate) fn run(
    mount: &impl HasFlags,
    node: NodeId,
    asked: Ioctl,
) -> Result<Vec<u8>, RequestError> {
    match asked {
        Ioctl::Get(form) => Ok(mount.inode_flags(node, form)?.to_bytes()),
        Ioctl::Version => Ok(mount.inode_version(node)?.to_ne_bytes().to_vec()),
        Ioctl::Set(flags) => mount.set_inode_flags(node, flags).map(|()| Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_are_not_the_kernels_are_refused() {
        assert_eq!(parse(GET_FLAGS, b"", 4).unwrap(), Ioctl::Get(FlagsForm::Plain));
        assert_eq!(parse(GET_EXTENDED, b"", 28).unwrap(), Ioctl::Get(FlagsForm::Extended));
        let flags = InodeFlags::Plain(0x80);
        assert_eq!(parse(SET_FLAGS, &0x80_u32.to_ne_bytes(), 0).unwrap(), Ioctl::Set(flags));
        assert_eq!(parse(GET_VERSION, b"", 8).unwrap(), Ioctl::Version);
        for (command, data, room) in [
            (GET_FLAGS, 0, 8),
            (GET_EXTENDED, 0, 4),
            (SET_FLAGS, 8, 0),
            (SET_EXTENDED, 4, 0),
            (1, 0, 4),
        ] {
            assert!(parse(command, &vec![0; data], room).is_err(), "{command:x}");
        }
    }
}
