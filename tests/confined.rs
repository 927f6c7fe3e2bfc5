//! What the threads of running daemons keep, as the kernel tells it.
//!
//! Invariant: each thread that answers has entered its confinement; the one that unmounts has not,
//! and can.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use strata_testkit::needs;
use strata_testkit::sandbox::Sandbox;

/// `CAP_DAC_READ_SEARCH`, `CAP_SYS_ADMIN`, `CAP_NET_ADMIN`, as bits (capabilities(7)).
const READ_SEARCH: u64 = 1 << 2;
const SYS_ADMIN: u64 = 1 << 21;
const NET_ADMIN: u64 = 1 << 12;

const IMAGE: &str = "cases.oci:1";

/// What a thread has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    capabilities: u64,
    no_new_privs: bool,
}

/// The threads of a process, the first one first.
fn threads(pid: u64) -> Vec<Kept> {
    let dir = format!("/proc/{pid}/task");
    let mut all: Vec<u64> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    all.sort_by_key(|tid| (*tid != pid, *tid));
    let kept = |tid| {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        assert_eq!(field("CapEff"), field("CapPrm"), "nothing is kept aside");
        Kept {
            capabilities: u64::from_str_radix(&field("CapEff"), 16).unwrap(),
            no_new_privs: field("NoNewPrivs") == "1",
        }
    };
    all.into_iter().map(kept).collect()
}

/// The threads of the daemon behind a mount, and how many of them are confined.
fn of_mount(sandbox: &Sandbox, point: &Path) -> (Vec<Kept>, Vec<Kept>) {
    let mounts = sandbox.json(&["mounts"]);
    let point = point.canonicalize().unwrap();
    let all = mounts.as_array().unwrap();
    let mount = all.iter().find(|mount| mount["mountpoint"] == point.to_str().unwrap()).unwrap();
    threads(mount["pid"].as_u64().unwrap()).into_iter().partition(|thread| thread.no_new_privs)
}

#[test]
fn an_image_mount_answers_with_nothing_but_the_right_to_read() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    let at = point.to_str().unwrap();
    for (profile, wanted) in [("no-open", READ_SEARCH), ("passthrough", READ_SEARCH | SYS_ADMIN)] {
        sandbox.ok(&["mount", "--backend", "fuse", "--profile", profile, IMAGE, at]);
        let (confined, free) = of_mount(&sandbox, &point);
        assert!(confined.len() >= 2, "{confined:?}");
        for thread in confined {
            assert_eq!(thread.capabilities & !wanted, 0, "{profile}: {thread:?}");
        }
        assert!(free.iter().any(|thread| thread.capabilities & SYS_ADMIN != 0), "it unmounts");
        // All that there is can be read all the same.
        let names = fs::read_dir(&point).unwrap().count();
        assert!(names > 0);
        sandbox.ok(&["umount", at]);
    }
}

#[test]
fn a_writable_mount_answers_with_what_files_need() {
    if !needs::root_and_fuse() {
        return;
    }
    let sandbox = Sandbox::with_cases();
    let point = sandbox.dir("mnt");
    let at = point.to_str().unwrap();
    sandbox.ok(&["mount", "--backend", "fuse", "--rw", IMAGE, at]);
    let (confined, _) = of_mount(&sandbox, &point);
    assert!(confined.len() >= 4, "{confined:?}");
    for thread in confined {
        assert_eq!(thread.capabilities & NET_ADMIN, 0, "{thread:?}");
    }
    fs::write(point.join("new"), "written").unwrap();
    std::os::unix::fs::chown(point.join("new"), Some(123), Some(456)).unwrap();
    fs::rename(point.join("new"), point.join("moved")).unwrap();
    assert_eq!(fs::read(point.join("moved")).unwrap(), b"written");
    sandbox.ok(&["umount", at]);
}

/// A `strata serve`, which ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_server_answers_from_the_store_and_is_confined() {
    let sandbox = Sandbox::with_cases();
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    let mut server = Server(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut connection = TcpStream::connect(&address).unwrap();
    let request =
        format!("GET /v2/_catalog HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let all = threads(u64::from(server.0.id()));
    assert!(all[0].no_new_privs, "the thread that accepts: {all:?}");
    assert_eq!(all[0].capabilities & (SYS_ADMIN | NET_ADMIN), 0, "{all:?}");
}
