//! Docker's list, right and wrong.

use std::fs::File;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::find;
use crate::found::{FoundImage, Wanted};
use crate::limits::SourceLimits;
use crate::source::ImageSource;
use crate::spec::SourceSpec;
use strata_registry::Reference;
use strata_testkit::digest;
use strata_testkit::layout::{LAYER, Layout, tar_of, with};

/// An image in the old layout: its config's file name and its layer's.
fn old_image(layout: &Layout, content: &str) -> (String, String) {
    let layer = tar_of(&[("a", content)]);
    let config = layout.config(&[&layer], "linux/amd64");
    let name = format!("{}.json", &config["digest"].as_str().unwrap()[7..]);
    std::fs::rename(layout.blob_path(&config), layout.root().join(&name)).unwrap();
    let path = format!("{content}/layer.tar");
    layout.write(&path, layer);
    (name, path)
}

fn find(layout: &Layout, list: &Value, only: Option<&str>) -> Result<Vec<FoundImage>> {
    layout.write("manifest.json", list.to_string());
    let mut spec = SourceSpec::path(layout.root());
    if let Some(only) = only {
        spec = spec.only(only);
    }
    let scratch = || -> Result<File> { panic!("a directory needs no scratch file") };
    let source =
        ImageSource::open(&spec, &scratch, &SourceLimits { images: 8, ..SourceLimits::default() })?;
    find::find(&source, &Wanted { spec: &spec, platform: None })
}

fn names(found: &[FoundImage]) -> Vec<Vec<String>> {
    found.iter().map(|image| image.names.iter().map(Reference::familiar).collect()).collect()
}

#[test]
fn images_are_found_by_the_list() {
    let layout = Layout::new("x");
    let (one, one_layer) = old_image(&layout, "1");
    let (two, two_layer) = old_image(&layout, "2");
    let list = json!([
        {"Config": one, "RepoTags": ["x:1", "<none>:<none>"], "Layers": [one_layer]},
        {"Config": two, "RepoTags": null, "Layers": [two_layer]},
        {"Config": one, "RepoTags": ["quay.io/x:2", "x:1"], "Layers": [one_layer]},
    ]);
    let found = find(&layout, &list, None).unwrap();
    assert_eq!(names(&found), [vec!["x:1", "quay.io/x:2"], vec![]]);
    assert_eq!(found[0].config.id().to_string(), digest(&found[0].raw_config));
    assert!(found[0].layers[0].blob.is_none(), "an ID/ directory is no digest");
    let found = find(&layout, &list, Some("quay.io/x:2")).unwrap();
    assert_eq!(names(&found), [["quay.io/x:2"]]);
    assert!(matches!(find(&layout, &list, Some("y")), Err(Error::NoSuchName { .. })));
}

#[test]
fn blobs_and_their_sources_carry_digests_and_sizes() {
    let layout = Layout::new("x");
    let tar = tar_of(&[("a", "1")]);
    let config = layout.config(&[&tar], "linux/amd64");
    let layer = layout.blob(LAYER, &tar);
    let path = |descriptor: &Value| {
        format!("blobs/sha256/{}", &descriptor["digest"].as_str().unwrap()[7..])
    };
    let list = |source: Value| {
        json!([{"Config": path(&config), "RepoTags": [], "Layers": [path(&layer)],
                "LayerSources": {digest(&tar): source}}])
    };
    let found = find(&layout, &list(layer.clone()), None).unwrap();
    let (blob, size) = found[0].layers[0].blob.unwrap();
    assert_eq!((blob.to_string(), size), (digest(&tar), Some(tar.len() as i64)));
    let lie = list(with(&layer, "size", json!(-3)));
    let error = find(&layout, &lie, None).unwrap_err().to_string();
    assert!(error.contains("has a size of -3"), "{error}");
}

#[test]
fn a_config_is_what_its_bytes_are() {
    let layout = Layout::new("x");
    let (config, layer) = old_image(&layout, "1");
    let bytes = std::fs::read(layout.root().join(&config)).unwrap();
    // Nobody looks at the name; and Go's keys may be written in any case.
    let odd = String::from_utf8(bytes).unwrap().replace("\"rootfs\"", "\"RootFS\"");
    let name = format!("{}.json", "0f".repeat(32));
    layout.write(&name, &odd);
    let list = json!([{"config": name, "REPOTAGS": ["x"], "Layers": [layer]}]);
    let found = find(&layout, &list, None).unwrap();
    assert_eq!(found[0].config.id().to_string(), digest(odd.as_bytes()));
    assert_eq!(names(&found), [["x:latest"]]);
}

#[test]
fn damaged_lists_are_refused_with_the_reason() {
    let layout = Layout::new("x");
    let (config, layer) = old_image(&layout, "1");
    let item = |config: &str, tag: &str, layers: Value| -> Value {
        json!([{"Config": config, "RepoTags": [tag], "Layers": layers}])
    };
    let forged = format!("blobs/sha256/{}", "0f".repeat(32));
    layout.write(&forged, std::fs::read(layout.root().join(&config)).unwrap());
    for (list, reason) in [
        (json!({"schemaVersion": 2}), "skopeo's dir: format?"),
        (json!([{"RepoTags": []}]), "missing field `Config`"),
        (json!([]), "it is empty"),
        (item("absent.json", "x", json!([layer])), "names /absent.json, which is not there"),
        (item("../../../etc/hostname", "x", json!([layer])), "names /etc/hostname, which is not"),
        (item(&forged, "x", json!([layer])), "its digest is"),
        (item(&config, "x:y:z", json!([layer])), "\"x:y:z\" is not an image reference"),
        (item(&config, "x", json!([])), "image x:latest: the manifest has 0 layers"),
        (item(&config, "x", json!(["a\u{0}b"])), "NUL"),
        (json!(vec![item(&config, "x", json!([layer]))[0].clone(); 9]), "9, is more than 8"),
    ] {
        let error = find(&layout, &list, None).unwrap_err().to_string();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}
