//! Bakes the compile target into the binary: the ARM variants cannot be told apart by `cfg` alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").expect("cargo sets TARGET for build scripts");
    println!("cargo::rustc-env=REAGENT_TARGET={target}");
}
