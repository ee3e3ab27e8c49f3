//! Ratios that stand for all others in the README, as a chart in SVG: one bar each, the worst included.

use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

use crate::chart::{FONT, line, text};
use crate::error::BenchError;

const WIDTH: usize = 720;
const MARGIN: usize = 24;
const HEADER: usize = 62;
const ROW: usize = 46;
const BAR: usize = 16;
/// How long a bar of 1 is.
const ONE: usize = 340;
const FOOTER: usize = 26;

/// The switch divided by a peer, as it was measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// The road, and the traffic on it.
    pub name: String,
    /// The peer.
    pub beside: String,
    /// The median over the rounds.
    pub ratio: f64,
    /// The least and the greatest, if the run gave them.
    pub spread: Option<Ends>,
    /// The command that measured it.
    pub command: String,
    /// The commit that was measured, if it was noted.
    pub commit: Option<String>,
}

/// The least and the greatest of several values.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// Reads a list of ratios; `None` when the file holds no list.
///
/// # Errors
/// When it cannot be read or is a list of something else.
pub fn read(file: &Path) -> Result<Option<Vec<Ratio>>, BenchError> {
    let failed = |message: String| BenchError::File { file: file.display().to_string(), message };
    let text = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let ratios = serde_json::from_str(&text);
    ratios.map(Some).map_err(|error| failed(format!("not a list of ratios: {error}")))
}

/// Draws ratios, in their order.
pub fn draw(ratios: &[Ratio]) -> String {
    let height = HEADER + ratios.len() * ROW + FOOTER;
    let mut svg = String::new();
    let size = format!(r#"viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}""#);
    line(&mut svg, &format!(r#"<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>"#));
    line(&mut svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##);
    text(&mut svg, (MARGIN, 28), 17, "#1a1a1a", "Throughput of vswitch, divided by the kernel's");
    text(&mut svg, (MARGIN, 46), 11, "#666666", "medians; a line from the least round to the greatest");
    for (number, ratio) in ratios.iter().enumerate() {
        bar(&mut svg, HEADER + number * ROW, ratio);
    }
    text(&mut svg, (MARGIN + ONE, height - 12), 11, "#666666", "| 1: as fast as the kernel");
    line(&mut svg, "</svg>");
    svg
}

fn bar(svg: &mut String, y: usize, ratio: &Ratio) {
    let Ratio { name, beside, ratio: median, spread, .. } = ratio;
    text(svg, (MARGIN, y + 12), 12, "#333333", &format!("{name} (beside {beside})"));
    let (top, middle, base) = (y + 18, y + 18 + BAR / 2, y + 31);
    let scale = |value: f64| value * ONE as f64;
    let colour = if *median < 1.0 { "#c05621" } else { "#2b6cb0" };
    let length = scale(*median);
    line(
        svg,
        &format!(r#"<rect x="{MARGIN}" y="{top}" width="{length:.1}" height="{BAR}" fill="{colour}"/>"#),
    );
    let mut end = *median;
    let mut label = format!("{median:.2}");
    if let Some(Ends { min, max }) = spread {
        let (from, to) = (MARGIN as f64 + scale(*min), MARGIN as f64 + scale(*max));
        line(
            svg,
            &format!(
                r##"<line x1="{from:.1}" y1="{middle}" x2="{to:.1}" y2="{middle}" stroke="#1a1a1a" stroke-width="1.5"/>"##
            ),
        );
        end = end.max(*max);
        let _ = write!(label, " ({min:.2}–{max:.2})");
    }
    let (one, above, below) = (MARGIN + ONE, top - 3, top + BAR + 3);
    line(svg, &format!(r##"<line x1="{one}" y1="{above}" x2="{one}" y2="{below}" stroke="#1a1a1a"/>"##));
    let at = MARGIN as f64 + scale(end) + 6.0;
    line(svg, &format!(r##"<text x="{at:.1}" y="{base}" font-size="12" fill="#333333">{label}</text>"##));
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: &str = include_str!("../../docs/figures.json");

    fn figures() -> Vec<Ratio> {
        serde_json::from_str(FIGURES).expect("docs/figures.json")
    }

    #[test]
    fn the_committed_chart_is_of_the_committed_figures() {
        let committed = include_str!("../../docs/figures.svg");
        assert!(
            draw(&figures()) == committed,
            "draw docs/figures.svg anew: vswitch-bench chart docs/figures.json"
        );
    }

    #[test]
    fn every_figure_is_in_the_results_and_the_worst_is_there() {
        let results = include_str!("../../docs/benchmarks.md");
        let figures = figures();
        for figure in &figures {
            let ratio = format!("{:.2}", figure.ratio);
            assert!(results.contains(&ratio), "{ratio} was not measured: {}", figure.name);
            let spread = figure.spread.map(|Ends { min, max }| format!("{min:.2}..{max:.2}"));
            assert!(spread.is_none_or(|spread| results.contains(&spread)), "{}", figure.name);
            let subcommand = figure.command.split(' ').nth(1).expect("a command");
            assert!(results.contains(&format!("-- {subcommand}")), "{subcommand} is no command there");
        }
        assert!(figures.iter().any(|figure| figure.ratio < 1.0), "only what flatters");
    }
}
