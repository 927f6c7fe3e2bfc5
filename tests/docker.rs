//! The commands that people know from docker, word for word, on the checked-in images.
//!
//! The model is that of `golden`: a test is a session whose transcript is in `tests/snapshots`.
//!
//! Invariant: what `system df` and the prunes say adds up to what `df` counts.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use std::process::Stdio;

use strata_testkit::sandbox::Sandbox;
use strata_testkit::talk::Talk;
use strata_testkit::tars::Tar;

/// A store with two images of equal parts, one of them under three names.
fn loaded() -> Talk {
    let mut talk = Talk::new();
    talk.sandbox.ok(&["-q", "load", "-i", fixture("cases-docker25.docker.tar").as_str()]);
    talk.sandbox.ok(&["tag", "cases:1", "localhost:5000/team/cases"]);
    talk.say("images");
    talk
}

fn fixture(name: &str) -> String {
    strata_testkit::fixture(name).to_str().unwrap().to_owned()
}

/// One argument with blanks in it.
fn say(talk: &mut Talk, args: &[&str]) {
    let output = talk.sandbox.run(args);
    talk.note(&args.join(" "), &output);
}

#[test]
fn images_are_filtered() {
    let mut talk = loaded();
    for filter in [
        "dangling=true",
        "dangling=false",
        "reference=*cases",
        "reference=*/team/*",
        "reference=cases:1",
        "before=cases:1",
        "since=cases:1",
        "label=io.buildah.version",
        "label=nothing",
        "until=2001-02-03",
        "until=1m",
        "dangling=perhaps",
        "colour=red",
        "dangling",
    ] {
        talk.say(&format!("images --filter {filter} --format {{{{.Repository}}}}:{{{{.Tag}}}}"));
    }
    // One of several references is enough; of all else each has to hold, and one says it all.
    talk.say("images -q -f reference=*cases -f reference=cases:2 -f reference=*/*/cases:2");
    talk.say("images -q -f label=io.buildah.version -f label=nothing");
    talk.say("images -f dangling=true -f dangling=false -q");
    talk.say("images -f until=1m -f until=2001-02-03 -q").say("images -f label!=nothing");
    talk.say("images localhost:5000/*/cases");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn listings_take_templates() {
    let mut talk = loaded();
    talk.say("images --digests").say("images -a");
    talk.say("image ls --format {{.ID}}|{{.Size}}|{{.SharedSize}}|{{.UniqueSize}}|{{.Digest}}");
    say(&mut talk, &["images", "--format", r"table {{.ID}}\t{{upper .Tag}}"]);
    say(&mut talk, &["images", "--format", r#"{{range split .Repository "/"}}<{{.}}>{{end}}"#]);
    talk.say("images --format json")
        .say("history --format json cases:1")
        .say("ps -a --format json");
    talk.say("system df --format json").say("version --format json");
    talk.say("version -f {{.Server.Version}}").say("info -f {{.Images}}|{{.Driver}}");
    talk.say("info -f {{.Nothing}}");
    talk.say("images --format {{.Nothing}}").say("images --format {{.ID").say("images --format x");
    talk.say("df --format {{.ID}}");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn history_is_told() {
    let mut talk = loaded();
    talk.sandbox.ok(&["-q", "load", "-i", fixture("busybox-gzip.oci.tar").as_str()]);
    talk.say("history cases:1").say("history --no-trunc stratafs.test/busybox:1");
    talk.say("image history -q cases:1").say("history nothing");
    talk.say("history --no-human --format {{.ID}}|{{.Size}}|{{.Comment}} cases:1");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn everything_is_inspected() {
    let mut talk = loaded();
    talk.say("inspect cases:1");
    say(&mut talk, &["image", "inspect", "-f", "{{.Id}} {{json .RepoTags}}", "11be1e1c5819"]);
    say(&mut talk, &["inspect", "--format", "{{json .RootFS.Layers}}", "cases:1"]);
    // What the config does not set is Go's zero value.
    say(
        &mut talk,
        &[
            "inspect",
            "-f",
            "{{.Config.Entrypoint}}|{{json .Config.Entrypoint}}|{{.Config.Volumes}}|\
             {{json .Config.Volumes}}|{{.Config.User}}|{{.Config.Healthcheck}}|\
             {{json .Config.Healthcheck}}|{{.Config.Tty}}|{{len .Config.OnBuild}}|\
             {{join .Config.Shell \",\"}}|{{range .Config.ExposedPorts}}x{{end}}|\
             {{with .Config.StopTimeout}}x{{end}}|{{index .Config.Labels \"none\"}}|{{.Variant}}|\
             {{.ID}}|{{.Metadata.LastTagTime}}|{{json .Config}}",
            "cases:1",
        ],
    );
    talk.say("inspect -f {{.Config.Nothing}} cases:1").say("inspect -f json cases:1");
    let layers = talk.sandbox.ok(&["inspect", "-f", "{{index .RootFS.Layers 0}}", "cases:1"]);
    talk.say(&format!("inspect {}", layers.trim()));
    talk.say(&format!("inspect --type layer {}", &layers["sha256:".len()..][..20]));
    talk.say("inspect --type upper cases:1").say("inspect --type mount cases:1");
    talk.say("inspect nothing cases:1 -f {{.Id}}");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn a_mount_is_inspected_by_any_path_of_its_directory() {
    let sandbox = Sandbox::with("busybox-gzip.oci.tar");
    sandbox.dir("look");
    std::os::unix::fs::symlink("look", sandbox.path().join("link")).unwrap();
    sandbox.ok(&["mount", "--upper", "work", "stratafs.test/busybox:1", "look"]);
    // A plain name is a directory where nothing in the store has it.
    for more in
        [&["look"][..], &["./link"], &["--type", "mount", "look"], &["--type", "mount", "link"]]
    {
        assert_eq!(sandbox.json(&[&["inspect"], more].concat())[0]["Upper"], "work", "{more:?}");
    }
    for name in ["look", "work"] {
        assert_eq!(sandbox.json(&["container", "inspect", name])[0]["Name"], "work", "{name}");
    }
    sandbox.dir("work");
    let refused = sandbox.fails(&["inspect", "--type", "mount", "work"]);
    assert!(refused.contains("nothing is mounted on \"work\""), "{refused}");
    sandbox.ok(&["umount", "look"]);
}

#[test]
fn json_of_an_image_steers_no_terminal() {
    let sandbox = Sandbox::new();
    let tar = Tar::default().file("a\u{9b}2J".as_bytes(), "\u{9b}".as_bytes()).end();
    std::fs::write(sandbox.path().join("t.tar"), tar).unwrap();
    sandbox.ok(&["import", "t.tar", "x:1"]);
    for command in [&["ls", "x:1"][..], &["stat", "x:1:/a\u{9b}2J"], &["explore", "--print", "x:1"]]
    {
        let said = sandbox.ok(&[&["--format", "json"], command].concat());
        assert!(said.contains("a\\u009b2J") && !said.contains('\u{9b}'), "{said}");
    }
    // A file is what it is.
    assert_eq!(sandbox.ok(&["--format", "json", "cat", "x:1:/a\u{9b}2J"]), "\u{9b}");
}

/// A label too many keeps an image, never removes one.
#[test]
fn a_prune_takes_what_all_filters_mean() {
    let mut talk = loaded();
    for (name, labels) in [("test", "a=1"), ("team", "b=2"), ("both", "a=1 b=2")] {
        std::fs::write(talk.sandbox.path().join("empty.tar"), [0; 1024]).unwrap();
        let change = format!("LABEL {labels}");
        let same = ["--created", "2024-01-01T00:00:00Z", "--platform", "linux/amd64"];
        talk.sandbox.ok(&[&["import", "-c", &change], &same[..], &["empty.tar", name]].concat());
    }
    let left = |talk: &mut Talk| {
        talk.say("images --format {{.Repository}}:{{.Tag}}");
    };
    talk.say("image prune -a -f --filter label=a --filter label=b=3 --filter label=b=2");
    talk.say("image prune -a -f --filter label=a=1 --filter label=b=2");
    left(&mut talk);
    // Both kinds of prune; an image is left out that has all the labels that it is not to have.
    talk.say("image prune -a -f --filter label!=a --filter label!=b --filter label=a");
    left(&mut talk);
    talk.say("system prune -a -f --filter label!=b=2 --filter until=2001-02-03");
    talk.say("image prune -f --filter until=1m --filter until=1h");
    talk.say("image prune -f --filter label=b --filter dangling=true");
    // Not only images without a name.
    talk.say("image prune -f --filter label=b --filter dangling=false");
    left(&mut talk);
    insta::assert_snapshot!(talk.transcript());
}

/// An engine that has an image too keeps its bytes: no account says that they could be freed.
#[test]
fn what_an_engine_has_is_not_to_be_reclaimed() {
    let talk = loaded();
    let store = strata_layer::Store::open(&talk.sandbox.path().join("store")).unwrap();
    let layers: Vec<_> = store.layers().unwrap().iter().map(|layer| layer.diff_id).collect();
    store.holds("engine").unwrap().add(&layers).unwrap();
    drop(store);
    let free = ["system", "df", "--format", "{{.Type}} {{.Reclaimable}}"];
    let said = talk.sandbox.ok(&free);
    assert!(said.contains("Images 0B (0%)"), "{said}");
    let all = talk.sandbox.json(&["system", "df"]);
    for image in all["images"].as_array().unwrap() {
        assert_eq!((&image["unique"], &image["shared"]), (&0.into(), &image["stored"]), "{all}");
    }
    let unique = talk.sandbox.ok(&["images", "--format", "{{.UniqueSize}}"]);
    assert!(unique.lines().all(|size| size == "0B"), "{unique}");
    let df = talk.sandbox.json(&["df", "cases:1"]);
    assert_eq!((&df["images"][0]["unique"], &df["together"]["unique"]), (&0.into(), &0.into()));
}

#[test]
fn what_nothing_needs_is_pruned() {
    let mut talk = loaded();
    talk.say("system df").say("system df -v").say("system df --format {{.Type}}={{.Reclaimable}}");
    talk.say("image prune -f");
    // An image that has lost its last name to another.
    talk.say("tag cases:1 keep").say("image rm stratafs.test/cases:2");
    talk.sandbox.ok(&["tag", "cases:1", "stratafs.test/cases:latest"]);
    talk.say("images");
    let refused = |talk: &mut Talk, line: &str, answer: &str| {
        let mut command = talk.sandbox.command(&line.split(' ').collect::<Vec<_>>());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        talk.note(&format!("{line} <<< {answer:?}"), &output);
    };
    refused(&mut talk, "image prune", "n\n");
    refused(&mut talk, "system prune", "");
    refused(&mut talk, "image prune", "y\n");
    talk.say("image prune -a -f --filter until=2001-02-03");
    talk.say("system prune -f").say("--format json image prune -a -f").say("images").say("ps -a");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn uppers_are_what_containers_are_elsewhere() {
    let mut talk = loaded();
    let point = talk.sandbox.dir("mnt");
    talk.say(&format!("mount --upper work cases:1 {}", point.display()));
    std::fs::write(point.join("new"), "written").unwrap();
    std::fs::remove_dir_all(point.join("same")).unwrap();
    talk.say("ps").say("ps -q").say("diff work").say("--format json diff work");
    talk.say("rmi -f cases:1 localhost:5000/team/cases").say("rmi 11be1e1c5819");
    talk.say("image prune -a -f").say("rm work");
    talk.say(&format!("umount {}", point.display()));
    talk.say("ps").say("ps -a").say("ps -a --format {{.Names}}|{{.Image}}|{{.State}}|{{.Mounts}}");
    let created = "2001-02-03T04:05:06Z";
    // Its id depends on when the file was written.
    talk.sandbox.ok(&["commit", "-m", "why", "-a", "who", "--created", created, "work", "new:1"]);
    talk.say("history new:1 --format {{.CreatedBy}}|{{.Size}}|{{.Comment}}")
        .say("inspect -f {{.Author}}|{{.Comment}}|{{.Created}} new:1");
    talk.say("ls new:1:/").say("diff nothing").say("rm work").say("rm work").say("ps -aq");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn sizes_add_up() {
    let sandbox = Sandbox::new();
    for name in
        ["cases-docker25.docker.tar", "cases-podman-multi.docker.tar", "busybox-gzip.oci.tar"]
    {
        sandbox.ok(&["-q", "load", "-i", fixture(name).as_str()]);
    }
    let json = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&sandbox.ok(&[&["--format", "json-full"], args].concat())).unwrap()
    };
    let stored = |df: &serde_json::Value| {
        let headers = &df["disk"]["headers"]["bytes"];
        df["stored"].as_u64().unwrap() + headers.as_u64().unwrap()
    };
    let before = json(&["df"]);
    let system = json(&["system", "df"]);
    assert_eq!(system["totals"]["images"]["size"], stored(&before));
    assert_eq!(system["totals"]["images"]["reclaimable"], stored(&before));
    for image in system["images"].as_array().unwrap() {
        // Removed alone, an image frees what is its own.
        let content = json(&["df"])["stored"].as_u64().unwrap();
        let now = json(&["system", "df"]);
        let now = now["images"].as_array().unwrap().iter();
        let unique = now.clone().find(|one| one["id"] == image["id"]).unwrap()["unique"].clone();
        sandbox.ok(&["rmi", "-f", image["id"].as_str().unwrap()]);
        let left = json(&["df"])["stored"].as_u64().unwrap();
        assert_eq!(unique, content - left, "{image}");
    }
    sandbox.ok(&["-q", "load", "-i", fixture("cases.oci").as_str()]);
    let before = json(&["df"]);
    let pruned = json(&["image", "prune", "--all", "--force"]);
    assert_eq!(pruned["reclaimed"], stored(&before));
    assert_eq!(stored(&json(&["df"])), 0);
}

#[test]
fn groups_and_habits() {
    let mut talk = loaded();
    let archive = talk.sandbox.path().join("out.tar").display().to_string();
    // What is elsewhere.
    talk.say("run -it alpine sh").say("container run alpine").say("image build .").say("volume ls");
    talk.say("inspct cases:1").say("frobnicate").say("help stop").say("help image nothing");
    let help = |talk: &Talk, args: &[&str]| talk.sandbox.ok(args);
    assert_eq!(help(&talk, &["help", "image", "ls"]), help(&talk, &["image", "ls", "--help"]));
    assert_eq!(help(&talk, &["help"]), help(&talk, &["--help"]));
    // The same under docker's groups.
    for line in
        ["image list -q", "container list", "container ls -aq", "image inspect -f {{.Id}} cases:1"]
    {
        talk.say(line);
    }
    talk.sandbox.ok(&["image", "save", "-o", &archive, "cases:1", "stratafs.test/cases:2"]);
    talk.say("image remove cases:1 stratafs.test/cases:2");
    let loaded = talk.sandbox.ok(&["image", "load", &archive]);
    assert_eq!(loaded, talk.sandbox.ok(&["load", "-i", &archive]));
    talk.say("images -q").say("rmi -f nothing").say("rm -f nothing").say("rm nothing");
    talk.say("system prune -f --volumes").say("pull https://quay.io/team/app:1");
    talk.say("inspect --type container cases:1");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn a_commit_changes_what_an_image_says() {
    let mut talk = loaded();
    let point = talk.sandbox.dir("mnt");
    talk.sandbox.ok(&["mount", "--upper", "work", "cases:1", point.to_str().unwrap()]);
    let config = "{{json .Config}}";
    let mut args = vec!["container", "commit", "--created", "2001-02-03T04:05:06Z"];
    for change in ["CMD [\"a\", \"b\"]", "ENV X=1 Y=\"2 3\"", "EXPOSE 80", "LABEL k=v", "USER 5"] {
        args.extend(["-c", change]);
    }
    let id = talk.sandbox.ok(&[&args[..], &["work"]].concat());
    say(&mut talk, &["inspect", "-f", config, id.trim()]);
    say(&mut talk, &["inspect", "-f", "{{.RepoTags}}", id.trim()]);
    say(&mut talk, &["commit", "-c", "RUN x", "work", "new"]);
    say(&mut talk, &["commit", "-c", "EXPOSE http", "work", "new"]);
    // In use: the name goes, the image stays; by id it stays altogether.
    talk.say("rmi cases:1 localhost:5000/team/cases stratafs.test/cases:2");
    talk.say("rmi -f stratafs.test/cases:latest").say("rmi -f stratafs.test/cases:latest");
    talk.say("container prune -f").say("rm work").say("rm -f work").say("container prune -f");
    insta::assert_snapshot!(talk.transcript());
}

#[test]
fn the_environment_says_which_store() {
    let sandbox = loaded().sandbox;
    let ids = sandbox.ok(&["images", "-q"]);
    let store = sandbox.path().join("store");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_strata"));
    let output = command.args(["images", "-q"]).env("STRATA_ROOT", &store).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), ids);
    let other = sandbox.dir("other");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_strata"));
    command.args(["--root", other.to_str().unwrap(), "images", "-q"]).env("STRATA_ROOT", &store);
    assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap(), "");
}
