//! Compiles containerd's protocol files, which are in `proto/`, without protoc.
//!
//! Invariant: what is built depends on the files of this crate alone.

use std::error::Error;
use std::path::Path;

/// Those that are served, then those of containerd that are asked.
const SERVICES: [&str; 5] = [
    "services/snapshots/v1/snapshots.proto",
    "services/diff/v1/diff.proto",
    "services/content/v1/content.proto",
    "services/images/v1/images.proto",
    "services/leases/v1/leases.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(SERVICES, [Path::new("proto")])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .include_file("containerd.rs")
        .compile_fds(files)?;
    Ok(())
}
