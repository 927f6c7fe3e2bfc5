//! `strata explore`: an image in a terminal, layer by layer.

#[cfg(test)]
mod tests;
