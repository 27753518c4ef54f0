//! vsrun(8): start a server process properly and keep it running.

fn main() -> std::process::ExitCode {
    vsrun::launch::main()
}
