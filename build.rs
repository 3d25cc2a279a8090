//! How the agent's binary is linked. Makes no code and reads nothing but the target.
//!
//! A panic aborts in the agent (`[profile.agent]`), so its unwind tables are read by nobody: `unwind.ld` leaves them out,
//! 0.18 MiB less in every image. Only for x86-64, whose linker is GNU's; the one that builds for aarch64 does not know
//! EXCLUDE_FILE in a script that is inserted.
#![allow(clippy::print_stdout, reason = "how cargo is told")]

fn main() {
    println!("cargo::rerun-if-changed=unwind.ld");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    // Cargo does not say whether a panic aborts (CARGO_CFG_PANIC is always "unwind" here), but in this profile alone the
    // package is built for size.
    let agent = is("OPT_LEVEL", "z");
    if agent && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_ENV", "musl") {
        println!("cargo::rustc-link-arg-bin=imprint=-Wl,--no-eh-frame-hdr,-T,unwind.ld");
    }
}
