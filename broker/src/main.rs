//! See the library: all of it is there.

use std::process::ExitCode;

fn main() -> ExitCode {
    forebay::main()
}
