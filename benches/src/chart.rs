//! Line charts as SVG: two axes with units, a legend, log scales where asked.
//!
//! Written by hand because this is all that the figures need: no fonts are
//! measured, and the file is text that shows in a diff.

use std::fmt::Write;

use crate::scale::{Kind, Scale};

pub struct Chart {
    /// Name of the file, without `.svg`.
    pub file: String,
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

pub struct Axis {
    /// With its unit.
    pub label: String,
    pub kind: Kind,
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    colour: &'static str,
    /// Attributes of a line that belongs to the one before it.
    dashes: &'static str,
}

/// Told apart by those who see colours differently, too (Okabe and Ito).
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555",
];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 60.0;
const LEGEND_ROW: f64 = 18.0;

impl Chart {
    pub fn new(file: impl Into<String>, title: impl Into<String>, x: Axis, y: Axis) -> Chart {
        Chart {
            file: file.into(),
            title: title.into(),
            x,
            y,
            lines: Vec::new(),
        }
    }

    pub fn line(&mut self, name: impl Into<String>, points: Vec<(f64, f64)>) {
        let own = self.lines.iter().filter(|line| line.dashes.is_empty());
        self.lines.push(Line {
            name: name.into(),
            points,
            colour: COLOURS[own.count() % COLOURS.len()],
            dashes: "",
        });
    }

    /// In the colour of the line before, dashed.
    pub fn line_beside(&mut self, name: impl Into<String>, points: Vec<(f64, f64)>) {
        self.lines.push(Line {
            name: name.into(),
            points,
            colour: self.lines.last().map_or(COLOURS[0], |line| line.colour),
            dashes: " stroke-dasharray=\"5 4\"",
        });
    }

    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let x = Scale::over(self.x.kind, points().map(|point| point.0));
        let y = Scale::over(self.y.kind, points().map(|point| point.1));
        // The legend stands below the axis, so that it hides no line.
        let height = HEIGHT + LEGEND_ROW * self.lines.len().div_ceil(2) as f64;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        text(
            &mut svg,
            WIDTH / 2.0,
            26.0,
            "middle",
            &self.title,
            "font-size=\"16\"",
        );
        self.grid(&mut svg, &x, &y);
        for (nth, line) in self.lines.iter().enumerate() {
            draw(&mut svg, line, &x, &y);
            legend(&mut svg, nth, line);
        }
        svg += "</svg>\n";
        svg
    }

    fn grid(&self, svg: &mut String, x: &Scale, y: &Scale) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in x.ticks() {
            let Some(at) = x.share(value).map(across) else {
                continue;
            };
            rule(svg, (at, TOP), (at, bottom));
            text(svg, at, bottom + 18.0, "middle", &label, "");
        }
        for (value, label) in y.ticks() {
            let Some(at) = y.share(value).map(down) else {
                continue;
            };
            rule(svg, (LEFT, at), (right, at));
            text(svg, LEFT - 8.0, at + 4.5, "end", &label, "");
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#333\"/>"
        );
        let middle = (LEFT + right) / 2.0;
        text(svg, middle, bottom + 42.0, "middle", &self.x.label, "");
        let centre = (TOP + bottom) / 2.0;
        let turned = format!("transform=\"rotate(-90 20 {centre})\"");
        text(svg, 20.0, centre, "middle", &self.y.label, &turned);
    }
}

impl Axis {
    pub fn new(label: &str, kind: Kind) -> Axis {
        let suffix = match kind {
            Kind::Linear => "",
            Kind::Log | Kind::Log2 => ", log scale",
        };
        Axis {
            label: format!("{label}{suffix}"),
            kind,
        }
    }
}

fn across(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn down(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
}

fn draw(svg: &mut String, line: &Line, x: &Scale, y: &Scale) {
    let (colour, dashes) = (line.colour, line.dashes);
    let places: Vec<(f64, f64)> = line
        .points
        .iter()
        .filter_map(|point| Some((across(x.share(point.0)?), down(y.share(point.1)?))))
        .collect();
    let path: Vec<String> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>",
        path.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
}

fn legend(svg: &mut String, nth: usize, line: &Line) {
    let (colour, dashes) = (line.colour, line.dashes);
    let x = LEFT + (nth % 2) as f64 * (WIDTH - LEFT - RIGHT) / 2.0;
    let y = HEIGHT + (nth / 2) as f64 * LEGEND_ROW;
    let _ = writeln!(
        svg,
        "<path d=\"M{x} {y}h24\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>\
         <circle cx=\"{}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>",
        x + 12.0
    );
    text(svg, x + 32.0, y + 4.5, "start", &line.name, "");
}

fn rule(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#ddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str, more: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_axes_labels_and_every_point() {
        let mut chart = Chart::new(
            "c",
            "Cost < 1",
            Axis::new("pages", Kind::Log2),
            Axis::new("us", Kind::Log),
        );
        chart.line("hot", vec![(1.0, 5.0), (4.0, 9.0), (16.0, 30.0)]);
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 3 + 1);
        for part in ["pages, log scale", "us, log scale", "hot", "Cost &lt; 1"] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
    }
}
