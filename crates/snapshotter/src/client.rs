//! containerd, as its client: blobs that are written into its content store.
//!
//! A blob belongs to a namespace, and is collected unless a lease or another blob refers to it: so
//! what is written for a client is leased in its namespace until the client refers to it.
//!
//! Invariant: a blob is there as a whole, of the digest that was asked for, or it is not there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use stratafs::BlobDigest;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::grpc::pb::services::{content::v1 as content, leases::v1 as leases};
use content::content_client::ContentClient;
use leases::leases_client::LeasesClient;

/// Bytes in one message: containerd takes 16 MiB at most.
const AT_ONCE: usize = 1 << 20;

/// How long what is written for a caller stays without a reference of the caller's own.
const LEASED: Duration = Duration::from_secs(3600);

/// On a lease: when it ends, as RFC 3339 has times.
const EXPIRES: &str = "containerd.io/gc.expire";

/// The header with the namespace of who asks; containerd hands it on to plugins.
pub(crate) const NAMESPACE: &str = "containerd-namespace";
const LEASE: &str = "containerd-lease";

/// For whom something is done.
#[derive(Clone)]
pub(crate) struct Scope {
    namespace: MetadataValue<Ascii>,
    lease: MetadataValue<Ascii>,
}

impl Scope {
    /// A request in it.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE, self.namespace.clone());
        request.metadata_mut().insert(LEASE, self.lease.clone());
        request
    }
}

/// A blob to be written.
pub(crate) struct NewBlob {
    pub(crate) file: File,
    pub(crate) digest: BlobDigest,
    /// Bytes.
    pub(crate) size: u64,
    /// What names this write among all.
    pub(crate) reference: String,
    pub(crate) labels: HashMap<String, String>,
}

impl NewBlob {
    /// A small one.
    ///
    /// # Errors
    /// There is no place for an unnamed file.
    pub(crate) fn of_bytes(bytes: &[u8], labels: HashMap<String, String>) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        let digest = BlobDigest::from_bytes(Sha256::digest(bytes).into());
        let reference = format!("strata-import-{digest}");
        Ok(Self { file, digest, size: bytes.len() as u64, reference, labels })
    }
}

/// containerd, by its socket.
pub(crate) struct Containerd(pub(crate) PathBuf);

impl Containerd {
    /// A connection.
    pub(crate) async fn connect(&self) -> Result<Channel, Status> {
        let failed =
            |error| Status::unavailable(format!("cannot reach {}: {error}", self.0.display()));
        let endpoint = Endpoint::try_from(format!("unix://{}", self.0.display()));
        endpoint.map_err(failed)?.connect().await.map_err(failed)
    }

    /// A scope in that namespace, with a lease that ends by itself: containerd hands none of its
    /// clients' leases on to a plugin.
    pub(crate) async fn lease(&self, namespace: &str) -> Result<Scope, Status> {
        let namespace: MetadataValue<Ascii> = namespace
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{namespace:?} is no namespace")))?;
        let mut client = LeasesClient::new(self.connect().await?);
        let end = Timestamp::try_from(SystemTime::now() + LEASED)
            .map_err(|error| Status::internal(format!("the end of a lease: {error}")))?;
        let labels = [(EXPIRES.to_owned(), end.to_string())].into();
        let mut request = Request::new(leases::CreateRequest { id: String::new(), labels });
        request.metadata_mut().insert(NAMESPACE, namespace.clone());
        let lease = client.create(request).await?.into_inner().lease.unwrap_or_default();
        let lease = lease.id.parse().map_err(|_| Status::internal("a lease without a name"))?;
        Ok(Scope { namespace, lease })
    }

    /// Ends the lease of a scope, once what was done in it is referred to.
    pub(crate) async fn end(&self, scope: &Scope) -> Result<(), Status> {
        let mut client = LeasesClient::new(self.connect().await?);
        let id = scope.lease.to_str().unwrap_or_default().to_owned();
        client.delete(scope.request(leases::DeleteRequest { id, sync: false })).await.map(drop)
    }

    /// Writes a blob into the content store, unless it is there.
    pub(crate) async fn write(&self, scope: &Scope, blob: NewBlob) -> Result<(), Status> {
        let mut client = ContentClient::new(self.connect().await?);
        let labels = blob.labels.clone();
        let digest = blob.digest.to_string();
        let (sender, receiver) = mpsc::channel(2);
        let reading = tokio::task::spawn_blocking(move || send(&blob, &sender));
        let written = async {
            let request = scope.request(ReceiverStream::new(receiver));
            let mut answers = client.write(request).await?.into_inner();
            while answers.next().await.transpose()?.is_some() {}
            Ok(())
        };
        let written: Result<(), Status> = written.await;
        // What cannot be read comes first: containerd only says that the end is missing.
        reading.await.map_err(|_| Status::aborted("the blob was not read"))??;
        match written {
            Err(status) if status.code() == Code::AlreadyExists => {
                let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
                let update = content::UpdateRequest {
                    info: Some(content::Info { digest, labels, ..content::Info::default() }),
                    update_mask: Some(prost_types::FieldMask { paths }),
                };
                client.update(scope.request(update)).await.map(drop)
            }
            other => other,
        }
    }
}

/// Sends the parts of a blob, and at the end that it is whole.
fn send(blob: &NewBlob, to: &mpsc::Sender<content::WriteContentRequest>) -> Result<(), Status> {
    let message = |action: content::WriteAction, offset: u64, data: Vec<u8>| {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        content::WriteContentRequest {
            action: action.into(),
            r#ref: blob.reference.clone(),
            total: number(blob.size),
            expected: blob.digest.to_string(),
            offset: number(offset),
            data,
            labels: blob.labels.clone(),
        }
    };
    let mut at = 0;
    while at < blob.size {
        let length = AT_ONCE.min(usize::try_from(blob.size - at).unwrap_or(AT_ONCE));
        let mut data = vec![0; length];
        blob.file.read_exact_at(&mut data, at)?;
        if to.blocking_send(message(content::WriteAction::Write, at, data)).is_err() {
            return Ok(()); // containerd has ended it, and says why.
        }
        at += length as u64;
    }
    // Nobody may be there to be told.
    let _ = to.blocking_send(message(content::WriteAction::Commit, at, Vec::new()));
    Ok(())
}
