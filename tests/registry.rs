//! What the commands that speak to registries print, and what is there afterwards.
//!
//! The model: a session against a loopback registry of our own, whose address is `HOST` in the
//! command lines and in the transcript. One layer at a time, so that the order is known.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

#[path = "support/fake.rs"]
mod fake;
mod support;

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use fake::{Answer, How, Registry, Seen};
use support::talk::Talk;
use support::{Sandbox, fixture};

/// A session against a registry with `cases:1` and, under another compression, `zstd:1`.
struct Session {
    talk: Talk,
    registry: Registry,
}

impl Session {
    fn new() -> Self {
        let registry = Registry::new();
        registry.layout(&fixture("cases.oci"), "team/cases", "1");
        registry.layout(&fixture("cases.oci"), "team/cases", "latest");
        Self { talk: Talk::new(), registry }
    }

    fn say(&mut self, line: &str) -> &mut Self {
        let words: Vec<String> = line.split(' ').map(|word| self.filled(word)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = self.talk.sandbox.run(&words);
        self.talk.note(line, &output);
        self
    }

    fn filled(&self, word: &str) -> String {
        let fixtures = fixture("");
        let fixtures = fixtures.to_str().unwrap().trim_end_matches('/');
        word.replace("HOST", self.registry.host()).replace("FIX", fixtures)
    }

    fn transcript(&self) -> String {
        self.talk.transcript().replace(self.registry.host(), "HOST")
    }
}

#[test]
fn pull_push_and_manifest() {
    let mut session = Session::new();
    session
        .say("pull --jobs 1 HOST/team/cases:1")
        .say("pull HOST/team/cases:1")
        .say("pull HOST/team/cases")
        .say("pull -q HOST/team/cases")
        .say("pull HOST/team/cases:nothing")
        .say("pull --platform plan9/mips HOST/team/cases:1")
        .say("pull HOST/Team")
        .say("images")
        .say("manifest -q HOST/team/cases:1")
        .say("manifest HOST/team/cases:1")
        .say("--format json manifest HOST/team/cases:1")
        .say("push --jobs 1 HOST/team/cases:1")
        .say("push --jobs 1 HOST/team/cases:1 HOST/other/cases:2")
        .say("push --jobs 1 --compression gzip HOST/team/cases:1 HOST/other/cases")
        .say("push -q HOST/team/cases:1 HOST/other/cases:2")
        .say("push nothing");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn pull_by_digest() {
    let mut session = Session::new();
    session
        .say(
            "pull --jobs 1 HOST/team/cases@sha256:\
             c352276fb37e3d5de08bd47f5f671bc862c4814931d08fa7304ada43e1760e9e",
        )
        .say(
            "ls HOST/team/cases@sha256:\
             c352276fb37e3d5de08bd47f5f671bc862c4814931d08fa7304ada43e1760e9e",
        )
        .say("images")
        .say("inspect --format {{.RepoTags}}{{.RepoDigests}} 11be1e1c5819")
        .say("history -q 11be1e1c5819")
        .say(
            "rmi HOST/team/cases@sha256:\
             c352276fb37e3d5de08bd47f5f671bc862c4814931d08fa7304ada43e1760e9e",
        );
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn verify() {
    let mut session = Session::new();
    session
        .say("verify HOST/team/cases:1 --against HOST/team/cases:latest")
        .say("verify HOST/team/cases:1 --against oci:FIX/cases.oci")
        .say("load -q -i FIX/cases-docker25.docker.tar")
        .say("verify HOST/team/cases:1 --against strata:cases:1")
        .say("verify docker://HOST/team/cases:1 --against docker-archive:FIX/none.tar")
        .say("verify HOST/team/cases:1 --against oci-archive:FIX/busybox-gzip.oci.tar")
        .say("-q verify HOST/team/cases:1 --against oci-archive:FIX/busybox-gzip.oci.tar")
        .say("verify HOST/team/cases:1 --against dir:x");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn copies() {
    let mut session = Session::new();
    let list = session.talk.sandbox.path().join("list");
    fs::write(&list, "docker://HOST/team/cases # the first\n\noci:layout:1 oci:layout:2\n")
        .unwrap();
    let text = fs::read_to_string(&list).unwrap().replace("HOST", session.registry.host());
    fs::write(&list, text).unwrap();
    session
        .say("copy docker://HOST/team/cases:1 oci:layout:1")
        .say("copy oci:layout:1 oci:layout:1")
        .say("-q copy docker://HOST/team/cases:1 oci-archive:one.tar:x")
        .say("-q copy docker://HOST/team/cases:1 docker-archive:two.tar:x:1")
        .say("-q copy docker-archive:two.tar strata:two:1")
        .say("-q copy strata:two:1 docker://HOST/other/two:1")
        .say("-q copy oci:layout:1 docker://HOST/other/one:1")
        .say("-q copy docker://HOST/team/cases:1 docker://HOST/other/cases:1")
        .say("-q copy docker://HOST/team/cases docker://HOST/team/cases:1 docker://HOST/all/")
        .say("-q copy --list list oci:all")
        .say("-q copy two:1 three:3")
        .say("images");
    for place in [
        "oci:layout:1",
        "oci:layout:2",
        "oci-archive:one.tar",
        "docker-archive:two.tar:x:1",
        "strata:three:3",
        "docker://HOST/other/two:1",
        "docker://HOST/other/one:1",
        "docker://HOST/other/cases:1",
        "docker://HOST/all/team/cases:1",
        "docker://HOST/all/team/cases",
        "oci:all:latest",
    ] {
        session.say(&format!("-q verify HOST/team/cases:1 --against {place}"));
    }
    session
        .say("-q verify --exact HOST/team/cases:1 --against oci:layout:1")
        .say("-q verify --exact HOST/team/cases:1 --against docker-archive:two.tar")
        .say("copy oci:layout:1")
        .say("copy oci:layout:3 oci:other")
        .say("copy oci:layout oci:other")
        .say("copy oci:layout:1 oci:layout:2 docker://HOST/x:1")
        .say("copy oci:layout:1 dir:x")
        .say("copy --list list");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn a_copy_that_fails_names_nothing_at_its_destination() {
    let registry = Registry::new();
    registry.layout(&fixture("cases.oci"), "team/cases", "1");
    let from = format!("docker://{}/team/cases:1", registry.host());
    // The last layer of the image.
    let last = "blobs/sha256:b57f6820443547ce2ee614bb3df15a8bda0862c082d6e93387dcdd8620a333be";
    registry.rule(|seen| if seen.is("GET", last) { How::Flip } else { How::Well });
    let sandbox = Sandbox::new();
    sandbox.fails(&["-q", "copy", &from, "oci:layout:1"]);
    assert!(!sandbox.path().join("layout/index.json").exists());
    assert!(!sandbox.path().join("layout").join(last.replace("sha256:", "sha256/")).exists());
    for archive in ["oci-archive:x.tar", "docker-archive:x.tar"] {
        sandbox.fails(&["-q", "copy", &from, archive]);
        assert!(!sandbox.path().join("x.tar").exists());
    }
    sandbox.fails(&["-q", "copy", &from, "strata:x:1"]);
    assert_eq!(sandbox.ok(&["images", "-q"]), "");
    let far = Registry::new();
    sandbox.fails(&["-q", "copy", &from, &format!("docker://{}/far:1", far.host())]);
    assert_eq!(far.stored_manifest("far", "1"), None);
    registry.rule(|_| How::Well);
    sandbox.ok(&["-q", "copy", &from, &format!("docker://{}/far:1", far.host())]);
    assert_eq!(far.stored_manifest("far", "1"), registry.stored_manifest("team/cases", "1"));
}

#[test]
fn mount_pulls_what_is_not_here() {
    let mut session = Session::new();
    session.talk.sandbox.dir("mnt");
    session.say("mount --pull=never HOST/team/cases:1 mnt").say("mount HOST/team/cases:none mnt");
    let name = format!("{}/team/cases:1", session.registry.host());
    let output = session.talk.sandbox.run(&["mount", &name, "mnt"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    let first = format!("Unable to find image '{name}' locally\n1: Pulling from team/cases\n");
    assert!(said.starts_with(&first), "{said}");
    assert!(said.ends_with(&format!("Status: Downloaded newer image for {name}\n")), "{said}");
    assert!(session.talk.sandbox.path().join("mnt/kinds").is_dir());
    session.registry.forget();
    session
        .say("umount mnt")
        .say("mount HOST/team/cases:1 mnt")
        .say("umount mnt")
        .say("mount --pull=always HOST/team/cases:1 mnt")
        .say("umount mnt");
    assert_eq!(session.registry.count("GET", "/manifests/1"), 1);
    insta::assert_snapshot!(session.transcript());
}

fn wants_login(seen: &Seen) -> How {
    match seen.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => How::Well,
        _ => Answer::new(401)
            .header("www-authenticate", "Basic realm=\"test\"")
            .body(r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#)
            .how(),
    }
}

#[test]
fn logins() {
    let mut session = Session::new();
    session.registry.rule(wants_login);
    let login = |session: &mut Session, password: &str| {
        let host = session.registry.host().to_owned();
        let args = ["login", "--username", "me", "--password-stdin", &host];
        let mut command = session.talk.sandbox.command(&args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        let output = child.wait_with_output().unwrap();
        session.talk.note("login --username me --password-stdin HOST", &output);
    };
    session.say("pull HOST/team/cases:1");
    login(&mut session, "wrong");
    let file = session.talk.sandbox.path().join("docker/config.json");
    assert!(!file.exists());
    login(&mut session, "secret");
    assert!(fs::read_to_string(&file).unwrap().contains("bWU6c2VjcmV0"));
    session
        .say("login HOST")
        .say("pull --jobs 1 HOST/team/cases:1")
        .say("logout http://HOST")
        .say("logout HOST")
        .say("manifest -q HOST/team/cases:1")
        .say("login -u me HOST")
        .say("login -u me -p secret --authfile own.json HOST")
        .say("manifest -q --authfile own.json HOST/team/cases:1");
    insta::assert_snapshot!(session.transcript());
}

#[test]
fn mirrors() {
    let mut session = Session::new();
    let dead = {
        let registry = Registry::new();
        registry.host().to_owned()
    };
    let conf = format!(
        "[[registry]]\nlocation='docker.io'\n[[registry.mirror]]\nlocation='{dead}'\n\
         [[registry.mirror]]\nlocation='{host}'\n\
         [[registry]]\nprefix='example.com'\nlocation='{host}/team'\n\
         [[registry]]\nprefix='blocked.io'\nblocked=true\n",
        host = session.registry.host()
    );
    fs::write(session.talk.sandbox.path().join("registries.conf"), conf).unwrap();
    session
        .say("pull --jobs 1 example.com/cases:1")
        .say("pull blocked.io/x")
        .say("verify example.com/cases:1 --against HOST/team/cases:1");
    let output = session.talk.sandbox.ok(&["info"]);
    let registries = output.split_once("Registries:\n").unwrap().1;
    let registries = registries.replace(&dead, "DEAD").replace(session.registry.host(), "HOST");
    let here = session.talk.sandbox.path().to_str().unwrap();
    insta::assert_snapshot!("registries", registries.replace(here, "[DIR]"));
    insta::assert_snapshot!(session.transcript());
    let info = session.talk.sandbox.json(&["info"]);
    assert_eq!(info["images"], 1);
    assert_eq!(info["registries"][0]["location"], dead.as_str());
}

/// A pull is killed while the registry is in the middle of each of its answers; what is there
/// then is right, and the next pull brings the image.
#[test]
fn a_killed_pull_leaves_a_store_that_is_right() {
    let registry = Registry::new();
    registry.layout(&fixture("cases.oci"), "team/cases", "1");
    let name = format!("{}/team/cases:1", registry.host());
    // The manifest, the config and four layers.
    for request in 1..=6 {
        for bytes in [0, 1, 100, 1 << 20] {
            let sandbox = Sandbox::new();
            let (reached, wait) = mpsc::channel();
            let mut count = 0;
            registry.rule(move |seen| {
                count += usize::from(seen.path.contains("/team/"));
                if count != request {
                    return How::Well;
                }
                // The test is gone if a further request comes.
                reached.send(()).unwrap_or_default();
                How::Stall(bytes)
            });
            let mut child = sandbox.spawn(&["pull", "--jobs", "2", &name]);
            wait.recv_timeout(Duration::from_secs(60)).unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            registry.rule(|_| How::Well);
            if sandbox.path().join("store").exists() {
                sandbox.ok(&["fsck"]);
            }
            sandbox.ok(&["pull", &name]);
            sandbox.ok(&["fsck"]);
            let mut staging = sandbox.path().join("store/staging").read_dir().unwrap();
            assert!(staging.next().is_none(), "request {request}, byte {bytes}");
        }
    }
}
