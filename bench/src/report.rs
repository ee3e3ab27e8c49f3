//! Results as tables: absolute medians, then ratios beside their bars. Pure.

use crate::contender::who::Who;
use crate::figure::Figure;
use crate::results::Results;
use crate::summary::{Comparison, Spread, Verdict, comparisons};
use crate::table::Table;

/// The results for a person.
pub fn render(results: &Results, markdown: bool) -> String {
    let show = |table: Table| if markdown { table.markdown() } else { table.text() };
    let Results { road, machine, date, commit, rounds, seconds, .. } = results;
    let heading =
        format!("{}: {machine}; commit {commit}; {date}; {rounds} rounds of {seconds} s", road.name());
    let absolute = show(absolute(results));
    let ratios = show(ratios(results));
    let (medians, quotients) = ("Medians:", "The switch divided by its peer, round by round:");
    format!("{heading}\n\n{medians}\n\n{absolute}\n{quotients}\n\n{ratios}")
}

fn absolute(results: &Results) -> Table {
    let contenders = results.contenders();
    let names: Vec<String> = contenders.iter().map(Who::to_string).collect();
    let mut table = Table::new(std::iter::once("").chain(names.iter().map(String::as_str)));
    for figure in Figure::ALL {
        let cells: Vec<Option<Spread>> =
            contenders.iter().map(|&who| Spread::of(results.values(who, figure))).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.iter().map(|cell| cell.map_or(String::new(), |cell| figure.show(cell.median)));
            table.row(std::iter::once(figure.label().to_owned()).chain(cells));
        }
    }
    table
}

fn ratios(results: &Results) -> Table {
    let mut table = Table::new(["", "ports", "beside", "median", "min..max", "at least", "aim", ""]);
    for comparison in comparisons(results) {
        let Comparison { port_type, peer, figure, ratio, bar } = &comparison;
        let better = if figure.more_is_better() { "" } else { " (less is better)" };
        let verdict = comparison.verdict().map_or("", |verdict| match verdict {
            Verdict::Aim => "aim reached",
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
        });
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        table.row([
            format!("{}{better}", figure.label()),
            port_type.name().to_owned(),
            Who::Peer(*peer).to_string(),
            number(Some(ratio.median)),
            format!("{:.2}..{:.2}", ratio.min, ratio.max),
            number(bar.map(|bar| bar.at_least)),
            number(bar.and_then(|bar| bar.aim)),
            verdict.to_owned(),
        ]);
    }
    table
}
