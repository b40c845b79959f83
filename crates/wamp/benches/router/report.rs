//! How a figure is printed: one line each, `<name> <value> <unit> promise <op> <value> ok|short` for ours and
//! `<name> <value> <unit> peer` for what it is compared with. What explains a figure and promises nothing is `info`.

/// Which side of its bound a figure has to be on.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

pub(crate) fn promise(name: &str, value: f64, unit: &str, bound: Bound) {
    let (sign, limit, kept) = match bound {
        Bound::AtMost(limit) => ("<=", limit, value <= limit),
        Bound::AtLeast(limit) => (">=", limit, value >= limit),
    };
    let verdict = if kept { "ok" } else { "short" };
    println!("{name} {} {unit} promise {sign} {limit} {verdict}", number(value));
}

pub(crate) fn peer(name: &str, value: f64, unit: &str) {
    println!("{name} {} {unit} peer", number(value));
}

pub(crate) fn info(name: &str, value: f64, unit: &str) {
    println!("{name} {} {unit} info", number(value));
}

/// Three significant digits, or all before the point.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 => 0,
        value if value < 0.1 => 4,
        value if value < 1.0 => 3,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}
