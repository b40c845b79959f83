//! The message vectors of the WAMP specification, where a checkout of them lies beside the workspace: every sample
//! decodes, and encodes again to one of the forms that the vector lists.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value as Json;
use wamp::Codec;

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

fn unhex(text: &str) -> Bytes {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The same bytes, or the same values with the keys of a dictionary in another order.
fn same_content(codec: Codec, listed: &[u8], encoded: &[u8]) -> bool {
    listed == encoded || codec.decode_value(listed).unwrap() == codec.decode_value(encoded).unwrap()
}

#[test]
fn every_vector_decodes_and_encodes_to_a_listed_form() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/wamp-vectors");
    if !folder.is_dir() {
        println!("skipped: no vectors at {}", folder.display());
        return;
    }
    let mut files = Vec::new();
    json_files(&folder.join("singlemessage"), &mut files);
    let (mut accepted, mut refused) = (0, 0);
    for path in files {
        let file: Json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let code = file["wamp_message_code"].as_u64().unwrap();
        for sample in file["samples"].as_array().unwrap() {
            // EVENT_RECEIVED is no message of the specification, and opaque payloads (a binary in place of the
            // arguments) are never announced: both are refused.
            let foreign = code == 337 || !sample["expected_attributes"]["payload"].is_null();
            for (codec, name) in [
                (Codec::Json, "json"),
                (Codec::MessagePack, "msgpack"),
                (Codec::Cbor, "cbor"),
            ] {
                let listed: Vec<Bytes> = sample["serializers"][name]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|form| unhex(form["bytes_hex"].as_str().unwrap()))
                    .collect();
                for bytes in &listed {
                    let origin = format!("{} {name} {}", path.display(), sample["description"]);
                    if foreign {
                        assert!(codec.decode(bytes).is_err(), "{origin}");
                        refused += 1;
                        continue;
                    }
                    let message = codec
                        .decode(bytes)
                        .unwrap_or_else(|error| panic!("{origin}: {error}"));
                    assert_eq!(message.code(), code, "{origin}");
                    let encoded = codec.encode(&message).unwrap();
                    assert!(
                        listed.iter().any(|form| same_content(codec, form, &encoded)),
                        "{origin}: {encoded:?}"
                    );
                    accepted += 1;
                }
            }
        }
    }
    println!("{accepted} forms accepted, {refused} refused");
    assert!(accepted > 80, "only {accepted} forms found");
}
