//! Patches from older binaries to a new one: zstd with the old binary as prefix, which the agent applies to the binary
//! it runs. Must not know where binaries come from.

use std::io::{self, Write as _};

/// The agent decodes windows up to this.
const LARGEST_WINDOW_LOG: u32 = 25;
/// The best that does not take minutes.
const LEVEL: i32 = 19;

/// What turns `old` into `new`; `None` when it is not worth its bytes or the agent could not apply it.
pub fn patch(old: &[u8], new: &[u8]) -> io::Result<Option<Vec<u8>>> {
    // The window has to reach back over the old binary from the end of the new one.
    let window = (old.len() + new.len()).max(1024).ilog2() + 1;
    if window > LARGEST_WINDOW_LOG {
        return Ok(None);
    }
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    encoder.window_log(window)?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(new)?;
    let patch = encoder.finish()?;
    Ok((patch.len() < new.len() / 2).then_some(patch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_patch_makes_the_new_binary_and_is_small() {
        let mut random = fastrand::Rng::with_seed(1);
        let old: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(500_000).collect();
        let mut new = old.clone();
        new.splice(1000..1100, *b"another piece");
        let patch = patch(&old, &new).unwrap().unwrap();
        assert!(patch.len() < 2000, "{}", patch.len());
        let mut made = Vec::new();
        let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(patch.as_slice(), &old).unwrap();
        decoder.window_log_max(LARGEST_WINDOW_LOG).unwrap();
        decoder.read_to_end(&mut made).unwrap();
        assert!(made == new);
    }

    #[test]
    fn what_has_nothing_in_common_is_not_worth_a_patch() {
        let mut random = fastrand::Rng::with_seed(2);
        let mut noise = || -> Vec<u8> { std::iter::repeat_with(|| random.u8(..)).take(50_000).collect() };
        assert_eq!(patch(&noise(), &noise()).unwrap(), None);
    }
}
