//! What the commands that speak to registries print, and what is there afterwards.
//!
//! The model: a session against a loopback registry of our own, whose address is `HOST` in the
//! command lines and in the transcript. One layer at a time, so that the order is known.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use strata_testkit::fixture;
use strata_testkit::registry::{Answer, How, Registry, Seen};
use strata_testkit::sandbox::Sandbox;
use strata_testkit::talk::Talk;

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

/// What it blocks would be asked.
#[test]
fn settings_that_are_named_have_to_be_there() {
    let sandbox = Sandbox::new();
    let mut pull = sandbox.command(&["pull", "blocked.test/a"]);
    let output = pull.env("CONTAINERS_REGISTRIES_CONF", "/no/where").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("/no/where, which is not there"), "{said}");
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
fn the_digests_of_an_index() {
    let mut session = Session::new();
    // Two names of one index, as most of Docker Hub's.
    let manifest = session.registry.stored_manifest("team/cases", "1").unwrap();
    let index = |note: &str| {
        serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "annotations": {"note": note},
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": strata_testkit::digest(&manifest),
                "size": manifest.len(),
                "platform": {"os": "linux", "architecture": "amd64"},
            }],
        })
        .to_string()
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    session.registry.layout(&fixture("cases.oci"), "team/multi", "none");
    let digest = session.registry.manifest("team/multi", "1", kind, index("old").as_bytes());
    session
        .say("pull --jobs 1 HOST/team/multi:1")
        .say("images --digests")
        .say("inspect --format {{.RepoTags}}{{.RepoDigests}} HOST/team/multi:1")
        .say("tag HOST/team/multi:1 mine:1")
        .say("images --digests")
        .say("inspect --format {{.RepoTags}}{{.RepoDigests}} mine:1")
        .say(&format!("rmi HOST/team/multi@{digest}"))
        .say("images --digests")
        .say("pull -q HOST/team/multi:1")
        .say(&format!("pull -q HOST/team/multi@{digest}"))
        .say("rmi --dry-run HOST/team/multi:1")
        .say("rmi HOST/team/multi:1")
        .say("images --digests")
        .say("rmi mine:1");
    // The tag moves on, and what it was is still known by its repository and digest.
    session
        .say("pull -q HOST/team/multi:1")
        .say("load -q -i FIX/busybox-gzip.oci.tar")
        .say("push --jobs 1 -q stratafs.test/busybox:1 HOST/team/multi:1")
        .say("pull -q HOST/team/multi:1")
        .say("images --digests")
        .say("images -f dangling=true")
        .say("push --jobs 1 -q HOST/team/multi:1 HOST/other/x:1")
        .say("inspect --format {{.RepoDigests}} HOST/team/multi:1")
        .say("image prune -f");
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
fn search_and_all_tags() {
    let mut session = Session::new();
    session.registry.layout(&fixture("cases.oci"), "other", "1");
    session
        .say("search HOST/case")
        .say("search -q HOST/")
        .say("pull --all-tags --jobs 1 HOST/team/cases")
        .say("pull -q -a HOST/team/cases")
        .say("pull -a HOST/team/cases:1")
        .say("pull -a HOST/nothing");
    // As Docker Hub answers.
    session.registry.rule(|seen| match seen.path.as_str() {
        "/v1/search?q=ngi%26nx&n=25" | "/v1/search?q=ngi%26nx&n=3" => Answer::new(200)
            .body(concat!(
                r#"{"num_pages":1,"num_results":2,"results":[{"name":"nginx","description":"#,
                r#""Official build of Nginx, a web server and more than that.\u001b","#,
                r#""star_count":20123,"is_trusted":false,"is_automated":false,"#,
                r#""is_official":true},{"name":"team/nginx","description":null,"#,
                r#""star_count":4,"is_automated":true,"is_official":false}]}"#
            ))
            .how(),
        _ => How::Well,
    });
    session
        .say("search HOST/ngi&nx")
        .say("search --no-trunc --limit 3 HOST/ngi&nx")
        .say("search -f stars=5 HOST/ngi&nx")
        .say("search -f is-official=false -f is-automated=true HOST/ngi&nx")
        .say("search -f size=5 HOST/ngi&nx")
        .say("--format json-full search HOST/ngi&nx");
    session.registry.rule(|_| Answer::new(401).how());
    session.say("search HOST/x");
    insta::assert_snapshot!(session.transcript());
}

/// `strata serve` in a sandbox; ended with the value.
struct Served {
    child: Child,
    host: String,
}

impl Served {
    fn new(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command(&["-q", "serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let host = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { child, host }
    }

    /// Sends these bytes; what comes until the connection ends.
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().ok();
    }
}

#[test]
fn a_served_store_is_a_registry() {
    let sandbox = Sandbox::with_cases();
    sandbox.ok(&["load", "-i", fixture("busybox-gzip.oci.tar").to_str().unwrap()]);
    sandbox.ok(&["tag", "cases.oci:1", "localhost:1234/team/cases:2"]);
    let served = Served::new(&sandbox);
    let host = &served.host;
    let other = Sandbox::new();
    for name in ["cases.oci:1", "docker.io/library/cases.oci:1", "team/cases:2"] {
        other.ok(&["pull", &format!("{host}/{name}")]);
    }
    let id = sandbox.ok(&["images", "-q", "--no-trunc", "cases.oci"]);
    assert!(other.ok(&["images", "-q", "--no-trunc"]).lines().all(|one| one == id.trim()));
    other.ok(&["fsck"]);
    other.fails(&["pull", &format!("{host}/cases.oci:2")]);
    other.fails(&["pull", &format!("{host}/nothing")]);
    let listed = other.ok(&["search", "-q", &format!("{host}/")]);
    assert!(listed.contains("docker.io/library/cases.oci\n"), "{listed}");
    assert!(listed.contains("/team/cases\n"), "{listed}");

    let get = |path: &str, more: &str| {
        served
            .ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"))
    };
    let layer = "/v2/cases.oci/blobs/sha256:\
                 696c4e1ee7ac373b9064efa3eb5137c2d4790cfce2860451febf94c148b2cc49";
    let whole = get(layer, "");
    let rest = get(layer, "Range: bytes=1000-\r\n");
    assert!(rest.starts_with("HTTP/1.1 206 ") && rest.contains("content-range: bytes 1000-"));
    let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!(body(&whole)[1000..], body(&rest));
    assert!(get(layer, "Range: bytes=99999999-\r\n").starts_with("HTTP/1.1 416 "));
    for (request, status) in [
        (format!("POST /v2/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"), 405),
        ("GET /v2/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n".to_owned(), 403),
        ("GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)), 400),
        (format!("GET /../etc/passwd HTTP/1.0\r\nHost: {host}\r\n\r\n"), 404),
        (format!("HEAD {layer} HTTP/1.0\r\nHost: {host}\r\n\r\n"), 200),
    ] {
        if request.starts_with("POST") {
            // The connection stays, for there was no body.
            let mut stream = TcpStream::connect(host).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut begin = [0; 12];
            stream.read_exact(&mut begin).unwrap();
            assert_eq!(&begin, b"HTTP/1.1 405");
            continue;
        }
        let answer = served.ask(&request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

#[test]
fn serving_ends_with_a_signal() {
    let sandbox = Sandbox::with_cases();
    let mut served = Served::new(&sandbox);
    // An idle connection does not hold it up.
    let idle = TcpStream::connect(&served.host).unwrap();
    let pid = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(served.child.wait().unwrap().success());
    drop(idle);
    let error = sandbox.fails(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(error.contains("no loopback address"), "{error}");
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
fn a_login_goes_where_the_registry_is_known() {
    let registry = Registry::with(wants_login);
    let sandbox = Sandbox::new();
    let podman = sandbox.path().join("run/containers/auth.json");
    fs::create_dir_all(podman.parent().unwrap()).unwrap();
    let old = format!(r#"{{"auths":{{"{}":{{"auth":"b2xkOm9sZA=="}}}}}}"#, registry.host());
    fs::write(&podman, old).unwrap();
    sandbox.ok(&["login", "-u", "me", "-p", "secret", registry.host()]);
    assert!(fs::read_to_string(&podman).unwrap().contains("bWU6c2VjcmV0"));
    assert!(!sandbox.path().join("docker").exists());
    sandbox.ok(&["login", registry.host()]);
}

#[test]
fn a_broken_file_stops_no_login_and_no_logout() {
    let registry = Registry::with(wants_login);
    let sandbox = Sandbox::new();
    let podman = sandbox.path().join("run/containers/auth.json");
    fs::create_dir_all(podman.parent().unwrap()).unwrap();
    fs::write(&podman, "{").unwrap();
    let docker = sandbox.path().join("docker/config.json");
    sandbox.ok(&["login", "-u", "me", "-p", "secret", registry.host()]);
    assert!(fs::read_to_string(&docker).unwrap().contains("bWU6c2VjcmV0"));
    // It may know the registry too, so this cannot say that all is forgotten.
    let error = sandbox.fails(&["logout", registry.host()]);
    assert!(error.contains("auth.json"), "{error}");
    assert!(!fs::read_to_string(&docker).unwrap().contains("bWU6c2VjcmV0"));
}

/// Docker's protocol of helpers, as a script that keeps one registry's secret in a file.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case $1 in
  store) cat > kept ;;
  get)
    [ -e kept ] || { echo 'credentials not found in native keychain'; exit 1; }
    cat kept ;;
  erase) rm kept ;;
esac
"#;

#[test]
fn helpers_keep_what_files_do_not() {
    use std::os::unix::fs::PermissionsExt;
    let registry = Registry::with(wants_login);
    registry.layout(&fixture("cases.oci"), "team/cases", "1");
    let sandbox = Sandbox::new();
    let bin = sandbox.dir("bin");
    let helper = bin.join("docker-credential-test");
    fs::write(&helper, HELPER).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    sandbox.dir("docker");
    let config = sandbox.path().join("docker/config.json");
    fs::write(&config, r#"{"credsStore":"test"}"#).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| sandbox.command(args).env("PATH", &path).output().unwrap();
    let name = format!("{}/team/cases:1", registry.host());
    assert!(!run(&["pull", &name]).status.success());
    let output = run(&["login", "-u", "me", "-p", "secret", registry.host()]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(&config).unwrap(), r#"{"credsStore":"test"}"#);
    assert!(fs::read_to_string(bin.join("kept")).unwrap().contains(registry.host()));
    assert!(run(&["pull", &name]).status.success());
    assert!(run(&["logout", registry.host()]).status.success());
    assert!(!bin.join("kept").exists());
    assert!(!run(&["manifest", &name]).status.success());
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
        .say("login -u me -p secret blocked.io")
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
