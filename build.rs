//! How the program is linked; the figures are in docs/performance.md.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // What unwinds for a panic's backtrace comes with the program, not as a library that every start
    // would load: the name that rustc asks for leads to the static one.
    let dir = std::env::var("OUT_DIR").expect("cargo says where");
    let script = format!("{dir}/libgcc_s.so");
    std::fs::write(script, "INPUT(-lgcc_eh -lgcc)\n")
        .expect("cargo's own directory can be written");
    println!("cargo::rustc-link-search=native={dir}");
    // Addresses to be relocated as a bitmap (glibc 2.36; a linker without it says so and goes on).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // Relocated constants and data begin with a page of their own each, so that they lie in as few as
    // can be (lld; others go on without it).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,separate-loadable-segments");
}
