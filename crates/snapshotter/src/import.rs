//! `strata-snapshotter import`: an image of the store becomes one of containerd.
//!
//! ```text
//! config, manifest   written into containerd's content store, the config with a reference to the
//!                    snapshot of the whole chain
//! each layer         Prepare with its chain id, through containerd: this program's daemon has the
//!                    layer and answers AlreadyExists, as for a pull
//! the image          created with its name, or made to name this manifest
//! ```
//!
//! No layer is copied or packed: a manifest that no registry gave names the plain tars, which are
//! not needed as long as the snapshots are there.
//!
//! Invariants: all is leased until the image, which comes last, refers to it; an import that fails
//! leases nothing any more.

use std::collections::HashMap;
use std::io::Write;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use stratafs::{BlobDigest, DiffId, Engine, ImageRecord, Store, chain_id};
use tonic::{Code, Status};

use crate::client::{Containerd, NewBlob, Scope};
use crate::grpc::pb::services::{images::v1 as images, snapshots::v1 as snapshots};
use crate::grpc::pb::types::Descriptor;
use crate::labels;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What to import, and where to.
#[derive(Debug, Args)]
pub(crate) struct GivenImageArgs {
    /// The image, by any of its names in the store
    #[arg(value_name = "IMAGE")]
    image: String,
    /// What containerd is to call it [default: its name in the store]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// containerd's namespace; k8s.io for Kubernetes
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// What containerd's configuration calls this snapshotter
    #[arg(long, value_name = "NAME", default_value = "strata")]
    snapshotter: String,
}

/// An image, as containerd is told of it.
struct Told {
    name: String,
    manifest: Vec<u8>,
    config: Vec<u8>,
    media_type: String,
    /// Chain ids, the shortest first.
    chains: Vec<String>,
}

/// Imports an image.
pub(crate) async fn import(
    engine: &Engine,
    containerd: &Containerd,
    args: &GivenImageArgs,
) -> Result<()> {
    let told = told(engine, args)?;
    let scope = containerd.lease(&args.namespace).await.map_err(said)?;
    let done = tell(containerd, &scope, &args.snapshotter, &told).await;
    let ended = containerd.end(&scope).await.map_err(said);
    done.and(ended)?;
    writeln!(std::io::stdout(), "{}", told.name)?;
    Ok(())
}

/// Tells containerd of an image.
async fn tell(
    containerd: &Containerd,
    scope: &Scope,
    snapshotter: &str,
    told: &Told,
) -> Result<()> {
    let snapshot = format!("{}{snapshotter}", labels::GC_SNAPSHOT);
    let of_config = told.chains.last().map(|chain| (snapshot, chain.clone()));
    let config = write(containerd, scope, &told.config, of_config.into_iter().collect()).await?;
    let of_manifest = [(format!("{}config", labels::GC_CONTENT), config.to_string())].into();
    let manifest = write(containerd, scope, &told.manifest, of_manifest).await?;
    let mut parent = String::new();
    for chain in &told.chains {
        let known = containerd.has_layer(scope, snapshotter, (&told.name, &parent, chain)).await;
        if !known.map_err(said)? {
            bail!("{snapshotter} has not the layer of {chain}: is it served from another store?");
        }
        parent.clone_from(chain);
    }
    let target = Descriptor {
        media_type: told.media_type.clone(),
        digest: manifest.to_string(),
        size: i64::try_from(told.manifest.len())?,
        ..Descriptor::default()
    };
    let image =
        images::Image { name: told.name.clone(), target: Some(target), ..images::Image::default() };
    containerd.put_image(scope, image).await.map_err(said)
}

fn said(status: Status) -> anyhow::Error {
    anyhow::anyhow!("containerd: {}", status.message())
}

/// What there is to tell of an image.
fn told(engine: &Engine, args: &GivenImageArgs) -> Result<Told> {
    let store = engine.store()?;
    let record = engine.image(&args.image)?.record;
    let tags = store.images().tags()?;
    let of_image = || tags.iter().filter(|(_, id)| *id == record.id).map(|(tag, _)| tag);
    // The name that was asked by, if it is one; else any.
    let asked = args.image.parse::<stratafs::Reference>().ok().and_then(|name| name.store_tag());
    let name =
        args.name.clone().or_else(|| of_image().find(|tag| Some(*tag) == asked.as_ref()).cloned());
    let Some(name) = name.or_else(|| of_image().next().cloned()) else {
        bail!("image {} has no name: say one with --name", record.id.short());
    };
    let mut layers = Vec::new();
    let mut chains = Vec::new();
    for layer in &record.layers {
        layers.push(*layer);
        chains.extend(chain_id(&layers).map(|chain| chain.to_string()));
    }
    let config = store.blob(&BlobDigest::from(record.id))?;
    let manifest = match &record.manifest {
        Some(manifest) => store.blob(manifest)?,
        None => made_manifest(&store, &record, &config)?,
    };
    let parsed: Value = serde_json::from_slice(&manifest).context("the manifest is no JSON")?;
    let media_type = parsed.get("mediaType").and_then(Value::as_str).unwrap_or(MANIFEST);
    Ok(Told { name, media_type: media_type.to_owned(), manifest, config, chains })
}

/// The manifest of an image that came without one.
fn made_manifest(store: &Store, record: &ImageRecord, config: &[u8]) -> Result<Vec<u8>> {
    let layer = |diff_id: &DiffId| -> Result<Value> {
        let size = store.layer(diff_id)?.map_or(0, |layer| layer.diff_size);
        Ok(json!({ "mediaType": LAYER, "digest": diff_id.to_string(), "size": size }))
    };
    let layers: Vec<Value> = record.layers.iter().map(layer).collect::<Result<_>>()?;
    let digest = record.id.to_string();
    let config = json!({ "mediaType": CONFIG, "digest": digest, "size": config.len() });
    Ok(serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
    }))?)
}

async fn write(
    containerd: &Containerd,
    scope: &Scope,
    bytes: &[u8],
    labels: HashMap<String, String>,
) -> Result<BlobDigest> {
    let blob = NewBlob::of_bytes(bytes, labels).context("cannot keep a document")?;
    let digest = blob.digest;
    containerd.write(scope, blob).await.map_err(said)?;
    Ok(digest)
}

impl Containerd {
    /// Whether a snapshotter has the layer of `image` that makes `chain` of the snapshot `parent`;
    /// then it is a snapshot in the scope.
    async fn has_layer(
        &self,
        scope: &Scope,
        snapshotter: &str,
        (image, parent, chain): (&str, &str, &str),
    ) -> Result<bool, Status> {
        let mut client = snapshots::snapshots_client::SnapshotsClient::new(self.connect().await?);
        let key = format!("{}strata-import {chain}", labels::UNPACK);
        let prepare = snapshots::PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.clone(),
            parent: parent.to_owned(),
            labels: [(labels::REF, chain), (labels::CRI_IMAGE, image)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        match client.prepare(scope.request(prepare)).await {
            Err(status) if status.code() == Code::AlreadyExists => Ok(true),
            Err(status) => Err(status),
            Ok(_) => {
                let snapshotter = snapshotter.to_owned();
                let remove = snapshots::RemoveSnapshotRequest { snapshotter, key };
                client.remove(scope.request(remove)).await.map(|_| false)
            }
        }
    }

    /// Makes an image, or has one of its name be this one.
    async fn put_image(&self, scope: &Scope, image: images::Image) -> Result<(), Status> {
        let mut client = images::images_client::ImagesClient::new(self.connect().await?);
        let create = images::CreateImageRequest { image: Some(image.clone()) };
        match client.create(scope.request(create)).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                let paths = vec!["target".to_owned()];
                let update = images::UpdateImageRequest {
                    image: Some(image),
                    update_mask: Some(prost_types::FieldMask { paths }),
                };
                client.update(scope.request(update)).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use stratafs::Quiet;

    use super::*;
    use crate::stand_in::Leasing;

    #[test]
    fn an_import_that_fails_leases_nothing_any_more() {
        let place = tempfile::tempdir().unwrap();
        let engine = Engine::new(place.path().join("store"));
        let loaded = engine.load(strata_testkit::fixture("cases.oci"), &Quiet).unwrap();
        let socket = place.path().join("s");
        let args = GivenImageArgs {
            image: loaded[0].id.to_string(),
            name: Some("a:1".to_owned()),
            namespace: "default".to_owned(),
            snapshotter: "strata".to_owned(),
        };
        let leasing = Leasing::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let failed = runtime.block_on(async {
            leasing.serve(&socket);
            import(&engine, &Containerd(socket.clone()), &args).await
        });
        assert!(failed.is_err());
        assert_eq!(*leasing.ended.lock().unwrap(), ["a"]);
    }
}
