//! Tests of the view: its model, what it draws, and the facts under it.

#[path = "../../../../layer/tests/store/tars.rs"]
mod tars;

mod merged;
