//! The `atoll` program: reads the command line, runs it, and turns the outcome into an exit code.

/// Gives memory back by decay and keeps mixed sizes from fragmenting (see `docs/decisions`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    atoll::cli::main()
}
