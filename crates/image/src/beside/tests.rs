//! What stands beside an image, where it is too much and where it is of another kind.

use std::cell::Cell;

use serde_json::{Value, json};
use strata_testkit::layout::{INDEX, Layout, MANIFEST, tar_of};

use super::*;
use crate::digest::sha256;
use crate::source::ImageSource;
use crate::spec::SourceSpec;

/// As many referrers as there may be, each with a signature and `padding` blanks.
struct Many {
    padding: usize,
    payload: usize,
    /// Signatures that were asked for.
    asked: Cell<usize>,
}

impl Beside for Many {
    fn label(&self) -> &str {
        "many"
    }

    fn tagged(&self, _: &str) -> Result<Option<Companion>> {
        Ok(None)
    }

    fn referrers(&self, subject: BlobDigest, take: &mut TakeCompanion<'_>) -> Result<bool> {
        for number in 0..COUNT_MAX {
            let layer = descriptor("application/vnd.dev.sigstore.bundle.v0.3+json", b"x");
            let manifest = json!({
                "layers": [layer], "subject": {"digest": subject.to_string(), "size": 1},
                "number": number,
            });
            let mut manifest = manifest.to_string().into_bytes();
            manifest.resize(manifest.len() + self.padding, b' ');
            take(Companion::read("many", None, sha256(&manifest), manifest)?)?;
        }
        Ok(false)
    }

    fn bytes(&self, _: &Descriptor, _: u64) -> Result<Vec<u8>> {
        self.asked.set(self.asked.get() + 1);
        Ok(vec![0; self.payload])
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(bytes).to_string(), "size": bytes.len()})
}

/// Each is bounded, and so is their number; the product of these is gigabytes.
#[test]
fn all_together_take_no_more_memory_than_is_said() {
    let many = |padding, payload| Many { padding, payload, asked: Cell::new(0) };
    let carried = |many| companions(Box::new(many), sha256(b"image")).map(|_| ());
    // Nobody refers to the referrers.
    let error = carried(many(1 << 20, 0)).unwrap_err().to_string();
    assert!(error.contains("more than 67108864") && error.contains("--signatures none"), "{error}");
    let found = |many: &Many| {
        let mut room = BesideRoom::new(many.label(), "--insecure-policy");
        signatures(many, sha256(b"image"), &mut room).map(|found| found.len())
    };
    let large = many(0, SIGNATURE_MAX as usize);
    let error = found(&large).unwrap_err().to_string();
    assert!(error.contains("more than 67108864") && error.contains("--insecure-policy"), "{error}");
    assert_eq!(large.asked.get(), 17);
    // Of manifests that are searched nothing stays but the signatures.
    assert_eq!(found(&many(1 << 20, 100)).unwrap(), COUNT_MAX);
}

/// Its manifests are not what refers to the image, so they would stay where they are.
#[test]
fn an_index_that_refers_to_an_image_is_not_left_out_unsaid() {
    let layout = Layout::new("x");
    let image = layout.image(&[&tar_of(&[("a", "1")])], "linux/amd64");
    let other = layout.image(&[&tar_of(&[("b", "1")])], "linux/amd64");
    let refer = |key: &str, value: Value| {
        let mut document = json!({"schemaVersion": 2, "subject": image});
        document[key] = value;
        document.to_string()
    };
    let index = layout.blob(INDEX, refer("manifests", json!([other])));
    let plain = layout.blob(MANIFEST, refer("layers", json!([])));
    let all = |entries: &[Value]| {
        layout.index(entries);
        let scratch = || -> Result<std::fs::File> { panic!("a directory needs no scratch file") };
        let spec = SourceSpec::path(layout.root());
        let source = ImageSource::open(&spec, &scratch, &Default::default())?;
        let of = image["digest"].as_str().unwrap().parse().unwrap();
        companions(Box::new(LayoutSide::new(&source)?), of).map(|all| all.descriptors().len())
    };
    assert_eq!(all(&[image.clone(), plain.clone()]).unwrap(), 1);
    let error = all(&[image.clone(), plain, index.clone()]).unwrap_err();
    let digest = index["digest"].as_str().unwrap();
    assert!(matches!(&error, Error::Signatures { why, .. } if why.contains(digest)), "{error}");
}
