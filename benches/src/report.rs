//! Samples by system and scenario: a table for people, then lines for programs.

/// What one benchmark has found.
pub(crate) struct Report {
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

struct Row {
    system: String,
    scenario: String,
    unit: &'static str,
    samples: Vec<f64>,
    /// What stands in the place of figures that could not be had.
    missing: Option<String>,
}

impl Report {
    pub(crate) fn new(title: impl Into<String>) -> Report {
        Report { title: title.into(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a sample to the row of this system and scenario, which is made at its first sample.
    pub(crate) fn sample(&mut self, system: &str, scenario: &str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.system == system && row.scenario == scenario) {
            Some(row) => row.samples.push(value),
            None => {
                let (system, scenario) = (system.to_owned(), scenario.to_owned());
                self.rows.push(Row { system, scenario, unit, samples: vec![value], missing: None });
            }
        }
    }

    /// Adds a row that says why it has no figures, unless it has some.
    pub(crate) fn missing(&mut self, system: &str, scenario: &str, unit: &'static str, why: &str) {
        if !self.rows.iter().any(|row| row.system == system && row.scenario == scenario) {
            let (system, scenario) = (system.to_owned(), scenario.to_owned());
            self.rows.push(Row { system, scenario, unit, samples: Vec::new(), missing: Some(why.to_owned()) });
        }
    }

    /// Adds a line under the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn print(&self) {
        println!("\n## {}\n", self.title);
        let width = |text: fn(&Row) -> &str, least: usize| {
            self.rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0).max(least)
        };
        let (system, scenario) = (width(|row| &row.system, 6), width(|row| &row.scenario, 8));
        println!(
            "{:system$}  {:scenario$}  {:>10} {:>10} {:>10} {:>4}  unit",
            "system", "scenario", "median", "min", "max", "n"
        );
        for row in &self.rows {
            let ([median, min, max], n, unit) = (row.cells(), row.samples.len(), row.unit);
            println!(
                "{:system$}  {:scenario$}  {median:>10} {min:>10} {max:>10} {n:>4}  {unit}",
                row.system, row.scenario
            );
        }
        for note in &self.notes {
            println!("- {note}");
        }
        println!();
        for row in &self.rows {
            let [median, min, max] = row.cells();
            println!("{}\t{}\t{median}\t{min}\t{max}\t{}", row.system, row.scenario, row.unit);
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 3] {
        match &self.missing {
            Some(why) => [why.clone(), "-".to_owned(), "-".to_owned()],
            None => self.summary().map(number),
        }
    }

    fn summary(&self) -> [f64; 3] {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        [median(&sorted), sorted[0], sorted[sorted.len() - 1]]
    }
}

/// The middle of sorted samples, of which there is at least one.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
}

/// Three digits at least; no more than a measurement can carry.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}
