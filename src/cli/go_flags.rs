//! The syntax of Go's `flag` package (`session-and-api.md` 1.2), turned into one canonical form: `--name=value` with
//! booleans as `true` or `false` and numbers in decimal. Must not know which flags there are or what they mean.

/// What values a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    /// 64-bit, Go literal.
    Unsigned,
    Text,
}

/// A command line in canonical form. Normalising `flags` again gives the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Normal {
    pub(crate) flags: Vec<String>,
    /// What follows the end of flags; Go never looks at it.
    pub(crate) ignored: Vec<String>,
}

/// Why a command line is refused, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FlagError {
    #[error("help requested")]
    Help,
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    Bool { name: String, value: String },
    #[error("invalid value {value:?} for flag -{name}: {reason}")]
    Unsigned {
        name: String,
        value: String,
        reason: UnsignedError,
    },
    /// Anything that Go's package would not say.
    #[error("{0}")]
    Other(String),
}

/// Why a text is not an unsigned number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnsignedError {
    #[error("parse error")]
    Parse,
    #[error("value out of range")]
    Range,
}

/// Normalises `words`; `kind_of` knows the flags by name.
pub(crate) fn normalise(
    words: Vec<String>,
    kind_of: impl Fn(&str) -> Option<Kind>,
) -> Result<Normal, FlagError> {
    let mut flags = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            return Ok(Normal {
                flags,
                ignored: words.collect(),
            });
        }
        // A word, a lone dash and the empty text end the flags and stay among what is ignored.
        if word.len() < 2 || !word.starts_with('-') {
            return Ok(Normal {
                flags,
                ignored: std::iter::once(word).chain(words).collect(),
            });
        }
        let body = word.strip_prefix("--").unwrap_or(&word[1..]);
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(FlagError::Syntax(word));
        }
        let (name, given) = match body.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (body.to_owned(), None),
        };
        let value = match kind_of(&name) {
            None if name == "h" || name == "help" => return Err(FlagError::Help),
            None => return Err(FlagError::Unknown(name)),
            // A boolean never takes the next word.
            Some(Kind::Bool) => boolean(&name, given)?.to_string(),
            Some(kind) => match (kind, given.or_else(|| words.next())) {
                (_, None) => return Err(FlagError::NoValue(name)),
                (Kind::Unsigned, Some(value)) => match unsigned(&value) {
                    Ok(number) => number.to_string(),
                    Err(reason) => return Err(FlagError::Unsigned { name, value, reason }),
                },
                (Kind::Bool | Kind::Text, Some(value)) => value,
            },
        };
        flags.push(format!("--{name}={value}"));
    }
    Ok(Normal {
        flags,
        ignored: Vec::new(),
    })
}

fn boolean(name: &str, given: Option<String>) -> Result<bool, FlagError> {
    match given.as_deref() {
        None | Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Ok(true),
        Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Ok(false),
        Some(value) => Err(FlagError::Bool {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
    }
}

/// An unsigned Go literal: decimal, or with the prefix `0x`, `0o`, `0b` or `0`; `_` between digits.
fn unsigned(text: &str) -> Result<u64, UnsignedError> {
    let lower = text.to_ascii_lowercase();
    // A prefix needs at least one character behind it; a bare `0` is the prefix of octal zero.
    let (radix, prefixed, digits) = match (lower.as_bytes(), lower.get(2..)) {
        ([b'0', b'x', _, ..], Some(rest)) => (16, true, rest),
        ([b'0', b'o', _, ..], Some(rest)) => (8, true, rest),
        ([b'0', b'b', _, ..], Some(rest)) => (2, true, rest),
        ([b'0', rest @ ..], _) => (8, true, if rest.is_empty() { "0" } else { &lower[1..] }),
        _ => (10, false, lower.as_str()),
    };
    let mut number: u64 = 0;
    // An underscore follows a digit or the prefix, and a digit follows it.
    let mut after_digit = prefixed;
    for character in digits.chars() {
        if character == '_' {
            if !after_digit {
                return Err(UnsignedError::Parse);
            }
            after_digit = false;
            continue;
        }
        let digit = character.to_digit(radix).ok_or(UnsignedError::Parse)?;
        number = number
            .checked_mul(u64::from(radix))
            .and_then(|number| number.checked_add(u64::from(digit)))
            .ok_or(UnsignedError::Range)?;
        after_digit = true;
    }
    if digits.is_empty() || !after_digit {
        return Err(UnsignedError::Parse);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind_of(name: &str) -> Option<Kind> {
        match name {
            "flag" => Some(Kind::Bool),
            "count" => Some(Kind::Unsigned),
            "text" => Some(Kind::Text),
            _ => None,
        }
    }

    fn normal(words: &[&str]) -> Result<Normal, FlagError> {
        normalise(words.iter().map(|&word| word.to_owned()).collect(), kind_of)
    }

    fn flags(words: &[&str]) -> Vec<String> {
        normal(words).unwrap().flags
    }

    fn refusal(words: &[&str]) -> String {
        normal(words).unwrap_err().to_string()
    }

    #[test]
    fn one_dash_two_dashes_and_both_value_forms_are_the_same() {
        for words in [&["-text", "x"][..], &["--text", "x"], &["-text=x"], &["--text=x"]] {
            assert_eq!(flags(words), ["--text=x"], "{words:?}");
        }
        assert_eq!(flags(&["-text", "-flag"]), ["--text=-flag"]);
        assert_eq!(flags(&["-text="]), ["--text="]);
        assert_eq!(flags(&["-text=a=b"]), ["--text=a=b"]);
        assert_eq!(flags(&["-text", "", "-flag"]), ["--text=", "--flag=true"]);
    }

    #[test]
    fn a_boolean_takes_its_value_only_behind_an_equals_sign() {
        assert_eq!(flags(&["-flag=F", "-flag"]), ["--flag=false", "--flag=true"]);
        let read = normal(&["-flag", "false", "-text", "x"]).unwrap();
        assert_eq!(read.flags, ["--flag=true"]);
        assert_eq!(read.ignored, ["false", "-text", "x"]);
        for bad in ["", "yes", "tRuE", "2"] {
            assert_eq!(
                refusal(&[&format!("-flag={bad}")]),
                format!("invalid boolean value {bad:?} for -flag: parse error")
            );
        }
    }

    #[test]
    fn unsigned_numbers_are_go_literals() {
        for (text, number) in [
            ("0", 0),
            ("00", 0),
            ("7", 7),
            ("010", 8),
            ("0_10", 8),
            ("0x10", 16),
            ("0X1f", 31),
            ("0x_1F", 31),
            ("0b11", 3),
            ("0o17", 15),
            ("1_000", 1000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(unsigned(text), Ok(number), "{text}");
        }
        for text in [
            "", "-1", "+1", "08", "0x", "0b", "0b2", "_1", "1_", "1__0", "0x1_", "1.0", " 1", "1e3", "zz",
            "0_",
        ] {
            assert_eq!(unsigned(text), Err(UnsignedError::Parse), "{text:?}");
        }
        assert_eq!(unsigned("18446744073709551616"), Err(UnsignedError::Range));
        assert_eq!(
            refusal(&["-count", "-1"]),
            "invalid value \"-1\" for flag -count: parse error"
        );
        assert_eq!(
            refusal(&["-count=99999999999999999999"]),
            "invalid value \"99999999999999999999\" for flag -count: value out of range"
        );
    }

    #[test]
    fn words_dashes_and_empty_texts_end_the_flags() {
        for (words, ignored) in [
            (&["-flag", "word", "-x"][..], &["word", "-x"][..]),
            (&["-flag", "-", "-x"], &["-", "-x"]),
            (&["-flag", "", "-x"], &["", "-x"]),
            (&["-flag", "--", "-x"], &["-x"]),
            (&["-flag", "--"], &[]),
        ] {
            let read = normal(words).unwrap();
            assert_eq!(read.flags, ["--flag=true"], "{words:?}");
            assert_eq!(read.ignored, ignored, "{words:?}");
        }
    }

    #[test]
    fn bad_syntax_unknown_flags_and_missing_values_are_refused_in_go_words() {
        assert_eq!(refusal(&["---text"]), "bad flag syntax: ---text");
        assert_eq!(refusal(&["-=x"]), "bad flag syntax: -=x");
        assert_eq!(refusal(&["--=x"]), "bad flag syntax: --=x");
        assert_eq!(refusal(&["-nope=1"]), "flag provided but not defined: -nope");
        assert_eq!(refusal(&["--text"]), "flag needs an argument: -text");
        for help in ["-h", "-help", "--help", "-help=x"] {
            assert_eq!(normal(&[help]), Err(FlagError::Help), "{help}");
        }
    }

    fn word() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "-flag",
            "--flag=0",
            "-count",
            "--count=0x1_0",
            "-text",
            "--",
            "-",
            "",
        ]);
        prop_oneof![
            known.prop_map(str::to_owned),
            "-{0,3}(flag|count|text|h)?=?[-0-9a-z_=]{0,4}",
            "\\PC*",
        ]
    }

    proptest! {
        #[test]
        fn every_command_line_is_read_or_refused_and_its_canonical_form_stays(words in prop::collection::vec(word(), 0..8)) {
            if let Ok(once) = normalise(words, kind_of) {
                let twice = normalise(once.flags.clone(), kind_of).unwrap();
                prop_assert_eq!(&twice.flags, &once.flags);
                prop_assert!(twice.ignored.is_empty());
            }
        }

        #[test]
        fn every_number_is_read_from_its_decimal_text(number: u64) {
            prop_assert_eq!(unsigned(&number.to_string()), Ok(number));
            prop_assert_eq!(unsigned(&format!("{number:#x}")), Ok(number));
        }
    }
}
