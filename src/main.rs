//! The program. All it does is in the library.

use std::process::ExitCode;

/// The C library's allocator makes threads wait for each other as soon as one frees what another has made.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    taskset_guardian::cli::main()
}
