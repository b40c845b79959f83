//! Which devices take a version first (`update-and-system.md` 9.5): agents wait for their turn by it, and studios cut
//! waves by it.

use sha2::{Digest as _, Sha256};

/// Bytes that the signed schedule of rollouts has at most. Agents fetch no larger one, and take nothing by themselves
/// then.
pub const MAX_SCHEDULE: usize = 64 * 1024;

/// A device's place among all for a version: the same every time, evenly spread over all numbers, and another one for
/// every version.
pub fn place(serial: &str, version: &str) -> u32 {
    let digest = Sha256::digest(format!("{serial}{version}"));
    digest
        .iter()
        .take(4)
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_what_devices_in_the_field_compute() {
        for (serial, version, expected) in [
            ("00000000-0000-4000-8000-000000000001", "1.0.0", 399_732_881),
            ("00000000-0000-4000-8000-000000000001", "1.0.1", 1_122_255_661),
            ("f00d", "10.20.30", 92_450_431),
            ("ümläut", "1.0.0", 3_804_722_127),
        ] {
            assert_eq!(place(serial, version), expected, "{serial} {version}");
        }
    }
}
