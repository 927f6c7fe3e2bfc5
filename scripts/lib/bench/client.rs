//! The client side of the benchmarks that no standard tool covers.
//!
//! The model: the current directory is the tree under test, and one run does one kind of work
//! again and again with as little overhead as possible. Lists of paths come from a file, one on
//! each line, so that listing directories is not part of the work. Any failure ends it with
//! status 1.
//!
//! usage: client small|stat LIST           open+read+close, or lstat, each path
//!        client eight LIST                `small` by eight processes, each starting elsewhere
//!        client negative LIST PER         PER lookups of names that are not in each directory
//!        client seq FILE | client rand FILE COUNT     reads of 128 KiB, or of 4 KiB anywhere
//!        client storm DIR COUNT           create, write, stat and unlink COUNT files, 500 at once
//!        client probe DIR SECONDS FILE    absent names, one each millisecond, until FILE is there;
//!                                         prints the milliseconds of the slowest and the median

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["small", list] => small(list, 0),
        ["small", list, start] => small(list, number(start)),
        ["stat", list] => stat(list),
        ["eight", list] => eight(list),
        ["negative", list, per] => negative(list, number(per)),
        ["seq", file] => sequential(file),
        ["rand", file, count] => random(file, number(count)),
        ["storm", dir, count] => storm(Path::new(dir), number(count)),
        ["probe", dir, seconds, stop] => probe(dir, number(seconds), stop),
        _ => Err(io::Error::other("no such work")),
    };
    if let Err(error) = done {
        eprintln!("client {}: {error}", args.join(" "));
        std::process::exit(1);
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn paths(list: &str) -> io::Result<Vec<String>> {
    Ok(fs::read_to_string(list)?.lines().map(str::to_owned).collect())
}

fn small(list: &str, start: usize) -> io::Result<()> {
    let paths = paths(list)?;
    let mut buffer = vec![0; 256 * 1024];
    let start = start.min(paths.len());
    for path in paths[start..].iter().chain(&paths[..start]) {
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

fn stat(list: &str) -> io::Result<()> {
    for path in paths(list)? {
        fs::symlink_metadata(path)?;
    }
    Ok(())
}

fn eight(list: &str) -> io::Result<()> {
    let (me, many) = (std::env::current_exe()?, paths(list)?.len());
    let start = |n: usize| {
        Command::new(&me).args(["small", list, &(n * many / 8).to_string()]).spawn()
    };
    let mut children = (0..8).map(start).collect::<io::Result<Vec<_>>>()?;
    for child in &mut children {
        if !child.wait()?.success() {
            return Err(io::Error::other("one of the eight failed"));
        }
    }
    Ok(())
}

fn absent(path: &str) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other(format!("{path} is there"))),
    }
}

fn negative(list: &str, per: usize) -> io::Result<()> {
    for dir in paths(list)? {
        for n in 0..per {
            absent(&format!("{dir}/not-there-{n}"))?;
        }
    }
    Ok(())
}

fn sequential(file: &str) -> io::Result<()> {
    let mut file = File::open(file)?;
    let mut buffer = vec![0; 128 * 1024];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn random(file: &str, count: usize) -> io::Result<()> {
    let file = File::open(file)?;
    let pages = file.metadata()?.len() / 4096;
    let mut buffer = [0; 4096];
    let mut state = 88_172_645_463_325_252_u64;
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.read_exact_at(&mut buffer, state % pages * 4096)?;
    }
    Ok(())
}

fn storm(dir: &Path, count: usize) -> io::Result<()> {
    let name = |n: usize| dir.join(format!("storm-{n}"));
    for start in (0..count).step_by(500) {
        let batch = start..(start + 500).min(count);
        for n in batch.clone() {
            let mut file = OpenOptions::new().write(true).create_new(true).open(name(n))?;
            file.write_all(b"a few bytes\n")?;
        }
        for n in batch.clone() {
            fs::symlink_metadata(name(n))?;
        }
        for n in batch {
            fs::remove_file(name(n))?;
        }
    }
    Ok(())
}

fn probe(dir: &str, seconds: usize, stop: &str) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let mut took = Vec::new();
    while !Path::new(stop).exists() && Instant::now() < end {
        let start = Instant::now();
        absent(&format!("{dir}/probe-{}", took.len()))?;
        took.push(start.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    took.sort();
    let ms = |at: usize| took.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e3);
    println!("{:.3} {:.3}", ms(took.len().saturating_sub(1)), ms(took.len() / 2));
    Ok(())
}
