//! Compiles containerd's protocol files, which are in `proto/`, without protoc.
//!
//! Invariant: what is built depends on the files of this crate alone.

use std::error::Error;
use std::path::Path;

const SERVICES: [&str; 2] =
    ["services/snapshots/v1/snapshots.proto", "services/diff/v1/diff.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(SERVICES, [Path::new("proto")])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .include_file("containerd.rs")
        .compile_fds(files)?;
    Ok(())
}
