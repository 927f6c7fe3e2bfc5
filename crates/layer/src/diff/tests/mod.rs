//! The reader against tars built by hand, by GNU tar, and by chance.

mod accepted;
mod mutations;
mod real;
mod refused;
mod sparse_files;
