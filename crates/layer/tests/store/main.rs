//! The layer store as its users see it: exact, shared, checked, safe against crashes.
//!
//! `common` makes tars and stores; `accepted` and `sparse_files` put every form of a tar through
//! one, and `members` reads them; every other module is one promise of the store. Some need another
//! process: it is this program once more, see [`common::child`].

#![allow(unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod accepted;
mod accounts;
mod common;
mod conformance;
mod crash;
mod damage;
mod escape;
mod exact;
mod file_systems;
mod index_bytes;
mod limits;
mod members;
mod pages;
mod rebuild;
mod removal;
mod sharing;
mod sparse_files;
mod spec_tar;
