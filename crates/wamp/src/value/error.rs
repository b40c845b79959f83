//! Why a typed value and a WAMP value do not fit each other.

use std::fmt::{self, Display};

use serde::de::{Expected, Unexpected};

/// A typed value cannot be said in WAMP, or a WAMP value is not of the type that is asked for.
///
/// The text says where and what was expected, never what was there: arguments may be secrets, and errors travel to
/// peers and into logs. For the same reason it leaves out what a type's own `Deserialize` says, which mostly quotes the
/// value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertError {
    /// From the outside in: `[1]`, `.port`.
    place: String,
    what: String,
}

impl ConvertError {
    pub(super) fn new(what: impl Into<String>) -> ConvertError {
        ConvertError {
            place: String::new(),
            what: what.into(),
        }
    }

    /// The same, seen from the list whose element it is about.
    pub(super) fn in_element(mut self, index: usize) -> ConvertError {
        self.place.insert_str(0, &format!("[{index}]"));
        self
    }

    /// The same, seen from the structure whose field it is about.
    pub(super) fn in_field(mut self, name: &str) -> ConvertError {
        self.place.insert_str(0, &format!(".{name}"));
        self
    }
}

impl Display for ConvertError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.trim_start_matches('.') {
            "" => formatter.write_str(&self.what),
            place => write!(formatter, "{place}: {}", self.what),
        }
    }
}

impl std::error::Error for ConvertError {}

impl serde::ser::Error for ConvertError {
    fn custom<T: Display>(message: T) -> ConvertError {
        ConvertError::new(message.to_string())
    }
}

impl serde::de::Error for ConvertError {
    fn custom<T: Display>(_: T) -> ConvertError {
        ConvertError::new("a value that cannot be used")
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> ConvertError {
        ConvertError::new(format!("expected {expected}, got {}", kind(found)))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> ConvertError {
        ConvertError::new(format!("expected {expected}, got another value"))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> ConvertError {
        ConvertError::new(format!("expected {expected}, got {length}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> ConvertError {
        ConvertError::new(format!("expected one of {}", expected.join(", ")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> ConvertError {
        ConvertError::new(format!("expected no fields but {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> ConvertError {
        ConvertError::new(format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> ConvertError {
        ConvertError::new(format!("duplicate field `{field}`"))
    }
}

fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Char(_) | Unexpected::Str(_) => "text",
        Unexpected::Bytes(_) => "binary",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a dictionary",
        Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::Other(_) => "something else",
    }
}
