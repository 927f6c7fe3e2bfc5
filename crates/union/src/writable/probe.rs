//! Trying what an upper's file system can do.
//!
//! Invariant: what is tried is tried once, in the work directory, and leaves nothing there.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};

use super::can::{Can, WhiteoutForm};
use super::error::{Doing, Error, Result, damaged};
use super::marks::{Mark, Marks};
use super::upper::{Temporary, Upper};

pub(super) fn file(
    dir: BorrowedFd<'_>,
    at: &Temporary,
) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(dir, at.name(), flags, Mode::from_raw_mode(0o600))
}

pub(super) fn device(dir: BorrowedFd<'_>, at: &Temporary) -> rustix::io::Result<()> {
    rustix::fs::mknodat(dir, at.name(), FileType::CharacterDevice, Mode::empty(), 0)
}

/// Tries what the upper's file system can do.
///
/// # Errors
/// `Unusable` if it keeps no marks.
pub(super) fn probe(upper: &Upper, marks: Marks) -> Result<Can> {
    let work = upper.work();
    let names = [upper.temporary(), upper.temporary(), upper.temporary()];
    // A crash may have left some.
    let clear = || names.iter().try_for_each(|name| upper.discard(name));
    clear()?;
    let can = tried(work, marks, &names);
    clear()?;
    can.map_err(|error| Error::Unusable {
        path: upper.path().display().to_string(),
        why: format!(
            "its file system does not keep {}* attributes ({}), and without these nothing says \
             that a directory is opaque or where a file is from; put it on one that keeps them \
             (ext4, xfs, btrfs, tmpfs), in a container on a volume",
            marks.prefix(),
            match error {
                Error::Upper { what, errno } => format!("cannot {what}: {errno}"),
                Error::Attribute { name, errno, .. } => format!("cannot set {name}: {errno}"),
                error => error.to_string(),
            }
        ),
    })
}

fn tried(work: BorrowedFd<'_>, marks: Marks, names: &[Temporary; 3]) -> Result<Can> {
    let [one, two, three] = names;
    let rename =
        |flags| rustix::fs::renameat_with(work, one.name(), work, two.name(), flags).is_ok();
    let gone = |at: &Temporary| {
        rustix::fs::unlinkat(work, at.name(), AtFlags::empty()).doing(|| "remove a file".to_owned())
    };
    let make = |at: &Temporary| file(work, at).doing(|| "make a file".to_owned());
    let made = make(one)?;
    marks.set(&made, Mark::Whiteout, b"y")?;
    if marks.get(&made, Mark::Whiteout)?.is_none() {
        // An overlay in user space keeps it, but for itself.
        return Err(damaged("read back a mark that was set"));
    }
    // An overlay in user space makes it, and takes it for its own whiteout.
    let kept = device(work, three).is_ok()
        && rustix::fs::statat(work, three.name(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice);
    let form = if kept { WhiteoutForm::Device } else { WhiteoutForm::Attribute };
    let link = rustix::fs::linkat(work, one.name(), work, two.name(), AtFlags::empty()).is_ok();
    if link {
        // Two names of one inode are moved by doing nothing.
        gone(two)?;
    }
    make(two)?;
    let exchange = rename(RenameFlags::EXCHANGE);
    gone(two)?;
    let no_replace = rename(RenameFlags::NOREPLACE);
    if no_replace {
        make(one)?;
    }
    let leave_whiteout = form == WhiteoutForm::Device && rename(RenameFlags::WHITEOUT);
    Ok(Can { form, exchange, no_replace, leave_whiteout, link })
}
