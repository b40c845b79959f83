//! What a measurement gives: operations, the time they took and the CPU that the router and the generator used.

use std::time::{Duration, Instant};

use crate::target::Target;
use crate::usage;

#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) operations: u64,
    elapsed: Duration,
    router: Duration,
    generator: Duration,
    /// Operations that ended in an ERROR.
    pub(crate) errors: u64,
    /// Operations whose end never came.
    pub(crate) lost: u64,
}

/// A measurement under way.
pub(crate) struct Meter<'t> {
    target: &'t Target,
    begin: Instant,
    router: Duration,
    generator: Duration,
}

impl Meter<'_> {
    pub(crate) fn start(target: &Target) -> Meter<'_> {
        Meter {
            target,
            router: target.cpu(),
            generator: usage::own_cpu(),
            begin: Instant::now(),
        }
    }

    pub(crate) fn stop(self, operations: u64, errors: u64, lost: u64) -> Load {
        Load {
            operations,
            elapsed: self.begin.elapsed(),
            router: self.target.cpu() - self.router,
            generator: usage::own_cpu() - self.generator,
            errors,
            lost,
        }
    }
}

impl Load {
    /// Operations per second.
    pub(crate) fn rate(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// The router's CPU time per operation, microseconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.router.as_secs_f64() * 1e6 / self.operations as f64
    }

    /// The generator's CPU time per operation, microseconds.
    pub(crate) fn generator_cpu(&self) -> f64 {
        self.generator.as_secs_f64() * 1e6 / self.operations as f64
    }

    /// How much of the one core that the generator can use it did use, percent. Well below 100 it waited for the router.
    pub(crate) fn generator_busy(&self) -> f64 {
        self.generator.as_secs_f64() / self.elapsed.as_secs_f64() * 100.0
    }
}

/// The value below which `fraction` of `values` lie.
pub(crate) fn percentile(values: &mut [f64], fraction: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * fraction) as usize]
}
