//! `make build-all`: what becomes of each line of the file `targets`; `make build-all-docker` when it is broken off. The
//! scripts are the real ones; of the tools that take minutes there are stand-ins here.

use std::time::Duration;

use rustix::process::Signal;
use testkit::process::Process;

use super::workshop::Workshop;

const SCRIPTS: [&str; 5] = [
    "scripts/build-all",
    "scripts/build",
    "scripts/platform",
    "scripts/setup",
    // Promises how large an agent is at most.
    "docs/SPECIFICATION.md",
];

/// Makes empty programs. Does not get along with ARM64, and makes agents for ARMv6 that no device has room for.
const CARGO: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in
    --target) triples="$triples $2" ;;
    --package) name=$2 ;;
  esac
  shift
done
for triple in $triples; do
  case $triple in aarch64-*) echo "it does not compile" >&2; exit 101 ;; esac
  mkdir -p "target/$triple/release"
  : >"target/$triple/release/$name"
  case $triple in arm-*) truncate -s 100M "target/$triple/release/$name" ;; esac
done
"#;

/// A tree in which everything can be built for these triples, and nothing can be installed for others.
fn workshop(triples: &[&str]) -> Workshop {
    let workshop = Workshop::new();
    workshop.bring(&SCRIPTS);
    let tools = workshop.program("cargo", CARGO);
    let rust = format!("{tools}/rust");
    for triple in triples {
        std::fs::create_dir_all(format!("{rust}/lib/rustlib/{triple}/lib")).unwrap();
    }
    workshop.program("rustc", &format!("#!/bin/sh\necho {rust}\n"));
    workshop.program("rustup", "#!/bin/sh\nexit 1\n");
    let version = "sed -n 's/^zigbuild_version=/cargo-zigbuild /p' scripts/setup";
    let zigbuild = workshop.program("cargo-zigbuild", &format!("#!/bin/sh\n{version}\n"));
    workshop.link("target/zig-venv/bin", &zigbuild);
    workshop.with_tools(&tools)
}

/// The lines at the end, without who says them.
fn summary(output: &str) -> Vec<String> {
    let said = output.lines().filter_map(|line| line.strip_prefix("build-all: "));
    said.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn a_build_of_every_platform_says_of_each_what_came_of_it() {
    let workshop = workshop(&[
        "x86_64-unknown-linux-musl",
        "aarch64-unknown-linux-musl",
        "arm-unknown-linux-musleabi",
    ]);
    let list = "linux/arm64\n\nlinux/arm/6\nlinux/arm/5\ndarwin/arm64\nlinux/vax\nlinux/amd64";
    workshop.write("targets", list.as_bytes());
    workshop.write("build/reagent-linux-armv5", b"of an earlier build");
    let done = workshop.make(&["build-all"]);
    assert_ne!(done.code, 0, "{done:?}");
    assert_eq!(
        summary(&done.stdout),
        [
            "linux/arm64 FAILED: see above",
            "linux/arm/6 FAILED: the binary is too large",
            "linux/arm/5 missing: Rust has no standard library for armv5te-unknown-linux-musleabi: \
             rustup target add armv5te-unknown-linux-musleabi",
            "darwin/arm64 missing: linking for macOS takes Apple's SDK",
            "linux/vax FAILED: there is no platform linux/vax",
            "linux/amd64 built",
        ],
        "{done:?}"
    );
    assert!(done.stderr.contains("it does not compile"), "{done:?}");
    for name in ["reagent-linux-amd64", "studio-linux-amd64"] {
        assert_eq!(workshop.read(&format!("build/{name}")), "");
    }
    for name in ["reagent-linux-arm64", "reagent-linux-armv5"] {
        assert!(!workshop.has(&format!("build/{name}")), "{name}");
    }
}

#[test]
fn what_this_machine_cannot_build_is_named_and_is_a_failure_only_when_there_is_nothing_else() {
    let workshop = workshop(&["x86_64-unknown-linux-musl"]);
    workshop.write("targets", b"darwin/amd64\nlinux/amd64\n");
    let done = workshop.make(&["build-all"]).ok();
    let missing = "darwin/amd64 missing: linking for macOS takes Apple's SDK";
    assert_eq!(summary(&done.stdout), [missing, "linux/amd64 built"], "{done:?}");

    workshop.write("targets", b"darwin/amd64\n");
    let done = workshop.make(&["build-all"]);
    assert_ne!(done.code, 0, "{done:?}");
    assert_eq!(summary(&done.stdout), [missing], "{done:?}");
    assert!(done.stderr.contains("build-all: nothing was built"), "{done:?}");
}

/// Has a container in which nothing hears a signal: only its removal ends the client.
const DOCKER: &str = r#"#!/bin/sh
case $1 in
  run)
    trap '' INT TERM
    echo $$ >"$0.container"
    echo building
    exec sleep 1000 ;;
  rm)
    [ -e "$0.container" ] || exit 0
    kill -KILL "$(cat "$0.container")"
    rm "$0.container" ;;
esac
"#;

#[test]
fn a_build_in_a_container_that_is_broken_off_ends_at_once_and_leaves_none() {
    let workshop = Workshop::new();
    workshop.bring(&["scripts/build-all-docker"]);
    let tools = workshop.program("docker", DOCKER);
    let workshop = workshop.with_tools(&tools);
    workshop.git(&["init", "--quiet"]);
    workshop.git(&["commit", "--quiet", "--allow-empty", "--message", "a release"]);
    let mut command = workshop.script("scripts/build-all-docker");
    let mut build = Process::start("build-all-docker", &mut command);
    build.wait_for_line("building", Duration::from_secs(20));
    // Somebody has no patience.
    for _ in 0..2 {
        build.signal_all(Signal::INT);
    }
    assert_eq!(build.wait(Duration::from_secs(20)).code(), Some(130));
    let container = std::path::Path::new(&tools).join("docker.container");
    assert!(!container.exists(), "{:?}", build.output());
}
