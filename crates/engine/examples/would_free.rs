//! Loads an archive and tells what removing each of its images would free, to the byte.
//!
//! ```text
//! cargo run --example would_free -- STORE ARCHIVE
//! ```

// An example prints, and reads its arguments.
#![allow(clippy::print_stdout, reason = "this is a program")]

use stratafs::{Engine, Quiet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(store), Some(archive)) = (args.next(), args.next()) else {
        return Err("usage: would_free STORE ARCHIVE".into());
    };
    let engine = Engine::new(store);
    for image in engine.load(&archive, &Quiet)? {
        let id = image.id.to_string();
        let removal = engine.would_free(&[&id])?;
        println!(
            "{id}: {} layers, {} new; removing it frees {} bytes on disk, {} layers and {} files",
            image.layers.len(),
            image.layers.iter().filter(|layer| !layer.existed).count(),
            removal.total().bytes,
            removal.layers.len(),
            removal.files,
        );
    }
    Ok(())
}
