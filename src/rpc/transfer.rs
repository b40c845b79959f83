//! `write_data`: the chunks of an upload.

use protocol::number;
use serde_json::Value;
use wamp::Payload;

use super::{Call, Code, Context, Failure, Reply};
use crate::journal::Chain;
use crate::transfer::{Chunk, Part, TransferError};

/// Chunk, file name, container name, total and id; behind `END` also the file's SHA-256, for those who say it
/// (`logs-terminal-tunnel.md` 5.1, F3).
pub(super) async fn write_data(context: Context, call: Call) -> Reply {
    let chunk = parse(&call.args)?;
    context.transfers.take(chunk).await.map_err(|error| Failure {
        code: code(&error),
        text: Chain(&error).to_string(),
    })?;
    Ok(Payload::Empty)
}

fn parse(args: &[Value]) -> Result<Chunk, Failure> {
    let [chunk, file_name, container, total, id, ..] = args else {
        return Err(Failure::invalid(format!(
            "failed to parse args, expected 5 but got {}",
            args.len()
        )));
    };
    let text = |value: &Value, name: &str| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(Failure::invalid(format!("failed to parse {name} argument"))),
    };
    let file_name = text(file_name, "name")?;
    let chunk = text(chunk, "chunk")?;
    let container = text(container, "containerName")?;
    let total = number::whole(total).ok_or_else(|| Failure::invalid("failed to parse total argument"))?;
    let id = text(id, "id")?;
    let part = match chunk.as_str() {
        "BEGIN" => Part::Begin,
        "END" => Part::End(args.get(5).and_then(Value::as_str).map(str::to_owned)),
        data => Part::Data(hex::decode(data).map_err(|error| Failure::invalid(error.to_string()))?),
    };
    Ok(Chunk {
        part,
        file_name,
        container,
        total,
        id,
    })
}

fn code(error: &TransferError) -> Code {
    match error {
        TransferError::NotActive => Code::NotFound,
        TransferError::Canceled | TransferError::TooMany | TransferError::NoSpace { .. } => Code::Unavailable,
        TransferError::Container(_)
        | TransferError::FileName(_)
        | TransferError::FileInUse(_)
        | TransferError::Length { .. }
        | TransferError::Digest { .. } => Code::InvalidArgument,
        TransferError::File { .. } | TransferError::Panicked => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(args: Value) -> Result<Chunk, String> {
        let Value::Array(args) = args else { unreachable!() };
        parse(&args).map_err(|failure| failure.text)
    }

    #[test]
    fn arguments_are_read_in_the_contracts_order_and_refused_in_its_words() {
        let chunk = parsed(json!(["6869", "x.tgz", "dev_6_x", 2, "7"])).unwrap();
        assert_eq!((chunk.part, chunk.total), (Part::Data(b"hi".to_vec()), 2));
        let end = parsed(json!(["END", "x.tgz", "dev_6_x", 2, "7", "ab"])).unwrap();
        assert_eq!(end.part, Part::End(Some("ab".to_owned())));
        for (args, text) in [
            (json!([]), "failed to parse args, expected 5 but got 0"),
            (json!([1, 1, 1, "x", 1]), "failed to parse name argument"),
            (json!([1, "x", 1, "x", 1]), "failed to parse chunk argument"),
            (
                json!(["END", "x", 1, "x", 1]),
                "failed to parse containerName argument",
            ),
            (json!(["END", "x", "c", -1, 1]), "failed to parse total argument"),
            (json!(["END", "x", "c", 1, 1]), "failed to parse id argument"),
            (json!(["xyz", "x", "c", 1, "1"]), "Odd number of digits"),
        ] {
            assert_eq!(parsed(args.clone()), Err(text.to_owned()), "{args}");
        }
    }
}
