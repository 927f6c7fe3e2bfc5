//! `cp`, `unpack` and `export`: where things land, and what is never overwritten.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;

use strata_tree::Item;

use super::*;
use crate::look::subtree::Subtree;

fn copy(words: &[&str]) -> Result<Seen> {
    seen(To::Pipe, |screen| cp(&image(), &parse(words), screen))
}

/// Copies `source` to `dest` below a directory that holds `dir/`, `dir/ping` (a file),
/// `dir/bin/` with a file of its own, `file`, and `pipe`; gives what is there now.
fn landed(source: &str, dest: &str) -> Result<Vec<String>> {
    let base = tempfile::tempdir().unwrap();
    let at = |path: &str| base.path().join(path);
    fs::create_dir_all(at("dir/bin")).unwrap();
    for file in ["dir/ping", "dir/bin/own", "file"] {
        fs::write(at(file), "old").unwrap();
    }
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), fifo, 0o600.into(), 0).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("file", at("link")).unwrap();
    let before = tree_of(base.path());
    let dest = format!("{}/{dest}", base.path().display());
    let result = copy(&[source, &dest]);
    let after = tree_of(base.path());
    if let Err(error) = result {
        assert_eq!(before, after, "a refused copy changed something: {error}");
        let text = format!("{error:#}").replace(&format!("{}/", base.path().display()), "");
        return Err(anyhow!(text));
    }
    Ok(after.into_iter().filter(|line| !before.contains(line)).collect())
}

/// Each path with its type and, for files, the content.
fn tree_of(base: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut todo = vec![base.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(base).unwrap().display().to_string();
        if meta.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            all.push(format!("{name}/"));
        } else if meta.is_file() {
            all.push(format!("{name}={}", fs::read_to_string(&path).unwrap().trim_end()));
        } else if meta.is_symlink() {
            all.push(format!("{name}->{}", fs::read_link(&path).unwrap().display()));
        } else {
            assert!(meta.file_type().is_fifo() || meta.file_type().is_char_device());
            all.push(format!("{name}|"));
        }
    }
    all.sort();
    all
}

#[test]
fn copies_land_where_docker_cp_puts_them() {
    for (source, dest, new) in [
        // A file: a new name, an existing file, an existing directory.
        ("i:/bin/ping", "new", &["new=ping"][..]),
        ("i:/bin/ping", "file", &["file=ping"]),
        ("i:/bin/ping", "link", &["link=ping"]),
        ("i:/bin/ping", "dir", &["dir/ping=ping"]),
        ("i:/bin/ping", "dir/", &["dir/ping=ping"]),
        ("i:/bin/ping4", "dir/.", &["dir/ping4=ping"]),
        // A directory: a new name, an existing directory, its contents.
        ("i:/usr/bin", "new", &["new/", "new/ping4=ping", "new/ping=ping"]),
        ("i:/usr/bin/.", "new", &["new/", "new/ping4=ping", "new/ping=ping"]),
        ("i:/usr/bin", "dir", &["dir/bin/ping4=ping", "dir/bin/ping=ping"]),
        ("i:/usr/bin/", "dir", &["dir/bin/ping4=ping", "dir/bin/ping=ping"]),
        ("i:/usr/bin/.", "dir", &["dir/ping4=ping", "dir/ping=ping"]),
        // A link: itself, or what it leads to.
        ("i:/bin", "new", &["new->usr/bin"]),
        ("i:/bin/", "new", &["new/", "new/ping4=ping", "new/ping=ping"]),
    ] {
        assert_eq!(landed(source, dest).unwrap(), new, "{source} to {dest}");
    }
    let base = tempfile::tempdir().unwrap();
    copy(&["-L", "i:/bin", &format!("{}/new", base.path().display())]).unwrap();
    assert!(base.path().join("new/ping").is_file());
}

#[test]
fn nothing_is_replaced_that_must_stay() {
    for (source, dest, message) in [
        ("i:/usr/bin", "file", "file is not a directory, the source is one"),
        ("i:/bin", "dir", "dir/bin is a directory, the source is not"),
        (
            "i:/bin/ping",
            "pipe",
            "pipe is not a regular file; `strata cat` writes contents to devices and pipes",
        ),
        (
            "i:/bin/ping",
            "new/",
            "new/ is not an existing directory; make it first or leave out the slash",
        ),
        (
            "i:/bin/ping",
            "file/",
            "file/ is not an existing directory; make it first or leave out the slash",
        ),
        (
            "i:/bin/ping/",
            "new",
            "i:/bin/ping/: a part of the path before the last is not a directory",
        ),
    ] {
        let error = landed(source, dest).expect_err(source).to_string();
        assert_eq!(error, message, "{source} to {dest}");
    }
    let error = landed("i:/bin/ping", "no/such").unwrap_err().to_string();
    assert!(error.starts_with("cannot open the directory no: No such file"), "{error}");
    let error = landed("i:/bin/ping", "dangling").unwrap_err().to_string();
    assert!(error.contains("dangling: File exists"), "{error}");
}

#[test]
fn copies_are_in_archive_mode() {
    let base = tempfile::tempdir().unwrap();
    let new = base.path().join("new");
    let seen = copy(&["i:/usr/bin", new.to_str().unwrap()]).unwrap();
    let [ping, ping4] = ["ping", "ping4"].map(|name| fs::metadata(new.join(name)).unwrap());
    assert_eq!((ping.ino(), ping.nlink()), (ping4.ino(), 2));
    assert_eq!((ping.mtime(), ping.mtime_nsec()), (1_709_208_000, 123_456_789));
    assert_eq!(fs::metadata(&new).unwrap().mtime(), 1_700_000_000);
    let err = String::from_utf8(seen.err).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!((ping.uid(), ping.gid()), (0, 1000));
        // The ACL says less than the mode; the mode is what is asked for last.
        assert_eq!(ping.permissions().mode() & 0o7777, 0o755);
        assert_eq!(err, "");
    } else {
        let first = format!("warning: {} is not exactly what the image holds", new.display());
        assert!(err.starts_with(&first) && err.contains("owner"), "{err}");
    }
}

#[test]
fn a_part_of_a_tree_is_a_tree() {
    let tree = image();
    let bin = find(&*tree, &RefPath::parse("i:/usr/bin".as_ref()).unwrap(), Follow::All).unwrap();
    let named = Subtree::named(tree.names(), bin.id, strata_tree::Name::new(b"bin").unwrap());
    let paths = |tree: &dyn Lower| {
        let seen = seen(To::Pipe, |screen| ls(tree, &parse(&["-R", "i"]), screen)).unwrap();
        String::from_utf8(seen.out).unwrap()
    };
    assert_eq!(paths(&named), "/:\nbin\n\n/bin:\nping\nping4\n");
    assert_eq!(paths(&Subtree::contents(tree.names(), bin.id)), "/:\nping\nping4\n");
    let root = named.node(named.root()).unwrap();
    assert_eq!((root.stat.nlink, root.stat.perm), (3, 0o755));
    assert!(named.content(root.id).is_err() && named.read_link(root.id).is_err());
}

#[test]
fn every_part_of_a_tree_conforms() {
    for (name, spec) in strata_tree::conformance::merged_specs() {
        let whole = in_memory(&spec).unwrap();
        let part = whole.with_names(Arc::new(Subtree::contents(whole.names(), whole.root())));
        check_part(&spec, &part).unwrap_or_else(|difference| panic!("{name}: {difference}"));
        // The whole as one directory of a root that is made up.
        let dir = strata_tree::Name::new(b"whole").unwrap();
        let names = Subtree::named(whole.names(), whole.root(), dir);
        let named = whole.with_names(Arc::new(names));
        check_part(&below(&spec), &named).unwrap_or_else(|why| panic!("{name}: {why}"));
    }
}

/// The same tree below a directory `whole` of a bare root.
fn below(spec: &Spec) -> Spec {
    spec.items().fold(Spec::new(), |to, (path, item)| {
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let prefix = |path: &[u8]| [b"whole", slash, path].concat();
        match item {
            Item::Link(target) => {
                let target = TreePath::clamped(&prefix(target.as_bytes())).unwrap();
                to.link(prefix(path), &target)
            }
            Item::Inode(inode) => to.item(prefix(path), Item::Inode(inode.clone())),
            Item::Whiteout | Item::LowerLink(_) => panic!("no merged tree has one"),
        }
    })
}

/// The names of a tar's members.
fn members(tar: &[u8]) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), 0);
    while tar[at] != 0 {
        let text = |from: usize, length: usize| {
            let field = &tar[at + from..at + from + length];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(length);
            String::from_utf8_lossy(&field[..end]).into_owned()
        };
        // PAX headers only add to the member after them.
        if tar[at + 156] != b'x' {
            names.push(text(0, 100));
        }
        let size = usize::from_str_radix(text(124, 12).trim(), 8).unwrap();
        at += 512 + size.next_multiple_of(512);
    }
    names
}

#[test]
fn tars_go_to_files_and_pipes_only() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("rootfs.tar");
    let run = |to, words: &[&str]| seen(to, |screen| export(&image(), &parse(words), screen));
    let piped = run(To::Pipe, &["i", "-o", "-"]).unwrap().out;
    assert!(!piped.is_empty());
    let error = run(To::Terminal, &["i", "-o", "-"]).err().unwrap().to_string();
    assert_eq!(error, "a tar is not for a terminal; send it to a file or a pipe");
    assert_eq!(members(&piped)[..3], ["./", "bin", "dangling"]);
    // The directory that it is unpacked in stays as it is; with /. it becomes the copy.
    assert_eq!(
        members(&copy(&["i:/usr", "-"]).unwrap().out),
        ["usr/", "usr/bin/", "usr/bin/ping", "usr/bin/ping4"]
    );
    assert_eq!(members(&copy(&["i:/bin/ping4", "-"]).unwrap().out), ["ping4"]);
    assert_eq!(members(&copy(&["i:/bin/.", "-"]).unwrap().out), ["./", "ping", "ping4"]);

    fs::write(&file, "old").unwrap();
    run(To::Terminal, &["i", "-o", file.to_str().unwrap()]).unwrap();
    assert!(fs::read(&file).unwrap() == piped);
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1, "nothing is left beside it");
    run(To::Terminal, &["i", "-o", "/dev/null"]).unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    let error = run(To::Pipe, &["i", "-o", base.path().to_str().unwrap()]).err().unwrap();
    assert!(error.to_string().ends_with("is a directory; name the file to write"), "{error}");
    let nowhere = base.path().join("no/such.tar");
    let error = run(To::Pipe, &["i", "-o", nowhere.to_str().unwrap()]).err().unwrap();
    assert!(format!("{error:#}").starts_with("cannot export i to "), "{error:#}");
}

#[test]
fn a_tar_goes_to_what_a_link_leads_to() {
    let base = tempfile::tempdir().unwrap();
    let at = |name: &str| base.path().join(name);
    let run = |to: &Path| {
        seen(To::Pipe, |screen| {
            export(&image(), &parse(&["i", "-o", to.to_str().unwrap()]), screen)
        })
    };
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/file"), "old").unwrap();
    fs::set_permissions(at("dir/file"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("dir/file", at("one")).unwrap();
    symlink(at("one"), at("two")).unwrap();
    run(&at("two")).unwrap();
    let piped = fs::read(at("dir/file")).unwrap();
    assert_eq!(members(&piped)[..2], ["./", "bin"]);
    assert_eq!(fs::metadata(at("dir/file")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_link(at("one")).unwrap(), Path::new("dir/file"));
    assert_eq!(fs::read_dir(at("dir")).unwrap().count(), 1, "nothing is left beside it");
    // What a process has open need not have a name, and may have something before the tar.
    let file = fs::File::create(at("open")).unwrap();
    (&file).write_all(b"head").unwrap();
    fs::remove_file(at("open")).unwrap();
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    symlink(&open, at("three")).unwrap();
    run(&at("three")).unwrap();
    assert!(fs::read(&open).unwrap() == [b"head", &piped[..]].concat());
    let erofs = ["i", "--type", "erofs", "-o", &open];
    let error = seen(To::Pipe, |screen| export(&image(), &parse(&erofs), screen)).err().unwrap();
    assert!(error.to_string().contains("at random offsets"), "{error}");
    symlink("nowhere", at("four")).unwrap();
    let error = format!("{:#}", run(&at("four")).err().unwrap());
    assert!(error.contains("a symbolic link to nothing"), "{error}");
}

#[test]
fn unpacking_fills_a_new_directory_and_only_that() {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("root");
    let progress = ProgressBar::hidden();
    let run = || {
        seen(To::Pipe, |screen| {
            let args: UnpackArgs = parse(&["i", root.to_str().unwrap()]);
            unpack(&image(), &args, &progress, screen)
        })
    };
    let err = String::from_utf8(run().unwrap().err).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!(err, "");
    } else {
        assert!(err.contains("device nodes: 2"), "{err}");
    }
    assert_eq!(progress.position(), bytes_below(&root));
    assert!(progress.position() > 0 && progress.is_finished());
    assert_eq!(fs::metadata(&root).unwrap().mtime(), 1_700_000_000);
    let error = run().err().unwrap().to_string();
    assert!(error.contains("choose a new or an empty directory"), "{error}");
}

/// Bytes of the regular files in a directory and below, each inode once.
fn bytes_below(dir: &Path) -> u64 {
    let mut sizes = std::collections::HashMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                open.push(entry.path());
            } else if meta.is_file() {
                sizes.insert(meta.ino(), meta.len());
            }
        }
    }
    sizes.values().sum()
}
