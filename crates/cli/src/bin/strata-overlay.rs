//! The program `strata-overlay`, built with `strata`: all of it is the crate of that name.

fn main() -> std::process::ExitCode {
    strata_overlay::main()
}
