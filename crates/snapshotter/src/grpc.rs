//! containerd's services over gRPC: translated, each call on a thread that may wait.
//!
//! Invariants: nothing is decided here; no call of the engine is made on the runtime's thread; an
//! error becomes a status in one place (`error.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stratafs::PackedDiff;
use tonic::{Code, Request, Response, Status};

use crate::apply::{self, ContentStore, DescribedBlob};
use crate::client::{Containerd, NAMESPACE, NewBlob};
use crate::differ::{self, DiffForm};
use crate::error::{Error, Result};
use crate::filter::SnapshotFilters;
use crate::labels;
use crate::memory;
use crate::metrics::Metrics;
use crate::places::SnapshotMount;
use crate::snapshots::{LabelMask, Snapshots};
use crate::state::{Labels, SnapshotKind, SnapshotRow};

use pb::services::diff::v1 as diff;
use pb::services::snapshots::v1 as api;

/// What the protocol files say.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub(crate) mod wire {
    tonic::include_proto!("containerd");
}
pub(crate) use wire::containerd as pb;

/// How long nothing has to be put above a snapshot until it is the top of an image: a client that
/// unpacks one layer after the other prepares the next one at once.
const NOTHING_ABOVE: Duration = Duration::from_millis(100);

/// Calls that take memory for a layer or a tree.
const LARGE: [&str; 4] = ["Apply", "Commit", "Diff", "names"];

/// How long after the last such call memory is given back: its thread has ended by then.
const MEMORY_IDLE: Duration = Duration::from_secs(3);

/// Snapshots in one message of a listing.
const AT_ONCE: usize = 100;

/// Both services, and what they work with.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) content: Arc<ContentStore>,
    pub(crate) containerd: Arc<Containerd>,
    pub(crate) metrics: Arc<Metrics>,
    /// How many calls have taken much memory.
    pub(crate) large: Arc<AtomicU64>,
}

impl Services {
    /// Does work that may wait, elsewhere.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> std::result::Result<T, Status> {
        let services = self.clone();
        let begun = Instant::now();
        let done = tokio::task::spawn_blocking(move || work(&services)).await;
        let done = done.unwrap_or(Err(Error::BrokenOff));
        // A layer that is there, and a name that is not, are answers.
        let failed = !matches!(
            &done,
            Ok(_) | Err(Error::AlreadyExists(_) | Error::NotFound(_) | Error::NotImplemented(_))
        );
        self.metrics.count(what, begun.elapsed(), failed);
        if let Err(error) = &done {
            tracing::debug!("{what}: {error}");
        }
        if LARGE.contains(&what) {
            self.give_back_soon();
        }
        Ok(done?)
    }

    /// Gives memory back unless there is another such call before.
    fn give_back_soon(&self) {
        let large = Arc::clone(&self.large);
        let number = large.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move {
            tokio::time::sleep(MEMORY_IDLE).await;
            if large.load(Ordering::Relaxed) == number {
                // It takes a moment. Nobody has to be told if it could not be done.
                let _ = tokio::task::spawn_blocking(memory::give_back).await;
            }
        });
    }

    /// Removes what has been kept for long enough.
    pub(crate) async fn sweep(&self) -> std::result::Result<(), Status> {
        self.run("sweep", |to| to.snapshots.cleanup()).await
    }

    /// Writes the names of an image that was pulled before its first container asks for them. `top`
    /// says that the snapshot is known to be the last of its image.
    fn write_names_soon(&self, name: String, top: bool) {
        let services = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(NOTHING_ABOVE).await;
            // Whoever needs them then writes them, and is told what is wrong.
            let _ = services.run("names", move |to| to.snapshots.write_names(&name, top)).await;
        });
    }

    async fn prepare(
        &self,
        kind: SnapshotKind,
        key: String,
        parent: String,
        labels: impl IntoIterator<Item = (String, String)>,
    ) -> std::result::Result<Vec<pb::types::Mount>, Status> {
        let labels: Labels = labels.into_iter().collect();
        let what = if kind == SnapshotKind::View { "View" } else { "Prepare" };
        let (unpacked, top) = (labels.get(labels::REF).cloned(), labels::is_top(&labels));
        let work = move |to: &Self| to.snapshots.prepare(kind, &key, &parent, &labels);
        let prepared = self.run(what, work).await;
        if let (Err(status), Some(name)) = (&prepared, unpacked)
            && status.code() == Code::AlreadyExists
        {
            self.write_names_soon(name, top);
        }
        Ok(prepared?.into_iter().map(to_wire).collect())
    }
}

fn to_wire(mount: SnapshotMount) -> pb::types::Mount {
    let SnapshotMount { kind, source, options } = mount;
    pb::types::Mount { r#type: kind, source, target: String::new(), options }
}

fn from_wire(mount: pb::types::Mount) -> SnapshotMount {
    SnapshotMount { kind: mount.r#type, source: mount.source, options: mount.options }
}

fn time(nanoseconds: i64) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).ok()?;
    Some(prost_types::Timestamp { seconds: nanoseconds.div_euclid(1_000_000_000), nanos })
}

fn info(snapshot: SnapshotRow) -> api::Info {
    let kind = match snapshot.kind {
        SnapshotKind::View => api::Kind::View,
        SnapshotKind::Active => api::Kind::Active,
        SnapshotKind::Committed => api::Kind::Committed,
    };
    api::Info {
        name: snapshot.name,
        parent: snapshot.parent,
        kind: kind.into(),
        created_at: time(snapshot.created),
        updated_at: time(snapshot.updated),
        labels: snapshot.labels.into_iter().collect(),
    }
}

/// Which labels an update is of: by its mask, or all of them.
fn mask(mask: Option<prost_types::FieldMask>) -> Result<LabelMask> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    let mut named = Vec::new();
    for path in &paths {
        match path.strip_prefix("labels.") {
            Some(name) => named.push(name.to_owned()),
            None if path == "labels" => return Ok(LabelMask::All),
            None => {
                let why = format!("{path} of a snapshot cannot be changed");
                return Err(Error::InvalidArgument(why));
            }
        }
    }
    Ok(if paths.is_empty() { LabelMask::All } else { LabelMask::Named(named) })
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl api::snapshots_server::Snapshots for Services {
    async fn prepare(
        &self,
        request: Request<api::PrepareSnapshotRequest>,
    ) -> Answer<api::PrepareSnapshotResponse> {
        let api::PrepareSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let mounts = self.prepare(SnapshotKind::Active, key, parent, labels).await?;
        Ok(Response::new(api::PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<api::ViewSnapshotRequest>,
    ) -> Answer<api::ViewSnapshotResponse> {
        let api::ViewSnapshotRequest { key, parent, labels, .. } = request.into_inner();
        let mounts = self.prepare(SnapshotKind::View, key, parent, labels).await?;
        Ok(Response::new(api::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(&self, request: Request<api::MountsRequest>) -> Answer<api::MountsResponse> {
        let key = request.into_inner().key;
        let mounts = self.run("Mounts", move |to| to.snapshots.mounts(&key)).await?;
        let mounts = mounts.into_iter().map(to_wire).collect();
        Ok(Response::new(api::MountsResponse { mounts }))
    }

    async fn commit(&self, request: Request<api::CommitSnapshotRequest>) -> Answer<()> {
        let api::CommitSnapshotRequest { name, key, labels, .. } = request.into_inner();
        let labels: Labels = labels.into_iter().collect();
        let committed = name.clone();
        let work = move |to: &Self| to.snapshots.commit(&name, &key, &labels);
        self.run("Commit", work).await?;
        self.write_names_soon(committed, false);
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<api::RemoveSnapshotRequest>) -> Answer<()> {
        let key = request.into_inner().key;
        Ok(Response::new(self.run("Remove", move |to| to.snapshots.remove(&key)).await?))
    }

    async fn stat(
        &self,
        request: Request<api::StatSnapshotRequest>,
    ) -> Answer<api::StatSnapshotResponse> {
        let key = request.into_inner().key;
        let found = self.run("Stat", move |to| to.snapshots.stat(&key)).await?;
        Ok(Response::new(api::StatSnapshotResponse { info: Some(info(found)) }))
    }

    async fn update(
        &self,
        request: Request<api::UpdateSnapshotRequest>,
    ) -> Answer<api::UpdateSnapshotResponse> {
        let request = request.into_inner();
        let api::Info { name, labels, .. } = request.info.unwrap_or_default();
        let labels: Labels = labels.into_iter().collect();
        let mask = mask(request.update_mask)?;
        let work = move |to: &Self| to.snapshots.update(&name, &labels, &mask);
        let updated = self.run("Update", work).await?;
        Ok(Response::new(api::UpdateSnapshotResponse { info: Some(info(updated)) }))
    }

    type ListStream = tokio_stream::Iter<
        std::vec::IntoIter<std::result::Result<api::ListSnapshotsResponse, Status>>,
    >;

    async fn list(&self, request: Request<api::ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let filters = SnapshotFilters::parse(&request.into_inner().filters)?;
        let found = self.run("List", move |to| to.snapshots.list(&filters)).await?;
        let mut found: Vec<api::Info> = found.into_iter().map(info).collect();
        let mut messages = Vec::new();
        while !found.is_empty() {
            let rest = found.split_off(found.len().min(AT_ONCE));
            let info = std::mem::replace(&mut found, rest);
            messages.push(Ok(api::ListSnapshotsResponse { info }));
        }
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn usage(&self, request: Request<api::UsageRequest>) -> Answer<api::UsageResponse> {
        let key = request.into_inner().key;
        let usage = self.run("Usage", move |to| to.snapshots.usage(&key)).await?;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let (size, inodes) = (number(usage.bytes), number(usage.inodes));
        Ok(Response::new(api::UsageResponse { size, inodes }))
    }

    async fn cleanup(&self, _: Request<api::CleanupRequest>) -> Answer<()> {
        Ok(Response::new(self.run("Cleanup", |to| to.snapshots.cleanup()).await?))
    }
}

#[tonic::async_trait]
impl diff::diff_server::Diff for Services {
    async fn apply(&self, request: Request<diff::ApplyRequest>) -> Answer<diff::ApplyResponse> {
        let request = request.into_inner();
        let described = request.diff.unwrap_or_default();
        let mounts: Vec<SnapshotMount> = request.mounts.into_iter().map(from_wire).collect();
        let blob = DescribedBlob {
            media_type: described.media_type,
            digest: described.digest,
            size: described.size,
        };
        let work = move |to: &Self| apply::apply(&to.snapshots, &to.content, &blob, &mounts);
        let applied = self.run("Apply", work).await?;
        let applied = pb::types::Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
            digest: applied.diff_id.to_string(),
            size: i64::try_from(applied.size).unwrap_or(i64::MAX),
            annotations: described.annotations,
        };
        Ok(Response::new(diff::ApplyResponse { applied: Some(applied) }))
    }

    async fn diff(&self, request: Request<diff::DiffRequest>) -> Answer<diff::DiffResponse> {
        let asking = request.metadata().get(NAMESPACE).and_then(|name| name.to_str().ok());
        let asking = asking.map(str::to_owned);
        let request = request.into_inner();
        let dated = request.source_date_epoch.is_some();
        let form = DiffForm::of(&request.media_type, dated)?;
        let media_type = form.media_type.clone();
        let [left, right] = [request.left, request.right]
            .map(|mounts| mounts.into_iter().map(from_wire).collect::<Vec<SnapshotMount>>());
        let work = move |to: &Self| differ::diff(&to.snapshots, &left, &right, &form);
        let (namespace, packed) = self.run("Diff", work).await?;
        let PackedDiff { diff_id, digest, size, file } = packed;
        let reference = match request.r#ref {
            none if none.is_empty() => format!("strata-diff-{digest}"),
            reference => reference,
        };
        let mut labels = request.labels;
        labels.insert(labels::UNCOMPRESSED.to_owned(), diff_id.to_string());
        let blob = NewBlob { file, digest, size, reference, labels };
        let scope = self.containerd.lease(&asking.unwrap_or(namespace)).await?;
        self.containerd.write(&scope, blob).await?;
        self.snapshots.made_diff();
        let diff = pb::types::Descriptor {
            media_type,
            digest: digest.to_string(),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..Default::default()
        };
        Ok(Response::new(diff::DiffResponse { diff: Some(diff) }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use diff::diff_server::Diff as _;
    use strata_testkit::needs;
    use stratafs::Store;

    use super::*;
    use crate::args::LowerBackend;
    use crate::stand_in::Leasing;

    #[tokio::test]
    async fn a_diff_is_for_the_namespace_that_asks() {
        if !needs::root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let store = Store::open(&at("store")).unwrap();
        let (run, none) = (at("run"), Path::new("/nonexistent"));
        let run = (run.as_path(), LowerBackend::Auto);
        let snapshots = Snapshots::of_store(store, run, none, Duration::ZERO, None).unwrap();
        let view = |key: &str, parent: &str| {
            let mounts = snapshots.prepare(SnapshotKind::View, key, parent, &Labels::new());
            mounts.unwrap().into_iter().map(to_wire).collect::<Vec<_>>()
        };
        let (key, committed) = ("k8s.io/1/written", "k8s.io/2/committed");
        snapshots.prepare(SnapshotKind::Active, key, "", &Labels::new()).unwrap();
        let upper = snapshots.places.upper(snapshots.stat(key).unwrap().id);
        fs::write(upper.join("file"), "text").unwrap();
        snapshots.commit(committed, key, &Labels::new()).unwrap();
        let left = view("k8s.io/3/left", "");
        let right = view("k8s.io/4/right", committed);

        let leasing = Leasing::default();
        leasing.serve(&at("containerd"));
        let services = Services {
            snapshots: Arc::new(snapshots),
            content: Arc::new(ContentStore(at("content"))),
            containerd: Arc::new(Containerd(at("containerd"))),
            metrics: Arc::default(),
            large: Arc::default(),
        };
        for asking in [Some("default"), None] {
            let (left, right) = (left.clone(), right.clone());
            let asked = diff::DiffRequest { left, right, ..diff::DiffRequest::default() };
            let mut asked = Request::new(asked);
            if let Some(namespace) = asking {
                asked.metadata_mut().insert(NAMESPACE, namespace.parse().unwrap());
            }
            // It has no content store.
            let status = services.diff(asked).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{status}");
        }
        assert_eq!(*leasing.namespaces.lock().unwrap(), ["default", "k8s.io"]);
        for key in ["k8s.io/3/left", "k8s.io/4/right"] {
            services.snapshots.remove(key).unwrap();
        }
    }
}
