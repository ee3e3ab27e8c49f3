//! Tables, for a terminal or for a Markdown file. Pure.

/// A table: a header and rows of as many cells.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new<'a>(header: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![header.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table with its columns aligned: the first to the left, the others to the right.
    pub fn text(&self) -> String {
        self.render("", "  ", "", |_| None)
    }

    /// The table in Markdown, legible as text too.
    pub fn markdown(&self) -> String {
        let rule = |widths: &[usize]| {
            let cells = widths.iter().enumerate().map(|(column, &width)| match column {
                0 => "-".repeat(width),
                _ => "-".repeat(width - 1) + ":",
            });
            Some(format!("| {} |\n", cells.collect::<Vec<_>>().join(" | ")))
        };
        self.render("| ", " | ", " |", rule)
    }

    fn render(
        &self,
        left: &str,
        between: &str,
        right: &str,
        rule: impl Fn(&[usize]) -> Option<String>,
    ) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row: &Vec<String>| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            let line = format!("{left}{}{right}", cells.collect::<Vec<_>>().join(between));
            out += line.trim_end();
            out.push('\n');
            if number == 0 {
                out += &rule(&widths).unwrap_or_default();
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["figure", "µs"]);
        table.row(["p50".to_owned(), "17.5".to_owned()]);
        assert_eq!(table.text(), "figure    µs\np50     17.5\n");
        assert_eq!(table.markdown(), "| figure |   µs |\n| ------ | ---: |\n| p50    | 17.5 |\n");
    }
}
