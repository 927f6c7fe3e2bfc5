//! What the random operations start from.
//!
//! Invariant: the layers merge to the lower.

use strata_tree::{Spec, TreePath};

use super::rights::{ACCESS, CAPABILITY, DEFAULT, RAW, acl};

/// The bytes of an ACL whose bits are 0664.
const SEED: u16 = 0o46546;

/// A lower with something of everything.
pub(super) fn lower() -> Spec {
    lower_without_zero().char_device("b/c", 0, 0)
}

/// The same without a device 0:0.
pub(super) fn lower_without_zero() -> Spec {
    let path = |text: &str| TreePath::clamped(text.as_bytes()).unwrap();
    Spec::new()
        .dir("a")
        .perm(0o750)
        .owner(3, 4)
        .mtime(1_000_000, 5)
        .xattr("user.dir", "1")
        .file("a/a", "first")
        .owner(5, 6)
        .mtime(2_000_000, 7)
        .xattr("user.one", "x")
        .file("a/b", vec![b'y'; 5000])
        .link("a/c", &path("a/b"))
        .dir("a/d")
        .file("a/d/a", "deep")
        .perm(0o664)
        .xattr(ACCESS, acl(SEED))
        .dir("a/d/b")
        .xattr(DEFAULT, acl(SEED))
        .file("a/d/b/a", "deeper")
        .xattr(CAPABILITY, RAW)
        .dir("b")
        .link("b/a", &path("a/b"))
        .symlink("b/b", "../a/a")
        .char_device("b/d", 5, 1)
        .fifo("c")
        .file("d", "")
        .file("x", "executable")
        .perm(0o4755)
}

/// Layers that merge to [`lower`]: what the upper ones hide must not come back.
pub(super) fn layers() -> Vec<Spec> {
    let path = |text: &str| TreePath::clamped(text.as_bytes()).unwrap();
    let base = Spec::new()
        .dir("a")
        .perm(0o700)
        .file("a/a", "hidden by another")
        .file("a/hidden", "by a whiteout")
        .dir("a/d")
        .file("a/d/a", "deep")
        .perm(0o664)
        .xattr(ACCESS, acl(SEED))
        .dir("a/d/b")
        .xattr(DEFAULT, acl(SEED))
        .file("a/d/b/a", "deeper")
        .xattr(CAPABILITY, RAW)
        .dir("b")
        .file("b/hidden", "by an opaque directory")
        .dir("x")
        .file("x/hidden", "by a file");
    let top = Spec::new()
        .dir("a")
        .perm(0o750)
        .owner(3, 4)
        .mtime(1_000_000, 5)
        .xattr("user.dir", "1")
        .file("a/a", "first")
        .owner(5, 6)
        .mtime(2_000_000, 7)
        .xattr("user.one", "x")
        .file("a/b", vec![b'y'; 5000])
        .link("a/c", &path("a/b"))
        .whiteout("a/hidden")
        .dir("b")
        .opaque()
        .link("b/a", &path("a/b"))
        .symlink("b/b", "../a/a")
        .char_device("b/d", 5, 1)
        .char_device("b/c", 0, 0)
        .fifo("c")
        .file("d", "")
        .file("x", "executable")
        .perm(0o4755);
    vec![base, top]
}
