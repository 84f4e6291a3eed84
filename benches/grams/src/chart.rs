//! Figures like the thesis' 3.4 to 3.6: logarithmic lines and bars, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 500.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 560.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 400.0;
const COLOURS: [&str; 12] = [
    "#444444", "#888888", "#c0392b", "#e67e22", "#d4a017", "#2471a3", "#5dade2", "#154360",
    "#1e8449", "#7dcea0", "#7d3c98", "#c39bd3",
];

pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Both axes logarithmic; the x values are bytes.
pub fn lines(title: &str, y_label: &str, series: &[Series]) -> String {
    let mut svg = open(title, y_label);
    let all = || series.iter().flat_map(|series| series.points.iter());
    let x = Scale::over(all().map(|point| point.0), LEFT, RIGHT);
    let y = Scale::over(all().map(|point| point.1), BOTTOM, TOP);
    y_axis(&mut svg, &y);
    if let Some(longest) = series.iter().max_by_key(|series| series.points.len()) {
        for &(at, _) in &longest.points {
            let label = bytes(at);
            text(&mut svg, x.place(at), BOTTOM + 18.0, "middle", &label);
        }
    }
    // One further than in bars, which begin with the bare stores: a system keeps its colour.
    for (index, series) in series.iter().enumerate() {
        let colour = COLOURS[(index + 1) % COLOURS.len()];
        let path: Vec<String> = series
            .points
            .iter()
            .map(|p| format!("{:.1},{:.1}", x.place(p.0), y.place(p.1)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        let row = TOP + 20.0 * index as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            RIGHT + 24.0,
            row - 10.0
        );
        text(&mut svg, RIGHT + 42.0, row, "start", &series.name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// A logarithmic bar for each value.
pub fn bars(title: &str, y_label: &str, values: &[(String, f64)]) -> String {
    let mut svg = open(title, y_label);
    let y = Scale::over(values.iter().map(|value| value.1), BOTTOM, TOP);
    y_axis(&mut svg, &y);
    let step = (WIDTH - LEFT - 20.0) / values.len().max(1) as f64;
    for (index, (name, value)) in values.iter().enumerate() {
        let (left, top) = (LEFT + 10.0 + step * index as f64, y.place(*value));
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            step * 0.7,
            BOTTOM - top
        );
        let middle = left + step * 0.35;
        text(&mut svg, middle, top - 5.0, "middle", &short(*value));
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{}\" text-anchor=\"end\" \
             transform=\"rotate(-30 {middle:.1} {})\">{name}</text>",
            BOTTOM + 16.0,
            BOTTOM + 16.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Decades from below the least value to above the greatest.
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Scale {
        let logs = values.filter(|&value| value > 0.0).map(f64::log10);
        let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), log| {
            (low.min(log), high.max(log))
        });
        Scale {
            low: low.floor(),
            high: high.ceil().max(low.floor() + 1.0),
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.log10() - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }
}

fn open(title: &str, y_label: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{title}</text>\n\
         <text transform=\"translate(18 {BOTTOM}) rotate(-90)\">{y_label}</text>\n"
    )
}

fn y_axis(svg: &mut String, y: &Scale) {
    for decade in y.low as i32..=y.high as i32 {
        let value = 10_f64.powi(decade);
        let at = y.place(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>",
            WIDTH - 20.0
        );
        text(svg, LEFT - 8.0, at + 4.0, "end", &short(value));
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", trimmed(v / 1e6)),
        v if v >= 1e3 => format!("{}k", trimmed(v / 1e3)),
        v => trimmed(v),
    }
}

fn trimmed(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn bytes(value: f64) -> String {
    match value as u64 {
        len if len >= 1 << 20 => format!("{} MB", len >> 20),
        len if len >= 1 << 10 => format!("{} KB", len >> 10),
        len => format!("{len} B"),
    }
}
