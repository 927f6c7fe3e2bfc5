//! A containerd for tests, which leases and can do nothing else.

use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::client::NAMESPACE;
use crate::grpc::pb::services::leases::v1 as leases;
use leases::leases_server::{Leases, LeasesServer};

type Answer<T> = Result<Response<T>, Status>;

/// It notes what it was asked for.
#[derive(Clone, Default)]
pub(crate) struct Leasing {
    /// The namespace of every lease.
    pub(crate) namespaces: Arc<Mutex<Vec<String>>>,
    /// Leases that were ended.
    pub(crate) ended: Arc<Mutex<Vec<String>>>,
}

impl Leasing {
    /// Answers at that socket for as long as the runtime is there.
    pub(crate) fn serve(&self, socket: &Path) {
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let server = Server::builder().add_service(LeasesServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
    }
}

#[tonic::async_trait]
impl Leases for Leasing {
    async fn create(
        &self,
        request: Request<leases::CreateRequest>,
    ) -> Answer<leases::CreateResponse> {
        let namespace = request.metadata().get(NAMESPACE).unwrap().to_str().unwrap();
        self.namespaces.lock().unwrap().push(namespace.to_owned());
        let lease = leases::Lease { id: "a".to_owned(), ..leases::Lease::default() };
        Ok(Response::new(leases::CreateResponse { lease: Some(lease) }))
    }

    async fn delete(&self, request: Request<leases::DeleteRequest>) -> Answer<()> {
        self.ended.lock().unwrap().push(request.into_inner().id);
        Ok(Response::new(()))
    }

    async fn list(&self, _: Request<leases::ListRequest>) -> Answer<leases::ListResponse> {
        Err(Status::unimplemented("list"))
    }

    async fn add_resource(&self, _: Request<leases::AddResourceRequest>) -> Answer<()> {
        Err(Status::unimplemented("add_resource"))
    }

    async fn delete_resource(&self, _: Request<leases::DeleteResourceRequest>) -> Answer<()> {
        Err(Status::unimplemented("delete_resource"))
    }

    async fn list_resources(
        &self,
        _: Request<leases::ListResourcesRequest>,
    ) -> Answer<leases::ListResourcesResponse> {
        Err(Status::unimplemented("list_resources"))
    }
}
