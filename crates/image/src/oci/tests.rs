//! Layouts, right and wrong: which images are found in them, under which names.

use std::fs::File;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::find;
use crate::found::{FoundImage, Wanted};
use crate::limits::SourceLimits;
use crate::media::MediaKind;
use crate::oci::{Top, choices};
use crate::source::ImageSource;
use crate::spec::{List, SourceSpec};
use strata_registry::Reference;
use strata_testkit::digest;
use strata_testkit::layout::{CONFIG, INDEX, LAYER, Layout, MANIFEST, named, on, tar_of, with};

fn find(layout: &Layout, only: Option<&str>, platform: Option<&str>) -> Result<Vec<FoundImage>> {
    let mut spec = SourceSpec::path(layout.root());
    if let Some(only) = only {
        spec = spec.only(only);
    }
    let scratch = || -> Result<File> { panic!("a directory needs no scratch file") };
    let limits = SourceLimits { images: 8, ..SourceLimits::default() };
    let source = ImageSource::open(&spec, &scratch, &limits)?;
    let platform = platform.map(|text| text.parse().unwrap());
    find::find(&source, &Wanted { spec: &spec, platform: platform.as_ref() })
}

fn names(image: &FoundImage) -> Vec<String> {
    image.names.iter().map(Reference::familiar).collect()
}

fn manifests(found: &[FoundImage]) -> Vec<String> {
    found.iter().map(|image| digest(image.manifest.as_ref().unwrap())).collect()
}

fn error(layout: &Layout) -> String {
    find(layout, None, None).unwrap_err().to_string()
}

#[test]
fn annotations_become_names() {
    let layer = tar_of(&[("a", "1")]);
    for (annotations, expected) in [
        (json!({}), vec![]),
        (json!({"org.opencontainers.image.ref.name": "3.12"}), vec!["python:3.12"]),
        (json!({"org.opencontainers.image.ref.name": "quay.io/a/b:1"}), vec!["quay.io/a/b:1"]),
        (json!({"org.opencontainers.image.ref.name": "app:2"}), vec!["app:2"]),
        (json!({"org.opencontainers.image.ref.name": "not a tag"}), vec![]),
        (json!({"org.opencontainers.image.ref.name": ""}), vec![]),
        (
            json!({"io.containerd.image.name": "docker.io/library/x:1",
                   "org.opencontainers.image.ref.name": "1"}),
            vec!["x:1"],
        ),
        (
            json!({"io.containerd.image.name": "NOT/x:1:2",
                   "org.opencontainers.image.ref.name": "1"}),
            vec!["python:1"],
        ),
    ] {
        let layout = Layout::new("Python");
        let image = layout.image(&[&layer], "linux/amd64");
        layout.index(&[with(&image, "annotations", annotations.clone())]);
        let found = find(&layout, None, None).unwrap();
        assert_eq!(names(&found[0]), expected, "{annotations}");
    }
}

#[test]
fn several_images_and_names_stay_apart_and_one_can_be_chosen() {
    let layout = Layout::new("set");
    let one = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
    let two = layout.image(&[&tar_of(&[("a", "2")])], "linux/amd64");
    layout.index(&[named(&one, "1"), named(&two, "2"), named(&one, "also/one:x"), two.clone()]);
    let found = find(&layout, None, None).unwrap();
    assert_eq!(
        found.iter().map(names).collect::<Vec<_>>(),
        [vec!["set:1", "also/one:x"], vec!["set:2"]]
    );
    for (only, name) in [("1", "set:1"), ("set:2", "set:2"), ("docker.io/also/one:x", "also/one:x")]
    {
        let found = find(&layout, Some(only), None).unwrap();
        assert_eq!(found.iter().map(names).collect::<Vec<_>>(), [[name]], "{only}");
    }
    let error = find(&layout, Some("3"), None).unwrap_err().to_string();
    assert!(error.ends_with("has no image 3; it has also/one:x, set:1, set:2"), "{error}");
}

#[test]
fn many_images_take_no_more_memory_than_is_said() {
    let layout = Layout::new("set");
    let image = |n: &str| {
        let steps = vec![json!({}); 100];
        let layer = tar_of(&[("a", n)]);
        let rootfs = json!({"type": "layers", "diff_ids": [digest(&layer)]});
        let config = json!({"os": "linux", "rootfs": rootfs, "history": steps});
        let config = layout.blob(CONFIG, config.to_string());
        named(&layout.manifest(&config, &[layout.blob(LAYER, &layer)]), n)
    };
    layout.index(&[image("1"), image("2"), image("3")]);
    let find = |only: Option<&str>, held_bytes| {
        let spec = SourceSpec::path(layout.root());
        let spec = only.map_or(spec.clone(), |only| spec.only(only));
        let scratch = || -> Result<File> { panic!("a directory needs no scratch file") };
        let limits = SourceLimits { held_bytes, ..SourceLimits::default() };
        let source = ImageSource::open(&spec, &scratch, &limits).unwrap();
        let found = find::find(&source, &Wanted { spec: &spec, platform: None });
        found.map(|found| found.len()).map_err(|error| error.to_string())
    };
    // A hundred steps of nothing are 300 bytes, and some thousands when they are read.
    assert_eq!(find(None, 40_000), Ok(3));
    let error = find(None, 10_000).unwrap_err();
    assert!(error.contains("take more than 10000 bytes of memory together; name one"), "{error}");
    assert_eq!(find(Some("2"), 1), Ok(1));
}

#[test]
fn a_platform_is_chosen_from_a_nested_index() {
    let layout = Layout::new("multi");
    let image = |n: &str, platform: &str| {
        let layer = tar_of(&[("a", n)]);
        on(&layout.image(&[&layer], platform.rsplit_once("/v").map_or(platform, |p| p.0)), platform)
    };
    let (riscv, v6, v7) =
        (image("r", "linux/riscv64"), image("6", "linux/arm/v6"), image("7", "linux/arm/v7"));
    let attestation = on(&image("t", "linux/unknown"), "unknown/unknown");
    let list = |entries: &[&Value]| {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        layout.index(&[named(&layout.blob(INDEX, index.to_string()), "1")]);
    };
    let chosen = |platform| find(&layout, None, platform).map(|found| manifests(&found));
    let digest_of = |image: &Value| vec![image["digest"].as_str().unwrap().to_owned()];

    list(&[&riscv, &v6, &v7, &attestation]);
    assert_eq!(chosen(Some("linux/riscv64")).unwrap(), digest_of(&riscv));
    assert_eq!(chosen(Some("linux/arm/v7")).unwrap(), digest_of(&v7));
    let error = chosen(Some("linux/s390x")).unwrap_err().to_string();
    assert!(
        error.contains("no image for linux/s390x; there is linux/arm/v6, linux/arm/v7, linux/ris"),
        "{error}"
    );
    assert_eq!(chosen(Some("linux/arm")).unwrap(), digest_of(&v7));
    assert_eq!(chosen(Some("linux/arm/v6")).unwrap(), digest_of(&v6));

    // If there are two for one platform, the first counts.
    let twice = on(&image("8", "linux/riscv64"), "linux/riscv64");
    list(&[&riscv, &twice]);
    assert_eq!(chosen(Some("linux/riscv64")).unwrap(), digest_of(&riscv));
    list(&[&twice, &riscv]);
    assert_eq!(chosen(Some("linux/riscv64")).unwrap(), digest_of(&twice));
    list(&[&riscv, &riscv, &attestation]);
    assert_eq!(chosen(None).unwrap(), digest_of(&riscv));

    // v1 is amd64 without a variant, which runs everywhere; the others are asked for.
    let levels = ["v1", "v2", "v3"].map(|v| image(v, &format!("linux/amd64/{v}")));
    list(&[&levels[2], &levels[1], &levels[0]]);
    assert_eq!(chosen(Some("linux/amd64")).unwrap(), digest_of(&levels[0]));
    assert_eq!(chosen(Some("linux/amd64/v2")).unwrap(), digest_of(&levels[1]));
    assert_eq!(chosen(Some("linux/amd64/v4")).unwrap(), digest_of(&levels[2]));
    list(&[&levels[1], &levels[2]]);
    let error = chosen(Some("linux/amd64")).unwrap_err().to_string();
    assert!(error.contains("there is linux/amd64/v2, linux/amd64/v3: choose"), "{error}");

    // Windows images are named by their build.
    let windows = ["10.0.17763.1", "10.0.20348.2"].map(|version| {
        let mut one = image(version, "windows/amd64");
        one["platform"]["os.version"] = json!(version);
        one
    });
    list(&[&windows[0], &windows[1]]);
    let error = chosen(Some("linux/amd64")).unwrap_err().to_string();
    let both = "there is windows(10.0.17763.1)/amd64, windows(10.0.20348.2)/amd64";
    assert!(error.contains(both), "{error}");
    assert_eq!(chosen(Some("windows/amd64")).unwrap(), digest_of(&windows[1]));
    assert_eq!(chosen(Some("windows(10.0.17763)/amd64")).unwrap(), digest_of(&windows[0]));

    // What is alone needs no choice, unless one is made.
    list(&[&riscv, &attestation]);
    assert_eq!(chosen(None).unwrap(), digest_of(&riscv));
    assert!(chosen(Some("linux/arm")).is_err());

    // `docker save` keeps the whole index and only one platform's blobs.
    list(&[&riscv, &v7]);
    layout.remove(&riscv);
    assert_eq!(chosen(None).unwrap(), digest_of(&v7));
    let error = chosen(Some("linux/riscv64")).unwrap_err().to_string();
    assert!(error.contains("which is not there"), "{error}");
}

#[test]
fn a_platform_is_chosen_among_entries_of_one_name() {
    let layout = Layout::new("flat");
    let one = on(&layout.image(&[&tar_of(&[("a", "1")])], "linux/mips"), "linux/mips");
    let two = on(&layout.image(&[&tar_of(&[("a", "2")])], "linux/riscv64"), "linux/riscv64");
    layout.index(&[named(&one, "1"), named(&two, "1")]);
    let found = find(&layout, None, Some("linux/riscv64")).unwrap();
    assert_eq!(manifests(&found), [two["digest"].as_str().unwrap()]);
    assert!(error(&layout).contains("there is linux/mips, linux/riscv64"));
    // The config counts where no index says a platform.
    layout.index(&[layout.image(&[&tar_of(&[("a", "3")])], "linux/mips")]);
    assert!(find(&layout, None, None).is_ok());
    assert!(matches!(find(&layout, None, Some("linux/arm")), Err(Error::Platform { .. })));
    // Without platforms one name cannot be two images.
    let plain = layout.image(&[&tar_of(&[("a", "4")])], "linux/mips");
    let other = layout.image(&[&tar_of(&[("a", "5")])], "linux/mips");
    layout.index(&[named(&plain, "1"), named(&other, "1")]);
    assert!(error(&layout).contains("it gives the name flat:1 to 2 images"));
    layout.index(&[plain, other]);
    assert_eq!(find(&layout, None, None).unwrap().len(), 2);
}

#[test]
fn docker_tags_are_added_by_config_digest() {
    let layout = Layout::new("saved");
    let layer = tar_of(&[("a", "1")]);
    let config = layout.config(&[&layer], "linux/amd64");
    let image = layout.manifest(&config, &[layout.blob(LAYER, &layer)]);
    layout.index(&[named(&image, "1")]);
    let path = format!("blobs/sha256/{}", &config["digest"].as_str().unwrap()[7..]);
    let list = json!([{"Config": path, "RepoTags": ["saved:1", "x/y:2"], "Layers": []}]);
    layout.write("manifest.json", list.to_string());
    let found = find(&layout, None, None).unwrap();
    assert_eq!(found.iter().map(names).collect::<Vec<_>>(), [["saved:1", "x/y:2"]]);
}

/// An image that only `manifest.json` has: its item, and its id.
fn item(layout: &Layout, content: &str, tags: &Value) -> (Value, String) {
    let layer = tar_of(&[("a", content)]);
    let config = layout.config(&[&layer], "linux/amd64");
    let path = |blob: &Value| format!("blobs/sha256/{}", &blob["digest"].as_str().unwrap()[7..]);
    let layers = [path(&layout.blob(LAYER, &layer))];
    let item = json!({"Config": path(&config), "RepoTags": tags, "Layers": layers});
    (item, config["digest"].as_str().unwrap().to_owned())
}

#[test]
fn what_either_list_has_is_found() {
    let layout = Layout::new("saved");
    let image = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
    let (first, first_id) = item(&layout, "1", &json!(null));
    let (second, second_id) = item(&layout, "2", &json!(["saved:2"]));
    layout.write("manifest.json", json!([second, first]).to_string());
    let ids = |found: &[FoundImage]| -> Vec<String> {
        found.iter().map(|image| image.config.id().to_string()).collect()
    };
    layout.index(&[named(&image, "1")]);
    let found = find(&layout, None, None).unwrap();
    assert_eq!(ids(&found), [first_id.clone(), second_id.clone()]);
    assert_eq!(found.iter().map(names).collect::<Vec<_>>(), [["saved:1"], ["saved:2"]]);
    assert_eq!(
        ids(&find(&layout, Some("saved:2"), None).unwrap()),
        std::slice::from_ref(&second_id)
    );
    let only = |list| {
        let spec = SourceSpec::path(layout.root()).with_list(list);
        let scratch = || -> Result<File> { panic!("a directory needs no scratch file") };
        let source = ImageSource::open(&spec, &scratch, &SourceLimits::default())?;
        find::find(&source, &Wanted { spec: &spec, platform: None })
    };
    assert_eq!(ids(&only(List::Oci).unwrap()), std::slice::from_ref(&first_id));
    assert_eq!(ids(&only(List::Docker).unwrap()), [second_id.clone(), first_id.clone()]);

    // Dockers that wrote null, or nothing, into one of the two.
    for index in
        [json!({"schemaVersion": 2, "manifests": null}), json!({"manifests": []}), json!({})]
    {
        layout.write("index.json", index.to_string());
        assert_eq!(find(&layout, None, None).unwrap().len(), 2, "{index}");
    }
    let config = layout.config(&[&tar_of(&[("a", "2")])], "linux/amd64");
    let bare = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": null});
    layout.index(&[named(&layout.blob(MANIFEST, bare.to_string()), "tag")]);
    let found = find(&layout, None, None).unwrap();
    assert_eq!(ids(&found), [second_id.clone(), first_id]);
    assert_eq!(names(&found[0]), ["saved:tag", "saved:2"]);
    assert_eq!(found[0].layers.len(), 1);

    // One name for two images.
    layout.index(&[named(&image, "2")]);
    assert!(error(&layout).contains("give the name saved:2 to different images"));

    // Another platform of what the index has is no further image.
    let mips = on(&layout.image(&[&tar_of(&[("a", "3")])], "linux/mips"), "linux/mips");
    let layer = tar_of(&[("a", "2")]);
    let own = on(&layout.image(&[&layer], "linux/amd64"), "linux/amd64");
    let both = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [mips, own]});
    layout.index(&[named(&layout.blob(INDEX, both.to_string()), "2")]);
    layout.write("manifest.json", json!([second]).to_string());
    let found = find(&layout, None, Some("linux/mips")).unwrap();
    assert_eq!(manifests(&found), [mips["digest"].as_str().unwrap()]);
    std::fs::remove_file(layout.root().join("manifest.json")).unwrap();
    let error = only(List::Docker).unwrap_err().to_string();
    assert!(error.contains("manifest.json: it is not there, and the prefix asks"), "{error}");
}

#[test]
fn what_follows_the_index_is_not_of_it() {
    let layout = Layout::new("x");
    let image = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
    let index = json!({"schemaVersion": 2, "manifests": [image]}).to_string();
    for behind in ["\n\0\0", "  ", "{}"] {
        layout.write("index.json", format!("{index}{behind}"));
        assert_eq!(find(&layout, None, None).unwrap().len(), 1, "{behind:?}");
    }
    layout.write("index.json", format!("\u{feff}{index}"));
    assert!(error(&layout).contains("a byte order mark"));
    // Half a surrogate pair in what nobody needs.
    let odd =
        index.replace("\"digest\"", "\"annotations\":{\"x\":\"\\ud83d\",\"y\":null},\"digest\"");
    layout.write("index.json", odd);
    assert_eq!(find(&layout, None, None).unwrap().len(), 1);
}

#[test]
fn artifacts_beside_images_are_passed_over() {
    let layout = Layout::new("x");
    let image = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
    let empty = layout.config(&[], "linux/amd64");
    let text = layout.blob("application/vnd.in-toto+json", "{}");
    let attestation = layout.manifest(&empty, &[text]);
    let chart =
        layout.manifest(&layout.blob("application/vnd.cncf.helm.config.v1+json", "{}"), &[]);
    let marked = with(&image, "artifactType", json!("application/vnd.x"));
    layout.index(&[attestation.clone(), chart, marked, image.clone()]);
    let found = find(&layout, None, None).unwrap();
    assert_eq!(manifests(&found), [image["digest"].as_str().unwrap()]);
    layout.index(&[attestation]);
    assert!(error(&layout).contains("it is an artifact"));
}

#[test]
fn damaged_layouts_are_refused_with_the_reason() {
    type Break = fn(&Layout, &Value) -> Vec<Value>;
    let cases: [(&str, Break); 15] = [
        ("has a size of -5", |_, image| vec![with(image, "size", json!(-5))]),
        ("bytes, its descriptor says 7", |_, image| vec![with(image, "size", json!(7))]),
        ("size: invalid type: floating point", |_, image| vec![with(image, "size", json!(1e30))]),
        ("is not a digest", |_, image| vec![with(image, "digest", json!("sha256:../../x"))]),
        ("which is not there", |layout, image| {
            layout.remove(image);
            vec![image.clone()]
        }),
        ("its digest is", |layout, image| {
            let path = layout.blob_path(image);
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replacen("sha256", "sha257", 1)).unwrap();
            vec![image.clone()]
        }),
        ("is an index and a manifest at once", |layout, _| {
            let both = json!({"manifests": [], "config": null, "layers": []});
            vec![layout.blob(INDEX, both.to_string())]
        }),
        ("is said to be Index, and is Manifest", |_, image| {
            vec![with(image, "mediaType", json!(INDEX))]
        }),
        ("docker's schema 1", |layout, _| {
            vec![layout.blob(MANIFEST, json!({"schemaVersion": 1, "fsLayers": []}).to_string())]
        }),
        ("nested too deeply", |layout, image| {
            let wrap =
                |inner: &Value| layout.blob(INDEX, json!({"manifests": [inner]}).to_string());
            vec![(0..6).fold(image.clone(), |inner, _| wrap(&inner))]
        }),
        ("the manifest has 0 layers, the config's rootfs has 1", |layout, _| {
            let config = layout.config(&[b"x"], "linux/amd64");
            vec![layout.manifest(&config, &[])]
        }),
        ("has a size of -1", |layout, _| {
            let config = layout.config(&[b"x"], "linux/amd64");
            let layer = with(&layout.blob(LAYER, b"x"), "size", json!(-1));
            vec![layout.manifest(&config, &[layer])]
        }),
        ("not an image config", |layout, _| vec![layout.manifest(&layout.blob(CONFIG, "[]"), &[])]),
        ("the number of images, 9, is more than 8", |_, image| vec![image.clone(); 9]),
        ("its list of images: it is empty", |_, _| vec![]),
    ];
    for (reason, damage) in cases {
        let layout = Layout::new("x");
        let image = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
        layout.index(&damage(&layout, &image));
        let error = error(&layout);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn what_is_no_layout_is_told_with_a_hint() {
    let layout = Layout::new("x");
    assert!(error(&layout).contains("its index.json is missing"));
    std::fs::remove_file(layout.root().join("oci-layout")).unwrap();
    layout.write("etc/passwd", "root");
    assert!(error(&layout).contains("looks like such a root file system"));
    layout.write("index.json", "{");
    assert!(error(&layout).contains("index.json: not an index: it ends too early, at byte 1"));
    layout.index(&[]);
    layout.write("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#);
    assert!(error(&layout).contains("strata reads 1.x"));
}

/// What an image is called and what it is for is its own text.
#[test]
fn an_error_is_one_line_whatever_an_image_says() {
    let layout = Layout::new("x");
    let image = |n: &str| layout.image(&[&tar_of(&[("a", n)])], "linux/amd64");
    let called = |image: Value, platform: &str| named(&on(&image, platform), "a/\x1b]0;pwn\x07");
    layout.index(&[called(image("1"), "linux/q\nq"), called(image("2"), "other/\u{9b}")]);
    let platform = find(&layout, None, Some("linux/arm64")).unwrap_err().to_string();
    assert!(platform.contains("there is linux/q\\nq, other/\\u{9b}: choose"), "{platform}");
    let name = find(&layout, Some("zzz"), None).unwrap_err().to_string();
    assert!(name.ends_with("it has a/\\u{1b}]0;pwn\\u{7}"), "{name}");
}

/// Other readers choose by the platform alone, some by another than this machine's.
#[test]
fn no_mark_leaves_an_entry_out_of_the_choices() {
    let layout = Layout::new("x");
    let image = |n: &str| layout.image(&[&tar_of(&[("a", n)])], "linux/amd64");
    let images: Vec<Value> = ["1", "2", "3", "4", "5", "6"].map(image).to_vec();
    let inner = json!({"schemaVersion": 2, "manifests": [images[3]]});
    let entries = [
        with(&on(&images[0], "linux/amd64"), "artifactType", json!("x/y")),
        with(&images[1], "annotations", json!({"vnd.docker.reference.type": "x"})),
        on(&images[2], "other/machine"),
        layout.blob("", inner.to_string()),
        with(&images[4], "mediaType", json!("x/y")),
        on(&images[5], "unknown/unknown"),
    ];
    let spec = SourceSpec::path(layout.root());
    let scratch = || -> Result<File> { panic!("a directory needs no scratch file") };
    let source = ImageSource::open(&spec, &scratch, &SourceLimits::default()).unwrap();
    let of = |entries: &[Value]| {
        let bytes = json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes();
        let digest = digest(&bytes).parse().unwrap();
        let found = choices(&source, Top { digest, kind: MediaKind::Unsaid, bytes });
        found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let expected: Vec<&str> =
        images[..5].iter().map(|image| image["digest"].as_str().unwrap()).collect();
    assert_eq!(of(&entries).unwrap(), expected);
    // A manifest is the one choice that it leads to.
    let bytes = std::fs::read(layout.blob_path(&images[0])).unwrap();
    let top = Top { digest: expected[0].parse().unwrap(), kind: MediaKind::Unsaid, bytes };
    assert_eq!(choices(&source, top).unwrap()[0].to_string(), expected[0]);
    // What is not seen to its end is refused.
    let many: Vec<Value> =
        (0..200).map(|n| with(&images[0], "digest", json!(digest(&[n])))).collect();
    let gone = layout.blob(INDEX, "{}");
    layout.remove(&gone);
    for (entries, why) in [
        (&entries[5..], "it lists no image"),
        (&many[..], "it leads to more than 128"),
        (&[gone][..], "which is not there"),
    ] {
        let error = of(entries).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
