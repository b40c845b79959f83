//! The corpora of the fuzz targets, replayed: what fuzzing has found once is looked at by every test run.

#[path = "../fuzz/checks.rs"]
mod checks;

use wamp::Codec;

fn replay(codec: Codec, name: &str) {
    let directory = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut frames = 0;
    for entry in std::fs::read_dir(directory).expect("the corpus is in the repository") {
        let path = entry.expect("a readable directory").path();
        checks::frame(codec, &std::fs::read(path).expect("a readable file"));
        frames += 1;
    }
    assert!(frames > 0, "the corpus is empty");
}

#[test]
fn json_frames_of_the_corpus_mean_the_same_in_every_encoding() {
    replay(Codec::Json, "json");
}

#[test]
fn msgpack_frames_of_the_corpus_mean_the_same_in_every_encoding() {
    replay(Codec::MessagePack, "msgpack");
}

#[test]
fn cbor_frames_of_the_corpus_mean_the_same_in_every_encoding() {
    replay(Codec::Cbor, "cbor");
}
