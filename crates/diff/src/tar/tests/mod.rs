//! The reader against tars built by hand, by GNU tar, and by chance.

mod mutations;
mod real;
mod refused;
