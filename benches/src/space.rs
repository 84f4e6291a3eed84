//! The protocol space of the thesis (section 2.3.1, figures 6.3 to 6.7) as SVG:
//! to the right the effort to make events deterministic, upwards the effort to
//! treat few events as visible; each protocol at its place with what it cost.

use std::fmt::Write;

/// One protocol at its place, with lines of text below its name.
pub struct Place {
    pub protocol: &'static str,
    pub lines: Vec<String>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 500.0;
const COLUMN: f64 = 265.0;
const ROW: f64 = 135.0;

/// Column and row, as in the thesis' plots.
fn seat(protocol: &str) -> Option<(f64, f64)> {
    Some(match protocol {
        "cand" => (1.0, 0.0),
        "cand-log" => (2.08, 0.0),
        "cpvs" => (0.0, 1.0),
        "cbndvs" => (1.0, 1.0),
        "cbndvs-log" => (2.08, 1.0),
        "cpv-2pc" => (0.0, 2.2),
        "cbndv-2pc" => (1.0, 2.2),
        "auto" => (2.08, 2.2),
        _ => return None,
    })
}

pub fn svg(title: &str, places: &[Place]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <path d=\"M{LEFT} 40V{BOTTOM}H{}\" fill=\"none\" stroke=\"#333\"/>\n",
        WIDTH - 20.0
    );
    text(
        &mut svg,
        WIDTH / 2.0,
        26.0,
        "text-anchor=\"middle\" font-size=\"16\"",
        title,
    );
    text(
        &mut svg,
        (LEFT + WIDTH) / 2.0,
        BOTTOM + 40.0,
        "text-anchor=\"middle\"",
        "effort made to identify or convert non-deterministic events",
    );
    text(
        &mut svg,
        30.0,
        BOTTOM / 2.0 + 20.0,
        &format!(
            "text-anchor=\"middle\" transform=\"rotate(-90 30 {})\"",
            BOTTOM / 2.0 + 20.0
        ),
        "effort made to commit only for visible events",
    );
    for place in places {
        let Some((column, row)) = seat(place.protocol) else {
            continue;
        };
        let (x, y) = (LEFT + 16.0 + column * COLUMN, BOTTOM - 100.0 - row * ROW);
        let _ = writeln!(
            svg,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"#0072b2\"/>"
        );
        let name = place.protocol.to_uppercase();
        text(
            &mut svg,
            x + 12.0,
            y + 5.0,
            "font-weight=\"bold\" font-size=\"14\"",
            &name,
        );
        for (line, nth) in place.lines.iter().zip(1..) {
            text(
                &mut svg,
                x + 12.0,
                y + 5.0 + 16.0 * f64::from(nth),
                "fill=\"#333\"",
                line,
            );
        }
    }
    svg += "</svg>\n";
    svg
}

fn text(svg: &mut String, x: f64, y: f64, how: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {how}>{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_has_a_place_of_its_own() {
        let names = [
            "cpvs",
            "cand",
            "cbndvs",
            "cand-log",
            "cbndvs-log",
            "cpv-2pc",
            "cbndv-2pc",
            "auto",
        ];
        let places = names.map(|protocol| Place {
            protocol,
            lines: vec!["7 commits".to_owned()],
        });
        let svg = svg("nvi", &places);
        assert_eq!(svg.matches("<circle").count(), names.len());
        let mut seats =
            names.map(|name| seat(name).map(|(x, y)| ((x * 100.0) as i32, (y * 100.0) as i32)));
        seats.sort();
        assert!(seats.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
