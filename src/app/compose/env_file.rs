//! `.env-compose` (`app-lifecycle.md` 5.4): the app's variables as lines that compose reads back exactly (weakness
//! W42). Pure.
//!
//! The two generations of the program read such files by different rules. Values that both take as they stand are left
//! alone; every other one is put into double quotes, whose escapes are known for each.

use crate::engine::Dialect;

/// The file's content, one `NAME=value` per line without a last line end. Names that no file can carry are left out; see
/// [`refused`].
pub(crate) fn render(variables: &[(String, String)], dialect: Dialect) -> String {
    let lines: Vec<String> = variables
        .iter()
        .filter(|(name, _)| is_usable(name))
        .map(|(name, value)| format!("{}={}", name.trim(), quoted(value, dialect)))
        .collect();
    lines.join("\n")
}

/// The line that tells which names were left out; `None` when there are none.
pub(crate) fn refused<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let refused: Vec<String> = names
        .filter(|name| !is_usable(name))
        .map(|name| format!("{name:?}"))
        .collect();
    (!refused.is_empty()).then(|| {
        format!(
            "Warning: ignored environment variable(s) with invalid name(s): [{}] — names cannot be empty, \
             contain spaces or '=', or start with '#'",
            refused.join(" ")
        )
    })
}

/// A name merely padded with spaces is usable. Of the rest only what every generation of the program reads as a name:
/// one bad name would keep the whole app from starting.
pub(crate) fn is_usable(name: &str) -> bool {
    let name = name.trim_matches([' ', '\t']);
    !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}

fn quoted(value: &str, dialect: Dialect) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_./:@%+,=-".contains(letter);
    if value.chars().all(plain) {
        return value.to_owned();
    }
    let mut text = String::with_capacity(value.len() + 8);
    text.push('"');
    let mut rest = value.chars().peekable();
    while let Some(letter) = rest.next() {
        match (letter, dialect) {
            // The reader takes a backslash before the closing quote for an escape of it; as the default of a variable
            // that cannot exist it is only itself.
            ('\\', Dialect::First) if rest.peek().is_none() => text.push_str("${:-\\}"),
            ('\\', _) => text.push_str("\\\\"),
            ('"', _) => text.push_str("\\\""),
            // `${NAME}` is replaced even in quotes, and there is no escape.
            ('$', Dialect::First) if rest.peek() == Some(&'{') => text.push_str("${:-$}"),
            ('$', Dialect::Second) => text.push_str("\\$"),
            (letter, _) => text.push(letter),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(variables: &[(&str, &str)], dialect: Dialect) -> String {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        render(&variables, dialect)
    }

    #[test]
    fn simple_values_stand_as_they_are() {
        let variables = [
            ("A", "1"),
            ("URL", "ws://host.docker.internal:8080/ws-re-dev"),
            ("EMPTY", ""),
            ("KEY", "a+b/c=="),
        ];
        let expected = "A=1\nURL=ws://host.docker.internal:8080/ws-re-dev\nEMPTY=\nKEY=a+b/c==";
        assert_eq!(rendered(&variables, Dialect::First), expected);
        assert_eq!(rendered(&variables, Dialect::Second), expected);
    }

    #[test]
    fn everything_else_is_quoted_for_who_reads_it() {
        for (value, first, second) in [
            ("a b", r#""a b""#, r#""a b""#),
            ("a #b", r#""a #b""#, r#""a #b""#),
            ("it's", r#""it's""#, r#""it's""#),
            (r#"say "x""#, r#""say \"x\"""#, r#""say \"x\"""#),
            (r"a\nb", r#""a\\nb""#, r#""a\\nb""#),
            ("$HOME", r#""$HOME""#, r#""\$HOME""#),
            ("x${HOME}", r#""x${:-$}{HOME}""#, r#""x\${HOME}""#),
            (r"c:\", r#""c:${:-\}""#, r#""c:\\""#),
        ] {
            assert_eq!(quoted(value, Dialect::First), first, "{value}");
            assert_eq!(quoted(value, Dialect::Second), second, "{value}");
        }
    }

    #[test]
    fn names_that_no_file_can_carry_are_left_out_and_told() {
        let variables = [("A B", "1"), ("#C", "2"), (" D ", "3"), ("", "4"), ("E\nF", "5")];
        assert_eq!(rendered(&variables, Dialect::Second), "D=3");
        let names = ["A B", "#C", "D"];
        assert_eq!(
            refused(names.into_iter()).unwrap(),
            "Warning: ignored environment variable(s) with invalid name(s): [\"A B\" \"#C\"] — names cannot be empty, \
             contain spaces or '=', or start with '#'"
        );
        assert_eq!(refused(["D"].into_iter()), None);
    }
}
