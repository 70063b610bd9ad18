//! The curve as a picture: an SVG that is plain text, the same for the same figures, and legible
//! on a light page and on a dark one.

use super::report::{Row, spaced};
use super::rules::Class;
use std::fmt::Write as _;

const LEFT: f64 = 80.0;
const TOP: f64 = 56.0;
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const BOTTOM: f64 = TOP + HEIGHT;
/// Powers of ten on the vertical axis: of a million, all fail at the top.
const DECADES: i32 = 6;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}
.axis{stroke:#656d76}
.grid{stroke:#656d76;stroke-opacity:.25}
.curve{fill:none;stroke-width:2.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis,.grid{stroke:#9198a1}}";

/// Colour and dashes: told apart without either.
fn look(class: Class) -> (&'static str, &'static str) {
    match class {
        Class::KeepsForEver => ("#d1483f", "16 3"),
        Class::Asks => ("#2f81f7", ""),
        Class::QuarterHour => ("#1a9e6a", "8 3"),
        Class::Istio => ("#c97b10", "3 3"),
        Class::AwsHttp => ("#c0399f", "10 3 2 3"),
        Class::RestartedDaily => ("#808890", "2 4"),
        Class::RestartedWeekly => ("#808890", "12 4"),
    }
}

/// Nothing at the bottom; above it the logarithm.
fn height_of(per_million: f64) -> f64 {
    let share = (per_million.max(0.1).log10() + 1.0) / f64::from(DECADES + 1);
    BOTTOM - share * HEIGHT
}

fn text(svg: &mut String, at: (f64, f64), class: &str, anchor: &str, words: &str) {
    let (x, y) = at;
    let _ = writeln!(
        svg,
        r#"<text x="{x:.0}" y="{y:.0}" class="{class}" text-anchor="{anchor}">{words}</text>"#
    );
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    );
}

/// The picture of the rows of the table, of which one is the default.
pub fn svg(rows: &[Row], verifiers: u64, default: &str) -> String {
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 400\" role=\"img\">\n",
    );
    let title = "Tokens refused after a rotation, by how long the new key was published before";
    let _ = writeln!(svg, "<title>{title}</title>\n<style>{STYLE}</style>");
    text(&mut svg, (LEFT - 60.0, 24.0), "title", "start", title);
    text(
        &mut svg,
        (LEFT - 60.0, 44.0),
        "",
        "start",
        "refused, of a million shown",
    );
    for power in -1..=DECADES {
        let (y, label) = match power {
            -1 => (BOTTOM, "0".to_owned()),
            power => (
                height_of(10_f64.powi(power)),
                spaced(10_u64.pow(power.unsigned_abs())),
            ),
        };
        line(&mut svg, "grid", (LEFT, y), (LEFT + WIDTH, y));
        text(&mut svg, (LEFT - 8.0, y + 4.0), "", "end", &label);
    }
    line(&mut svg, "axis", (LEFT, BOTTOM), (LEFT + WIDTH, BOTTOM));
    let columns = (rows.len() as f64 - 1.0).max(1.0);
    let xs: Vec<f64> = (0..rows.len())
        .map(|column| LEFT + column as f64 * WIDTH / columns)
        .collect();
    for (row, &x) in rows.iter().zip(&xs) {
        line(&mut svg, "axis", (x, BOTTOM), (x, BOTTOM + 5.0));
        text(&mut svg, (x, BOTTOM + 20.0), "", "middle", &row.label);
        if row.label == default {
            line(&mut svg, "axis", (x, TOP), (x, BOTTOM));
            text(&mut svg, (x, TOP - 4.0), "", "middle", "default");
        }
    }
    let middle = LEFT + WIDTH / 2.0;
    let below = "time published before it signs, minutes and hours (in steps, not to scale)";
    text(&mut svg, (middle, BOTTOM + 44.0), "", "middle", below);
    let note = format!("{} verifiers, of each kind as many", spaced(verifiers));
    text(&mut svg, (middle, BOTTOM + 64.0), "", "middle", &note);
    for (place, class) in (0_u8..).zip(Class::ALL) {
        let (colour, dashes) = look(class);
        let stroke = format!(r#"stroke="{colour}" stroke-dasharray="{dashes}""#);
        let mut points = String::new();
        for (row, x) in rows.iter().zip(&xs) {
            let refused = row.outcome.of(class).per_million();
            let _ = write!(points, "{x:.1},{:.1} ", height_of(refused));
            if refused == 0.0 {
                break;
            }
        }
        let _ = writeln!(
            svg,
            r#"<polyline class="curve" {stroke} points="{}"/>"#,
            points.trim_end()
        );
        let y = TOP + 8.0 + f64::from(place) * 24.0;
        let from = LEFT + WIDTH + 16.0;
        let _ = writeln!(
            svg,
            r#"<path class="curve" {stroke} d="M{from:.0} {y:.0}h28"/>"#
        );
        text(&mut svg, (from + 36.0, y + 4.0), "", "start", class.name());
    }
    svg.push_str("</svg>\n");
    svg
}
