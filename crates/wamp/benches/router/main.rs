//! The router's figures of docs/SPECIFICATION.md, ours beside Crossbar.io's: one run, one machine, one load generator.
//! Run with `make bench-wamp`.
//!
//! The generator is one thread that writes and reads bytes; both routers run in processes of their own, so that each
//! one's CPU time can be told from the other's and from the generator's. CPU time per operation and the ratios of one
//! run are what machines agree on; rates depend on who else is using the cores.

mod events;
mod frame;
mod load;
mod peer;
mod report;
mod rpc;
mod scale;
mod sessions;
mod target;
mod usage;

use std::time::Duration;

use wamp::Codec;

use self::load::{Load, percentile};
use self::report::Bound::{AtLeast, AtMost};
use self::report::{info, peer, promise};
use self::target::Target;

/// Both routers prefer it, and so does a client that asks for speed.
const CODEC: Codec = Codec::MessagePack;

const MEGABYTE: f64 = 1024.0 * 1024.0;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == target::SERVE) {
        return target::serve();
    }
    // `cargo test --benches` runs this with a filter; figures are only for `cargo bench`.
    let all = arguments.len();
    arguments.retain(|argument| argument != "--bench");
    if arguments.len() == all {
        return;
    }
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(figures(&arguments));
}

/// Both routers inherit it.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may rise to the hard one");
}

/// All figures, or the groups that `only` names. With `alone` among the names Crossbar.io is left out.
async fn figures(only: &[String]) {
    let alone = only.iter().any(|name| name == "alone");
    let only: Vec<&str> = only
        .iter()
        .map(String::as_str)
        .filter(|name| *name != "alone")
        .collect();
    let wanted = |group: &str| only.is_empty() || only.contains(&group);
    let crossbar = (!alone).then(Target::crossbar);
    let crossbar = crossbar.as_ref();
    if wanted("latency") {
        latency(crossbar).await;
    }
    if wanted("calls") {
        calls(crossbar).await;
    }
    if wanted("events") {
        fan_outs(crossbar).await;
    }
    if wanted("joins") {
        joins(crossbar).await;
    }
    if wanted("in_flight") {
        many_in_flight().await;
    }
    // Sessions that are only there make a node slower: last of those that need one.
    if wanted("idle") {
        idle(crossbar).await;
    }
    if wanted("stalled") {
        stalled().await;
    }
    if wanted("scale") {
        scale().await;
    }
}

async fn latency(crossbar: Option<&Target>) {
    let ours = Target::ours();
    let mut times = rpc::one_at_a_time(&ours, CODEC, 5_000).await;
    promise(
        "rpc_latency_p50",
        percentile(&mut times, 0.5),
        "us",
        AtMost(160.0),
    );
    promise(
        "rpc_latency_p99",
        percentile(&mut times, 0.99),
        "us",
        AtMost(300.0),
    );
    if let Some(crossbar) = crossbar {
        let mut times = rpc::one_at_a_time(crossbar, CODEC, 1_000).await;
        peer("rpc_latency_p50_crossbar", percentile(&mut times, 0.5), "us");
        peer("rpc_latency_p99_crossbar", percentile(&mut times, 0.99), "us");
    }
}

async fn calls(crossbar: Option<&Target>) {
    let ours = Target::ours();
    // Eight callers with as many in flight together: every batch is an eighth as long.
    for (name, pairs, codec) in [
        ("rpc_64", 1, CODEC),
        ("rpc_8x8", 8, CODEC),
        ("rpc_64_json", 1, Codec::Json),
    ] {
        let plan = rpc::Plan {
            name,
            codec,
            pairs,
            in_flight: 64 / pairs,
            duration: Duration::from_secs(3),
        };
        let load = rpc::pipelined(&ours, plan).await;
        show(name, "call", load);
        let promised = name == "rpc_64";
        if promised {
            promise("rpc_64_cpu_per_call", load.cpu(), "us", AtMost(6.5));
        }
        if let Some(crossbar) = crossbar {
            let other = rpc::pipelined(crossbar, plan).await;
            show_peer(name, "call", other);
            if promised {
                let ratio = load.rate() / other.rate();
                promise("rpc_64_rate_of_crossbar", ratio, "x", AtLeast(16.0));
                let ratio = load.cpu() / other.cpu();
                promise("rpc_64_cpu_of_crossbar", ratio, "x", AtMost(0.05));
            }
        }
    }
}

async fn fan_outs(crossbar: Option<&Target>) {
    let ours = Target::ours();
    for (subscribers, in_flight) in [(1, 64), (100, 64), (1_000, 16)] {
        let plan = events::Plan {
            codec: CODEC,
            subscribers,
            in_flight,
            duration: Duration::from_secs(3),
        };
        let load = events::fan_out(&ours, plan).await;
        let name = format!("events_1_to_{subscribers}");
        show(&name, "delivery", load);
        let promised = subscribers == 100;
        if promised {
            promise(&format!("{name}_cpu_per_delivery"), load.cpu(), "us", AtMost(2.0));
        }
        if let Some(crossbar) = crossbar {
            let other = events::fan_out(crossbar, plan).await;
            show_peer(&name, "delivery", other);
            if promised {
                let ratio = load.cpu() / other.cpu();
                promise(&format!("{name}_cpu_of_crossbar"), ratio, "x", AtMost(0.2));
            }
        }
    }
}

/// Our rate and CPU time, and how far the generator was from its own limit.
fn show(name: &str, operation: &str, load: Load) {
    info(&format!("{name}_rate"), load.rate(), &format!("{operation}/s"));
    info(&format!("{name}_cpu"), load.cpu(), &format!("us/{operation}"));
    info(
        &format!("{name}_generator_cpu"),
        load.generator_cpu(),
        &format!("us/{operation}"),
    );
    info(&format!("{name}_generator_busy"), load.generator_busy(), "%");
    promise(
        &format!("{name}_lost"),
        (load.lost + load.errors) as f64,
        operation,
        AtMost(0.0),
    );
}

/// The same work at Crossbar.io.
fn show_peer(name: &str, operation: &str, load: Load) {
    peer(
        &format!("{name}_rate_crossbar"),
        load.rate(),
        &format!("{operation}/s"),
    );
    peer(
        &format!("{name}_cpu_crossbar"),
        load.cpu(),
        &format!("us/{operation}"),
    );
}

async fn joins(crossbar: Option<&Target>) {
    let ours = Target::ours();
    let duration = Duration::from_secs(2);
    let load = sessions::joins(&ours, CODEC, duration).await;
    show("cra_joins", "join", load);
    if let Some(crossbar) = crossbar {
        let other = sessions::joins(crossbar, CODEC, duration).await;
        show_peer("cra_joins", "join", other);
        let ratio = load.rate() / other.rate();
        promise("cra_joins_of_crossbar", ratio, "x", AtLeast(6.0));
    }
}

async fn many_in_flight() {
    let ours = Target::ours();
    let plan = rpc::Plan {
        name: "rpc_4096",
        codec: CODEC,
        pairs: 1,
        in_flight: 4096,
        duration: Duration::from_secs(2),
    };
    let load = rpc::pipelined(&ours, plan).await;
    info("rpc_4096_rate", load.rate(), "calls/s");
    promise("rpc_4096_unanswered", load.lost as f64, "calls", AtMost(0.0));
    promise("rpc_4096_errors", load.errors as f64, "calls", AtMost(0.0));
}

async fn idle(crossbar: Option<&Target>) {
    let ours = Target::ours();
    let bytes = sessions::idle(&ours, CODEC, 10_000).await;
    promise("idle_session_memory_10000", bytes / 1024.0, "KiB", AtMost(10.0));
    drop(ours);
    if let Some(crossbar) = crossbar {
        let bytes = sessions::idle(crossbar, CODEC, 1_000).await;
        peer("idle_session_memory_1000_crossbar", bytes / 1024.0, "KiB");
    }
}

async fn stalled() {
    let ours = Target::ours();
    let bound = wamp::router::Limits::default().send_queue_bytes as f64 / MEGABYTE;
    let mut stalled = events::stalled(&ours, CODEC, 8_000, 8 << 10).await;
    promise(
        "stalled_subscriber_memory",
        stalled.grown as f64 / MEGABYTE,
        "MiB",
        AtMost(bound),
    );
    let before = percentile(&mut stalled.before, 0.5);
    let beside = percentile(&mut stalled.beside, 0.5);
    info("stalled_others_p50_before", before, "us");
    promise("stalled_others_p50_ratio", beside / before, "x", AtMost(1.25));
    info(
        "stalled_others_p99_before",
        percentile(&mut stalled.before, 0.99),
        "us",
    );
    info(
        "stalled_others_p99_beside",
        percentile(&mut stalled.beside, 0.99),
        "us",
    );
}

async fn scale() {
    let pair = scale::registrations(CODEC, 100, 100_000).await;
    info("cpu_per_call_100_registrations", pair.little, "us");
    info("cpu_per_call_100000_registrations", pair.much, "us");
    promise("cpu_per_call_growth", pair.much / pair.little, "x", AtMost(1.25));
    let pair = scale::patterns(CODEC, 10, 10_000).await;
    info("cpu_per_event_10_patterns", pair.little, "us");
    info("cpu_per_event_10000_patterns", pair.much, "us");
    promise("cpu_per_event_growth", pair.much / pair.little, "x", AtMost(1.25));
}
