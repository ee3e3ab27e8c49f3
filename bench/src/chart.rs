//! Results as a chart: one panel a figure, one bar a contender, in SVG. Pure.

use std::fmt::Write;

use crate::contender::who::Who;
use crate::figure::Figure;
use crate::results::Results;
use crate::summary::Spread;

const WIDTH: usize = 920;
const MARGIN: usize = 24;
const HEADER: usize = 64;
const PANEL_WIDTH: usize = (WIDTH - 3 * MARGIN) / 2;
const TITLE: usize = 30;
const ROW: usize = 26;
const BAR: usize = 16;
/// Where bars begin and how long the longest is, in a panel.
const BAR_AT: usize = 110;
const BAR_MAX: usize = PANEL_WIDTH - BAR_AT - 90;
pub(crate) const FONT: &str = "font-family=\"Helvetica, Arial, sans-serif\"";

/// Draws the results.
pub fn draw(results: &Results) -> String {
    let contenders = results.contenders();
    let figures: Vec<Figure> = Figure::ALL
        .into_iter()
        .filter(|&figure| results.samples.iter().any(|s| s.figure == figure))
        .collect();
    let panel_height = TITLE + contenders.len() * ROW + MARGIN;
    let height = HEADER + figures.len().div_ceil(2) * panel_height + MARGIN;
    let mut svg = String::new();
    line(
        &mut svg,
        &format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" {FONT}>"#
        ),
    );
    line(&mut svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##);
    text(&mut svg, (MARGIN, 30), 18, "#1a1a1a", "Container to container: medians, with least and greatest");
    let Results { machine, date, commit, rounds, seconds, .. } = results;
    let about = format!("{machine}; commit {commit}; {date}; {rounds} rounds of {seconds} s");
    text(&mut svg, (MARGIN, 50), 11, "#666666", &about);
    for (number, &figure) in figures.iter().enumerate() {
        let x = MARGIN + number % 2 * (PANEL_WIDTH + MARGIN);
        let y = HEADER + number / 2 * panel_height;
        panel(&mut svg, (x, y), figure, results, &contenders);
    }
    line(&mut svg, "</svg>");
    svg
}

fn panel(svg: &mut String, (x, y): (usize, usize), figure: Figure, results: &Results, contenders: &[Who]) {
    let better = if figure.more_is_better() { "more is better" } else { "less is better" };
    text(svg, (x, y + 18), 14, "#1a1a1a", &format!("{} ({}, {better})", figure.label(), figure.unit()));
    let spreads: Vec<(Who, Option<Spread>)> =
        contenders.iter().map(|&who| (who, Spread::of(results.values(who, figure)))).collect();
    let greatest =
        spreads.iter().filter_map(|(_, spread)| *spread).map(|spread| spread.max).fold(0.0, f64::max);
    let scale = |value: f64| if greatest > 0.0 { value / greatest * BAR_MAX as f64 } else { 0.0 };
    for (number, (who, spread)) in spreads.into_iter().enumerate() {
        let Some(spread) = spread else { continue };
        let top = y + TITLE + number * ROW;
        let colour = if matches!(who, Who::Switch(_)) { "#2b6cb0" } else { "#b8bec6" };
        let (left, middle) = (x + BAR_AT, top + BAR / 2);
        text(svg, (x, top + 12), 12, "#333333", &who.to_string());
        let length = scale(spread.median);
        line(
            svg,
            &format!(r#"<rect x="{left}" y="{top}" width="{length:.1}" height="{BAR}" fill="{colour}"/>"#),
        );
        let (from, to) = (left as f64 + scale(spread.min), left as f64 + scale(spread.max));
        line(
            svg,
            &format!(
                r##"<line x1="{from:.1}" y1="{middle}" x2="{to:.1}" y2="{middle}" stroke="#1a1a1a" stroke-width="1.5"/>"##
            ),
        );
        let (label_at, base, value) = (to + 6.0, top + 12, figure.show(spread.median));
        line(
            svg,
            &format!(r##"<text x="{label_at:.1}" y="{base}" font-size="12" fill="#333333">{value}</text>"##),
        );
    }
}

pub(crate) fn text(svg: &mut String, (x, y): (usize, usize), size: usize, colour: &str, content: &str) {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    line(svg, &format!(r#"<text x="{x}" y="{y}" font-size="{size}" fill="{colour}">{content}</text>"#));
}

pub(crate) fn line(svg: &mut String, content: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(svg, "{content}");
}
