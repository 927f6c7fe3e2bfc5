//! Lists what in an image runs with more rights than its caller: setuid and setgid files, and
//! those with capabilities. Nothing is mounted, and nobody has to be root.
//!
//! ```text
//! cargo run --example setuid -- STORE IMAGE
//! ```

// An example prints, and reads its arguments.
#![allow(clippy::print_stdout, reason = "this is a program")]

use std::ops::ControlFlow;

use stratafs::{Engine, Kind, Lower};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(store), Some(name)) = (args.next(), args.next()) else {
        return Err("usage: setuid STORE IMAGE".into());
    };
    let image = Engine::new(store).image(&name)?;
    let mut failed = None;
    image.walk(&mut |path, node| {
        if node.stat.kind != Kind::Regular {
            return ControlFlow::Continue(());
        }
        let xattrs = match image.tree.xattrs(node.id) {
            Ok(xattrs) => xattrs,
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        };
        let capable = xattrs.iter().any(|(name, _)| name == b"security.capability");
        if capable || node.stat.perm & 0o6000 != 0 {
            let mark = if capable { " (capabilities)" } else { "" };
            println!("{:04o} {}:{} {path}{mark}", node.stat.perm, node.stat.uid, node.stat.gid);
        }
        ControlFlow::Continue(())
    })?;
    Ok(failed.map_or(Ok(()), Err)?)
}
