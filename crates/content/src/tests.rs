//! Every kind of contents below every kind of tree of the crates beneath, against the suite; and
//! that contents which fail do so with an error.

use std::sync::Arc;

use rustix::io::Errno;
use strata_testkit::needs;
use strata_tree::conformance::{layer_specs, merged_specs};
use strata_tree::dialect::XattrClass;
use strata_tree::{
    DirOptions, Error, FlatTree, Lower, MemTree, Name, NodeId, Numbers, OverlayDir, Spec, compile,
    lay_overlay,
};

use crate::conformance::{check, in_memory, lay_out};
use crate::{Contents, FailingAfter, FileTree, Files, Joined, LayerDir, Memory};

/// More calls than any suite makes.
const ENOUGH: u64 = u64::MAX;

#[test]
fn bytes_in_memory_conform() {
    for (name, spec) in merged_specs().into_iter().chain(layer_specs()) {
        let tree = in_memory(&spec).unwrap();
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
}

/// A suite that passes everything proves nothing.
#[test]
fn a_wrong_byte_is_found() {
    let spec = |text: &str| Spec::new().dir("d").file("d/f", text).file("other", "x");
    let (good, wrong) = (spec("content"), spec("CONTENT"));
    let names = in_memory(&good).unwrap();
    let bytes = Arc::new(Memory::of(std::slice::from_ref(&wrong)).unwrap());
    let mixed = FileTree::new(Arc::clone(names.names()), bytes);
    let difference = check(&good, &mixed).unwrap_err();
    assert!(difference.contains("/d/f"), "{difference}");
    check(&wrong, &mixed).unwrap();
    // One byte less, and none at all.
    for less in [spec("conten"), Spec::new().dir("d").file("other", "x")] {
        let bytes = Arc::new(Memory::of(&[less]).unwrap());
        assert!(check(&good, &FileTree::new(Arc::clone(names.names()), bytes)).is_err());
    }
}

#[test]
fn files_below_a_compiled_tree_conform() {
    for (name, spec) in merged_specs() {
        let source = in_memory(&spec).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = lay_out(&source, dir.path()).unwrap();
        let file = tempfile::tempfile().unwrap();
        compile(&*source, &file).unwrap();
        let flat = FlatTree::open(file, "test".to_owned()).unwrap();
        let tree = FileTree::new(Arc::new(flat), Arc::new(files));
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
}

#[test]
fn files_of_a_plain_directory_conform() {
    if !needs::root() {
        return;
    }
    for (name, spec) in merged_specs() {
        let dir = tempfile::tempdir().unwrap();
        lay_overlay(&spec, dir.path(), XattrClass::Trusted, false).unwrap();
        let numbers = Arc::new(Numbers::new());
        let names = OverlayDir::open(dir.path(), DirOptions::default(), numbers).unwrap();
        let layer = LayerDir::new(names.directory(), names.label());
        let files = Files::new(vec![layer.quiet()]);
        let tree = FileTree::new(Arc::new(names), Arc::new(files));
        check(&spec, &tree).unwrap_or_else(|difference| panic!("{name}: {difference}"));
    }
}

#[test]
fn joined_contents_and_those_that_do_not_fail_yet_conform() {
    for (name, spec) in merged_specs() {
        let source = in_memory(&spec).unwrap();
        let empty: Arc<dyn Contents> = Arc::new(Memory::default());
        let own = Arc::clone(source.contents());
        let joined = Joined::new(vec![(0, empty), (1, own)]);
        let tree = FileTree::new(Arc::clone(source.names()), Arc::new(joined));
        check(&spec, &tree).unwrap_or_else(|difference| panic!("joined, {name}: {difference}"));
        let failing = FailingAfter::new(Arc::clone(source.contents()), ENOUGH);
        let tree = FileTree::new(Arc::clone(source.names()), Arc::new(failing));
        check(&spec, &tree).unwrap_or_else(|difference| panic!("failing, {name}: {difference}"));
    }
}

#[test]
fn the_layers_of_joined_contents_follow_each_other() {
    let spec = |text: &str| Spec::new().file("f", text);
    let pair = |a: &str, b: &str| -> Arc<dyn Contents> {
        Arc::new(Memory::of(&[spec(a), spec(b)]).unwrap())
    };
    let joined = Joined::new(vec![(2, pair("0", "1")), (2, pair("2", "3"))]);
    let tree = MemTree::new(&spec("x")).unwrap();
    let f = tree.lookup(NodeId::ROOT, Name::new(b"f").unwrap()).unwrap().unwrap();
    let mut which = tree.content(f.node().unwrap().id).unwrap();
    for layer in 0..4 {
        which.layer = layer;
        let mut byte = [0];
        assert_eq!(joined.open(&which).unwrap().read_at(&mut byte, 0).unwrap(), 1);
        assert_eq!(u32::from(byte[0] - b'0'), layer);
    }
    which.layer = 4;
    let error = joined.open(&which).unwrap_err().to_string();
    assert!(error.contains("layer 4 of 4"), "{error}");
}

#[test]
fn a_source_that_breaks_is_an_error_at_each_call() {
    let spec = Spec::new().file("f", vec![7; 100_000]);
    let source = in_memory(&spec).unwrap();
    let f = source.lookup(NodeId::ROOT, Name::new(b"f").unwrap()).unwrap().unwrap();
    let id = f.node().unwrap().id;
    let mut whole = None;
    for calls in 0..64 {
        let failing = FailingAfter::new(Arc::clone(source.contents()), calls);
        let tree = FileTree::new(Arc::clone(source.names()), Arc::new(failing));
        match tree.read(id) {
            Ok(bytes) => {
                assert_eq!(bytes.len(), 100_000);
                whole.get_or_insert(calls);
            }
            Err(Error::Io { source, what }) => {
                assert_eq!(source.raw_os_error(), Some(5), "{what}");
                assert!(what.contains("/f") && whole.is_none(), "{what} after {calls} calls");
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(whole.is_some_and(|calls| calls >= 2), "{whole:?}");
}

#[test]
fn files_that_are_gone_or_something_else_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("d")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    let open = std::fs::File::open(dir.path()).unwrap();
    let files = Files::new(vec![LayerDir::new(std::os::fd::OwnedFd::from(open), "layer A")]);
    let tree = MemTree::new(&Spec::new().file("f", "x")).unwrap();
    let f = tree.lookup(NodeId::ROOT, Name::new(b"f").unwrap()).unwrap().unwrap();
    let mut which = tree.content(f.node().unwrap().id).unwrap();
    for (path, errno) in [
        ("absent", Errno::NOENT),
        ("d", Errno::ISDIR),
        ("link", Errno::LOOP),
        ("d/../../etc/passwd", Errno::NOENT),
    ] {
        which.path = strata_tree::TreePath::clamped(path.as_bytes()).unwrap();
        match files.open(&which).unwrap_err() {
            Error::Io { what, source } => {
                assert_eq!(Errno::from_io_error(&source), Some(errno), "{path}");
                assert!(what.ends_with("in layer A"), "{what}");
            }
            other => panic!("{path}: {other}"),
        }
    }
}

/// What lacks its end must not be taken for the whole; a user's own file may become shorter.
#[test]
fn a_stored_file_that_is_shorter_than_its_tree_says_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let tree = MemTree::new(&Spec::new().file("f", "0123456789")).unwrap();
    let f = tree.lookup(NodeId::ROOT, Name::new(b"f").unwrap()).unwrap().unwrap();
    let mut which = tree.content(f.node().unwrap().id).unwrap();
    which.path = strata_tree::TreePath::clamped(b"f").unwrap();
    let file = std::fs::File::create(dir.path().join("f")).unwrap();
    let layer = || {
        let open = std::fs::File::open(dir.path()).unwrap();
        LayerDir::new(std::os::fd::OwnedFd::from(open), "layer A")
    };
    let (stored, own) = (Files::new(vec![layer()]), Files::new(vec![layer().quiet()]));
    file.set_len(10).unwrap();
    let open = [&stored, &own].map(|files| files.open(&which).unwrap());
    file.set_len(4).unwrap();
    let mut buffer = [0; 8];
    let error = open[0].read_at(&mut buffer, 0).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    assert_eq!(open[1].read_at(&mut buffer, 0).unwrap(), 4);
    match stored.open(&which).unwrap_err() {
        Error::Io { what, source } => {
            assert_eq!(Errno::from_io_error(&source), Some(Errno::IO));
            assert!(what.contains("f in layer A, which has 4 of its 10 bytes"), "{what}");
        }
        other => panic!("{other}"),
    }
    assert_eq!(own.open(&which).unwrap().read_at(&mut buffer, 0).unwrap(), 4);
}
