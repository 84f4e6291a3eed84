//! Tables on stdout, the same numbers as JSON, and figures.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::chart::{Series, bars, lines};
use crate::driver::{Measured, Times};

pub struct Report {
    name: &'static str,
    out: PathBuf,
    markdown: String,
    json: Vec<String>,
    /// Overhead of each system by the size of a synthetic transaction, for the figure.
    overhead: Vec<Series>,
}

impl Report {
    pub fn new(name: &'static str, out: &Path) -> Result<Report, String> {
        fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
        let (markdown, json, overhead) = (String::new(), Vec::new(), Vec::new());
        Ok(Report {
            name,
            out: out.to_owned(),
            markdown,
            json,
            overhead,
        })
    }

    /// One workload, all systems.
    pub fn add(&mut self, workload: &str, measured: Vec<Measured>) -> Result<(), String> {
        let min_of = |name: &str| {
            let found = measured.iter().find(|one| one.name == name)?;
            found.result.as_ref().ok().map(|times| times.min_ns)
        };
        let ours = min_of("vista").or(min_of("vista-disk"));
        let bare = min_of("bare");
        let size: Option<f64> = workload.parse().ok();
        let title = match size {
            Some(len) => format!("synthetic, {len} B ({})", self.name),
            None => format!("{workload} ({})", self.name),
        };
        let mut table = format!(
            "### {title}\n\n| system | ns/transaction, min | median | overhead over bare, ns \
             | against Vista |\n|---|---:|---:|---:|---:|\n"
        );
        for one in &measured {
            let row = match &one.result {
                Err(why) => format!("| {} | {why} | | | |\n", one.about),
                Ok(Times { median_ns, min_ns }) => {
                    let over = bare.map_or(String::new(), |bare| format!("{:.0}", min_ns - bare));
                    let against =
                        ours.map_or(String::new(), |ours| format!("{:.2}x", min_ns / ours));
                    self.json.push(format!(
                        "{{\"where\":\"{}\",\"workload\":\"{workload}\",\"system\":\"{}\",\
                         \"min_ns\":{min_ns:.1},\"median_ns\":{median_ns:.1}}}",
                        self.name, one.name
                    ));
                    format!(
                        "| {} | {min_ns:.0} | {median_ns:.0} | {over} | {against} |\n",
                        one.about
                    )
                }
            };
            table.push_str(&row);
        }
        println!("{table}");
        self.markdown.push_str(&table);
        self.markdown.push('\n');
        match size {
            Some(len) => self.remember_overhead(len, bare.unwrap_or(0.0), &measured),
            None => self.draw_throughput(workload, &measured)?,
        }
        Ok(())
    }

    /// Measurements that only Vista has.
    pub fn add_rows(
        &mut self,
        title: &str,
        unit: &str,
        rows: Vec<(String, f64)>,
    ) -> Result<(), String> {
        let mut table = format!("### {title}\n\n| what | {unit} |\n|---|---:|\n");
        for (what, value) in &rows {
            let digits = if *value < 10.0 { 2 } else { 0 };
            let _ = writeln!(table, "| {what} | {value:.digits$} |");
            self.json.push(format!(
                "{{\"where\":\"own\",\"workload\":\"{title}\",\"what\":\"{what}\",\
                 \"unit\":\"{unit}\",\"value\":{value:.3}}}"
            ));
        }
        println!("{table}");
        self.markdown.push_str(&table);
        self.markdown.push('\n');
        Ok(())
    }

    pub fn finish(&self) -> Result<(), String> {
        self.write(&format!("{}.md", self.name), &self.markdown)?;
        self.write(
            &format!("{}.json", self.name),
            &format!("[\n{}\n]\n", self.json.join(",\n")),
        )?;
        if !self.overhead.is_empty() {
            let title = format!("Transaction overhead ({})", self.name);
            let figure = lines(&title, "ns a transaction, over bare stores", &self.overhead);
            self.write(&format!("figure-3.4-{}.svg", self.name), &figure)?;
        }
        Ok(())
    }

    fn remember_overhead(&mut self, len: f64, bare: f64, measured: &[Measured]) {
        for one in measured.iter().filter(|one| one.name != "bare") {
            let Ok(times) = &one.result else { continue };
            let point = (len, (times.min_ns - bare).max(1.0));
            match self
                .overhead
                .iter_mut()
                .find(|series| series.name == one.name)
            {
                Some(series) => series.points.push(point),
                None => {
                    let (name, points) = (one.name.to_owned(), vec![point]);
                    self.overhead.push(Series { name, points });
                }
            }
        }
    }

    fn draw_throughput(&self, workload: &str, measured: &[Measured]) -> Result<(), String> {
        let rate = |one: &Measured| {
            let times = one.result.as_ref().ok()?;
            Some((one.name.to_owned(), 1e9 / times.min_ns))
        };
        let values: Vec<(String, f64)> = measured.iter().filter_map(rate).collect();
        let number = if workload == "debit-credit" {
            "3.5"
        } else {
            "3.6"
        };
        let title = format!("Throughput of {workload} ({})", self.name);
        let figure = bars(&title, "transactions a second", &values);
        self.write(&format!("figure-{number}-{}.svg", self.name), &figure)
    }

    fn write(&self, name: &str, content: &str) -> Result<(), String> {
        let path = self.out.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    }
}
