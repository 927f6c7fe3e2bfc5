//! Configs and manifests as Go's tools take them, all the way: loaded, shown, saved, loaded again,
//! and continued by a layer.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers are not #[test] functions.

use serde_json::json;
use strata_image::{
    CheckedStore, DeriveOptions, ImageConfig, LoadOptions, Loaded, Saved, SourceSpec, derive, load,
    save,
};
use strata_layer::{Event, Progress, Store};
use strata_testkit::layout::{CONFIG, LAYER, Layout, MANIFEST, named, tar_of};
use strata_testkit::{digest, fixture};
use strata_tree::BlobDigest;

struct Silent;

impl Progress for Silent {
    fn event(&self, _: &str, _: Event) {}
    fn warning(&self, _: &str, _: &str) {}
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

fn take(store: &Store, path: &std::path::Path) -> Result<Vec<Loaded>, strata_image::Error> {
    load(CheckedStore::unchecked(store), &SourceSpec::path(path), &LoadOptions::default(), &Silent)
}

/// A layout of one image whose config and manifest are these bytes; `DIFF` stands for the diff id,
/// `CONFIG` and `LAYER` for the descriptors.
fn layout(config: &[u8], manifest: &[u8]) -> (Layout, String) {
    let replace = |text: &[u8], what: &str, with: &str| {
        let at = text.windows(what.len()).position(|part| part == what.as_bytes());
        let at = at.unwrap_or_else(|| panic!("no {what}"));
        [&text[..at], with.as_bytes(), &text[at + what.len()..]].concat()
    };
    let layout = Layout::new("odd");
    let diff = tar_of(&[("a", "1")]);
    let config = replace(config, "DIFF", &digest(&diff));
    let id = digest(&config);
    let manifest = replace(manifest, "CONFIG", &layout.blob(CONFIG, config).to_string());
    let manifest = replace(&manifest, "LAYER", &layout.blob(LAYER, &diff).to_string());
    layout.index(&[named(&layout.blob(MANIFEST, manifest), "1")]);
    (layout, id)
}

/// The length alone was compared, so an archive that nobody can load was a success.
#[test]
fn a_damaged_layer_is_not_saved() {
    let (dir, store) = store();
    let (layout, id) = layout(br#"{"os":"linux","rootfs":{"diff_ids":["DIFF"]}}"#, PLAIN);
    let loaded = take(&store, layout.root()).unwrap();
    let image = strata_image::resolve_image(&store, &id).unwrap();
    let save = || {
        let (mut out, saved) = (Vec::new(), Saved { image: image.clone(), names: vec![] });
        save(&store, &[saved], &mut out).map_err(|error| error.to_string())?;
        Ok::<_, String>(out)
    };
    let whole = save().unwrap();
    let layer = loaded[0].layers[0].diff_id;
    let layer = dir.path().join("store/layers").join(layer.hex());
    let mut refused = Vec::new();
    for name in ["diff/a", "headers.zst"] {
        let path = layer.join(name);
        let was = std::fs::read(&path).unwrap();
        for at in 0..was.len() {
            let mut damaged = was.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            match save() {
                Ok(saved) => assert!(saved == whole, "byte {at} of {name}"),
                Err(error) => refused.push((name, error)),
            }
        }
        std::fs::write(&path, &was).unwrap();
    }
    assert!(refused.iter().any(|(name, _)| *name == "diff/a"));
    assert!(refused.len() > 40, "{refused:?}");
    save().unwrap();
}

const PLAIN: &[u8] = br#"{"schemaVersion":2,"config":CONFIG,"layers":[LAYER]}"#;

#[test]
fn what_loads_is_shown_saved_and_continued() {
    let deep = format!("{}{}", "[".repeat(9000), "]".repeat(9000));
    let start = r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["DIFF"]}"#;
    let configs = [
        [start.as_bytes(), b",\"author\":\"Ren\xe9\",\"config\":{\"Labels\":{\"a\":\"\xff\"}}}"]
            .concat(),
        format!(r#"{start},"config":{{"Labels":{{"d":"cut \ud83d"}}}},"x":1e999,"y":{deep}}}"#)
            .into(),
        format!(r#"{start},"config":{{"x":1{},"y":{deep}}}}}"#, "0".repeat(400)).into(),
        format!(r#"{start},"Config":{{"ENV":["A=b"]}},"history":[null],"created":17}}"#).into(),
        format!(r#"{start},"rootfs":{{"type":"layers"}},"OS":"linux","config":null}}"#).into(),
    ];
    let manifests = [
        PLAIN.to_vec(),
        b"{\"config\":CONFIG,\"Layers\":[LAYER],\"annotations\":{\"\\ud83d\":\"\xe9\",\"n\":null}}"
            .to_vec(),
        format!(r#"{{"layers":[],"CONFIG":CONFIG,"layers":[LAYER],"x":{deep}}}"#)
            .replacen("\"CONFIG\"", "\"Config\"", 1)
            .into(),
    ];
    let (_dir, store) = store();
    for (at, config) in configs.iter().enumerate() {
        for manifest in &manifests {
            let (layout, id) = layout(config, manifest);
            let loaded = take(&store, layout.root()).unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(loaded[0].id.to_string(), id, "{at}");
            let document = ImageConfig::document(&store, &loaded[0].id).unwrap();
            assert_eq!(
                document["rootfs"]["diff_ids"],
                json!([loaded[0].layers[0].diff_id.to_string()])
            );
            serde_json::to_string_pretty(&document).unwrap();
            let image = strata_image::resolve_image(&store, &id).unwrap();
            let (mut archive, saved) = (Vec::new(), Saved { image: image.clone(), names: vec![] });
            save(&store, &[saved], &mut archive).unwrap();
            let again = take(&store, &layout.tar_file("again.tar", &archive)).unwrap();
            assert_eq!(again[0].id.to_string(), id, "{at}");
            let top = tar_of(&[("b", "2")]);
            let name = "derived:1".parse().unwrap();
            let options = DeriveOptions::default();
            let derived = derive(
                CheckedStore::unchecked(&store),
                &image,
                Box::new(&top[..]),
                Some(&name),
                &options,
                &Silent,
            )
            .unwrap();
            let made = ImageConfig::of(&store, &derived.id).unwrap();
            assert_eq!(made.diff_ids().len(), 2, "{at}");
            let raw = store.blob(&derived.id.into()).unwrap();
            let kept = |part: &str| String::from_utf8_lossy(&raw).contains(part);
            assert!(kept("1e999") == (at == 1) && kept(&"0".repeat(400)) == (at == 2), "{at}");
        }
    }
}

#[test]
fn what_is_shown_is_what_go_reads() {
    let (_dir, store) = store();
    let config = br#"{"OS":"linux","rootfs":{"diff_ids":["DIFF"]},"config":{"env":["A=b"]},
                      "Config":{"Labels":{"d":"cut \ud83d"},"Memory":1e999}}"#;
    let (layout, _) = layout(config, PLAIN);
    let loaded = take(&store, layout.root()).unwrap();
    let document = ImageConfig::document(&store, &loaded[0].id).unwrap();
    assert_eq!(document["os"], "linux");
    assert_eq!(
        document["config"],
        json!({"Env": ["A=b"], "Labels": {"d": "cut \u{fffd}"}, "Memory": "1e999"})
    );
}

#[test]
fn what_go_refuses_is_refused() {
    let (_dir, store) = store();
    let rootfs = r#""rootfs":{"diff_ids":["DIFF"]}"#;
    for (config, why) in [
        (format!("\u{feff}{{{rootfs}}}"), "a byte order mark"),
        (format!("{{{rootfs}}}\0"), "something follows the document"),
        (format!(r#"{{{rootfs},"x":NaN}}"#), "expected a value"),
        (format!(r#"{{{rootfs},"x":{}}}"#, "[".repeat(10_001)), "more than 10000 levels"),
        (format!(r#"{{{rootfs},"RootFS":null}}"#), "rootfs stands there twice"),
        (format!(r#"{{{rootfs},"os":["linux"]}}"#), "os: invalid type: sequence"),
    ] {
        let (layout, _) = layout(config.as_bytes(), PLAIN);
        let error = take(&store, layout.root()).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    assert_eq!(store.layers().unwrap(), []);
}

#[test]
fn an_image_that_went_after_it_was_listed_has_no_config() {
    let (_dir, store) = store();
    let id = take(&store, &fixture("busybox-gzip.oci.tar")).unwrap()[0].id;
    let config = ImageConfig::of_listed(&store, &id).unwrap().unwrap();
    assert_eq!(config.id(), id);
    // A config that is gone while the image is there is a fault of the store.
    let blob = store.root().join("blobs/sha256").join(BlobDigest::from(id).hex());
    std::fs::rename(&blob, blob.with_extension("away")).unwrap();
    ImageConfig::of_listed(&store, &id).unwrap_err();
    std::fs::rename(blob.with_extension("away"), &blob).unwrap();
    store.images().remove(&id).unwrap();
    assert_eq!(ImageConfig::of_listed(&store, &id).unwrap(), None);
}
