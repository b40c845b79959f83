//! Plain text tables: a header line, columns as wide as their widest cell, two spaces between.

/// Renders rows under headers; control characters in cells become `?`, so that no remote text steers the terminal.
pub(crate) fn render<const COLUMNS: usize>(headers: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let clean = |cell: &str| {
        cell.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect::<String>()
    };
    let lines: Vec<Vec<String>> = std::iter::once(headers.map(str::to_owned).to_vec())
        .chain(
            rows.iter()
                .map(|row| row.iter().map(|cell| clean(cell)).collect()),
        )
        .collect();
    let mut widths = [0; COLUMNS];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let padding = width - cell.chars().count() + 2;
            shown.push_str(cell);
            shown.push_str(&" ".repeat(padding));
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["press-07".to_owned(), "CONNECTED".to_owned()],
            ["ü".to_owned(), "-".to_owned()],
        ];
        assert_eq!(
            render(["NAME", "STATUS"], &rows),
            "NAME      STATUS\npress-07  CONNECTED\nü         -\n"
        );
    }

    #[test]
    fn escape_sequences_of_remote_texts_are_defused() {
        assert_eq!(render(["A"], &[["\u{1b}[31mred".to_owned()]]), "A\n?[31mred\n");
    }
}
