//! Tables as Markdown and JSON, and a figure.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::chart::{Series, bars, lines};
use crate::driver::{Measured, Times};

pub struct Report {
    name: String,
    out: PathBuf,
    sizes: Vec<(usize, Vec<Measured>)>,
}

impl Report {
    pub fn new(name: &str, out: &Path) -> Result<Report, String> {
        fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
        Ok(Report {
            name: name.to_owned(),
            out: out.to_owned(),
            sizes: Vec::new(),
        })
    }

    pub fn add(&mut self, size: usize, measured: Vec<Measured>) {
        for one in &measured {
            eprintln!("{} {size} B {}: {:?}", self.name, one.system, one.result);
        }
        self.sizes.push((size, measured));
    }

    pub fn finish(&self, title: &str, unit: &str) -> Result<(), String> {
        let table = self.table();
        print!("{table}");
        self.write(&format!("{}.md", self.name), &table)?;
        self.write(&format!("{}.json", self.name), &self.json())?;
        let mut series: Vec<Series> = Vec::new();
        for (size, measured) in &self.sizes {
            for one in measured {
                let Ok(times) = &one.result else { continue };
                let point = (*size as f64, times.least_ns / 1000.0);
                match series.iter_mut().find(|series| series.name == one.system) {
                    Some(series) => series.points.push(point),
                    None => series.push(Series {
                        name: one.system.to_owned(),
                        points: vec![point],
                    }),
                }
            }
        }
        self.write(&format!("{}.svg", self.name), &lines(title, unit, &series))?;
        let rate = |one: &Measured| {
            let times = one.result.as_ref().ok()?;
            Some((one.system.to_owned(), times.per_second))
        };
        if let Some((size, measured)) = self.sizes.first() {
            let values: Vec<(String, f64)> = measured.iter().filter_map(rate).collect();
            let title = format!("Eight under way, {size} B");
            let figure = bars(&title, "requests answered a second", &values);
            self.write(&format!("{}-rate.svg", self.name), &figure)?;
        }
        Ok(())
    }

    /// What a system adds is half of the difference to bare UDP: each side does one half.
    fn table(&self) -> String {
        let mut text = format!(
            "### {}\n\n| size | system | round trip, us: least, median of rounds | \
             added to UDP on each side, us | a second, 8 under way |\n|---:|---|---:|---:|---:|\n",
            self.name
        );
        for (size, measured) in &self.sizes {
            let udp = measured.iter().find(|one| one.system == "udp");
            let udp = udp.and_then(|one| one.result.as_ref().ok());
            for one in measured {
                let _ = match &one.result {
                    Err(why) => writeln!(text, "| {size} | {} | {why} | | |", one.system),
                    Ok(Times {
                        least_ns,
                        median_ns,
                        per_second,
                    }) => {
                        let added = udp.map_or(String::new(), |udp| {
                            let least = (least_ns - udp.least_ns) / 2000.0;
                            format!("{least:.2}, {:.2}", (median_ns - udp.median_ns) / 2000.0)
                        });
                        writeln!(
                            text,
                            "| {size} | {} | {:.2}, {:.2} | {added} | {per_second:.0} |",
                            one.system,
                            least_ns / 1000.0,
                            median_ns / 1000.0
                        )
                    }
                };
            }
        }
        text.push('\n');
        text
    }

    fn json(&self) -> String {
        let mut rows = Vec::new();
        for (size, measured) in &self.sizes {
            for one in measured {
                let Ok(times) = &one.result else { continue };
                rows.push(format!(
                    "{{\"where\":\"{}\",\"size\":{size},\"system\":\"{}\",\"least_ns\":{:.0},\
                     \"median_ns\":{:.0},\"per_second\":{:.0}}}",
                    self.name, one.system, times.least_ns, times.median_ns, times.per_second
                ));
            }
        }
        format!("[\n{}\n]\n", rows.join(",\n"))
    }

    fn write(&self, name: &str, content: &str) -> Result<(), String> {
        let path = self.out.join(name);
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    }
}
