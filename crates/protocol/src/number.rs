//! The one tolerant reader of numbers (`DESIGN.md` rule 11, weakness R52): an unsigned or signed integer, a float
//! without fraction up to 2^53, or decimal text.

use serde_json::Value;

/// Largest float that still identifies one integer.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// A whole number ≥ 0 in any accepted form. Negative numbers, fractions, words, booleans and lists are `None`.
pub fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => {
            number.as_u64().or_else(|| {
                number.as_f64().and_then(|float| {
                    let exact = (0.0..=MAX_EXACT_FLOAT).contains(&float) && float.fract() == 0.0;
                    // Checked above: non-negative, whole, exactly representable.
                    exact.then_some(float as u64)
                })
            })
        }
        Value::String(text) => decimal(text),
        _ => None,
    }
}

/// A whole number > 0 in any accepted form.
pub fn positive(value: &Value) -> Option<u64> {
    whole(value).filter(|number| *number > 0)
}

/// Decimal digits only: no sign, no spaces, no exponent.
pub fn decimal(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_whole_number_form_is_read() {
        for (value, expected) in [
            (json!(5), Some(5)),
            (json!(5.0), Some(5)),
            (json!("5"), Some(5)),
            (json!("007"), Some(7)),
            (json!(0), Some(0)),
            (json!(u64::MAX), Some(u64::MAX)),
            (json!(-0.0), Some(0)),
        ] {
            assert_eq!(whole(&value), expected, "{value}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for value in [
            json!(-1),
            json!(5.5),
            json!(1e300),
            json!("-5"),
            json!(" 5"),
            json!("5.0"),
            json!("five"),
            json!(""),
            json!(true),
            json!([5]),
            json!({"n": 5}),
            json!(null),
        ] {
            assert_eq!(whole(&value), None, "{value}");
        }
    }
}
