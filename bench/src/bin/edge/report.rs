//! The result for people and for programs.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use meshgate_bench::process::machine;
use serde_json::{Value, json};

use crate::measure::Sample;
use crate::options::Options;
use crate::scenario::{Compared, Scenario};

/// All that was measured.
#[derive(Debug)]
pub struct Results {
    versions: Vec<String>,
    absent: Vec<String>,
    rounds: usize,
    json: Option<PathBuf>,
    scenarios: Vec<Measured>,
}

/// A scenario with the samples of its cells.
#[derive(Debug)]
struct Measured {
    scenario: Scenario,
    samples: Vec<Vec<Sample>>,
}

/// Median, smallest and largest.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
        Some(Spread { median: (low + high) / 2.0, min: *values.first()?, max: *values.last()? })
    }

    /// Two decimals.
    fn fine(self) -> String {
        format!("{:.2} [{:.2}-{:.2}]", self.median, self.min, self.max)
    }

    /// Thousands.
    fn thousands(self) -> String {
        format!("{:.1}k [{:.1}-{:.1}]", self.median / 1e3, self.min / 1e3, self.max / 1e3)
    }
}

impl Measured {
    fn spread(&self, cell: usize, value: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.get(cell)?.iter().map(value))
    }

    /// CPU time of one cell divided by the other's, within each round.
    fn ratios(&self, compared: &Compared) -> Option<Spread> {
        let (cell, base) = (self.samples.get(compared.cell)?, self.samples.get(compared.base)?);
        Spread::of(cell.iter().zip(base).map(|(cell, base)| cell.us / base.us))
    }

    fn row(&self, index: usize) -> Option<String> {
        let label = &self.scenario.cells.get(index)?.label;
        let us = self.spread(index, |sample| sample.us)?.fine();
        let rate = self.spread(index, |sample| sample.rate)?.thousands();
        let resident = self.spread(index, |sample| sample.resident_mib)?.median;
        let busy = self.spread(index, |sample| sample.busy)?.median * 100.0;
        let load = self.spread(index, |sample| sample.load_busy)?.median * 100.0;
        let dials = self.spread(index, |sample| sample.dials)?.median;
        let samples = self.samples.get(index)?;
        let limited = samples.iter().filter(|sample| sample.is_limited()).count();
        let limited =
            if limited > 0 { format!(" generator-limited {limited}/{}", samples.len()) } else { String::new() };
        Some(format!("| {label} | {us} | {rate} | {resident:.0} | {busy:.0} % | {dials:.1} | {load:.0} %{limited} |"))
    }

    fn comparison(&self, compared: &Compared) -> Option<String> {
        let label = |index: usize| Some(&self.scenario.cells.get(index)?.label);
        let ratios = self.ratios(compared)?;
        let verdict = match compared.bar {
            Some(bar) if ratios.min > bar => format!("bar {bar}: EXCEEDED"),
            Some(bar) => format!("bar {bar}: held"),
            None => "no bar".to_owned(),
        };
        Some(format!("{} / {}: {} ({verdict})", label(compared.cell)?, label(compared.base)?, ratios.fine()))
    }

    fn failures(&self) -> Vec<String> {
        let name = self.scenario.name.as_str();
        let exceeded = self.scenario.compared.iter().filter(|compared| {
            self.ratios(compared).is_some_and(|ratios| compared.bar.is_some_and(|bar| ratios.min > bar))
        });
        let exceeded = exceeded.filter_map(|compared| self.comparison(compared));
        let mut failures: Vec<String> = exceeded.map(|text| format!("{name}: {text}")).collect();
        for (cell, samples) in self.scenario.cells.iter().zip(&self.samples) {
            if let Some(bad) = samples.iter().find(|sample| sample.errors.0 > 0) {
                failures.push(format!("{name}: {}: {} errors: {}", cell.label, bad.errors.0, bad.errors.1));
            }
        }
        failures
    }

    fn json(&self) -> Value {
        let cell = |(index, samples): (usize, &Vec<Sample>)| {
            let label = self.scenario.cells.get(index).map(|cell| cell.label.as_str());
            json!({"cell": label, "samples": samples.iter().map(Sample::json).collect::<Vec<_>>()})
        };
        let compared = |compared: &Compared| {
            let label = |index: usize| self.scenario.cells.get(index).map(|cell| cell.label.as_str());
            let ratios = self.ratios(compared);
            let spread = ratios.map(|spread| json!({"median": spread.median, "min": spread.min, "max": spread.max}));
            json!({
                "cell": label(compared.cell), "base": label(compared.base), "ratio": spread, "bar": compared.bar,
            })
        };
        json!({
            "scenario": self.scenario.name.as_str(), "note": self.scenario.note,
            "cells": self.samples.iter().enumerate().map(cell).collect::<Vec<_>>(),
            "compared": self.scenario.compared.iter().map(compared).collect::<Vec<_>>(),
        })
    }
}

impl Results {
    /// Nothing measured yet.
    pub fn new(options: &Options, versions: Vec<String>, absent: Vec<String>) -> Self {
        let (rounds, json) = (options.rounds(), options.json.clone());
        Results { versions, absent, rounds, json, scenarios: Vec::new() }
    }

    /// What the numbers are of.
    pub fn heading(&self) -> String {
        let lines = self.versions.iter().chain(&self.absent).map(String::as_str);
        lines.chain([format!("{} rounds", self.rounds).as_str()]).collect::<Vec<_>>().join("\n")
    }

    /// The samples that follow are of this scenario.
    pub fn begin(&mut self, scenario: &Scenario) {
        let samples = vec![Vec::new(); scenario.cells.len()];
        self.scenarios.push(Measured { scenario: scenario.clone(), samples });
    }

    /// Adds the sample of a cell.
    pub fn add(&mut self, cell: usize, sample: Sample) {
        if let Some(samples) = self.scenarios.last_mut().and_then(|last| last.samples.get_mut(cell)) {
            samples.push(sample);
        }
    }

    /// The table of the scenario that was measured last.
    pub fn table(&self) -> String {
        let Some(last) = self.scenarios.last() else { return String::new() };
        let mut text = format!("\n{}: median [min-max] of {} rounds\n", last.scenario.name.as_str(), self.rounds);
        // Writing to a string never fails.
        let _ = writeln!(
            text,
            "| peer | CPU us/req | req/s | RSS MiB | busy | dials/k | load busy |\n|---|---|---|---|---|---|---|"
        );
        let rows = (0..last.scenario.cells.len()).filter_map(|index| last.row(index));
        let comparisons = last.scenario.compared.iter().filter_map(|compared| last.comparison(compared));
        for line in rows.chain(comparisons) {
            let _ = writeln!(text, "{line}");
        }
        if !last.scenario.note.is_empty() {
            let _ = writeln!(text, "Note: {}.", last.scenario.note);
        }
        text
    }

    /// Writes all samples where the options say.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self) -> anyhow::Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let scenarios: Vec<Value> = self.scenarios.iter().map(Measured::json).collect();
        let all = json!({
            "machine": machine(), "versions": self.versions, "absent": self.absent, "rounds": self.rounds,
            "scenarios": scenarios,
        });
        std::fs::write(path, format!("{all:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Bars that were exceeded, and requests that failed.
    pub fn failures(&self) -> Vec<String> {
        self.scenarios.iter().flat_map(Measured::failures).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Kind;
    use crate::scenario::Name;

    fn measured(us: &[(f64, f64)]) -> Measured {
        let sample = |us| Sample {
            us,
            rate: 1e6 / us,
            resident_mib: 1.0,
            busy: 1.0,
            load_busy: 0.5,
            dials: 0.0,
            errors: (0, String::new()),
        };
        let scenario = Scenario::new(Name::H1Small, &[Kind::Meshgate, Kind::Nginx]).unwrap();
        let samples =
            vec![us.iter().map(|(own, _)| sample(*own)).collect(), us.iter().map(|(_, base)| sample(*base)).collect()];
        Measured { scenario, samples }
    }

    #[test]
    fn only_the_smallest_paired_ratio_fails() {
        let held = measured(&[(13.0, 10.0), (20.0, 10.0), (12.0, 10.0)]);
        assert_eq!(held.failures(), Vec::<String>::new());
        let exceeded = measured(&[(13.0, 10.0), (20.0, 10.0), (12.6, 10.0)]);
        assert_eq!(exceeded.failures().len(), 1);
        assert!(exceeded.failures()[0].contains("1.30 [1.26-2.00]"), "{:?}", exceeded.failures());
        let mut broken = held;
        broken.samples[1][2].errors = (1, "cut".into());
        assert!(broken.failures()[0].contains("nginx: 1 errors: cut"));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter()).unwrap();
        assert_eq!(spread.fine(), "2.50 [1.00-4.00]");
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
