//! Plots as inline SVG: lines over linear or logarithmic axes, colours from the style sheet.

use std::fmt::Write as _;

use maud::{Markup, PreEscaped, html};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 268.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// Colours of the style sheet.
const COLOURS: usize = 8;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten; what is not above zero is left out.
    Log,
    /// Of shares below 1: by powers of ten of `1 / (1 - share)`.
    Tail,
}

/// One line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// What the legend calls it.
    pub(super) name: String,
    /// Which colour and mark.
    pub(super) colour: usize,
    /// 0 is solid, 1 dashed, 2 dotted.
    pub(super) dash: usize,
    /// Places without a value have a `y` of NaN.
    pub(super) points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    /// What it shows.
    pub(super) title: String,
    /// Text under the horizontal axis.
    pub(super) x_label: String,
    /// Its scale.
    pub(super) x_scale: Scale,
    /// Unit of the vertical axis.
    pub(super) unit: &'static str,
    /// Its scale.
    pub(super) y_scale: Scale,
    /// What is drawn.
    pub(super) lines: Vec<Line>,
    /// What is said under it, besides the legend.
    pub(super) note: String,
}

/// One axis: which values it shows.
#[derive(Clone, Copy, Debug)]
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Scale {
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
            Self::Tail => -(1.0 - value).max(1e-12).log10(),
        }
    }
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let placed = values.map(|value| scale.of(value)).filter(|place| place.is_finite());
        let (mut low, mut high) =
            placed.fold((f64::MAX, f64::MIN), |(low, high), place| (low.min(place), high.max(place)));
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                high = if high > low { high * 1.06 } else { low + 1.0 };
            }
            Scale::Log => (low, high) = ((low - 0.08), (high + 0.08).max(low + 0.5)),
            Scale::Tail => (low, high) = (0.0, high.max(1.0)),
        }
        Self { scale, low, high }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        (self.scale.of(value) - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => self.linear_ticks(),
            Scale::Log => self.log_ticks(),
            Scale::Tail => {
                let shares = [
                    (0.0, "0 %"),
                    (0.5, "50"),
                    (0.9, "90"),
                    (0.99, "99"),
                    (0.999, "99.9"),
                    (0.9999, "99.99"),
                    (0.999_99, "99.999"),
                    (0.999_999, "99.9999"),
                ];
                let fits = |(share, _): &(f64, &str)| {
                    self.place(*share) <= 1.001 && (self.high < 2.6 || !(0.4..0.6).contains(share))
                };
                shares.into_iter().filter(fits).map(|(share, text)| (share, text.to_owned())).collect()
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "a handful of ticks")]
    fn linear_ticks(&self) -> Vec<(f64, String)> {
        let rough = (self.high - self.low) / 5.0;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * magnitude).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        let (first, last) = ((self.low / step).ceil() as i32, (self.high / step).floor() as i32);
        (first..=last).map(|index| f64::from(index) * step).map(|value| (value, short(value))).collect()
    }

    #[allow(clippy::cast_possible_truncation, reason = "a handful of decades")]
    fn log_ticks(&self) -> Vec<(f64, String)> {
        let factors: &[f64] = if self.high - self.low < 2.2 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let values = decades.flat_map(|decade| factors.iter().map(move |factor| factor * 10_f64.powi(decade)));
        let shown = |value: &f64| (-1e-9..=1.0 + 1e-9).contains(&self.place(*value));
        values.filter(shown).map(|value| (value, short(value))).collect()
    }
}

/// A number in few characters: 0.05, 20, 4k, 1.5M.
fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{suffix}", if text.is_empty() || text == "-0" { "0" } else { text })
}

impl Plot {
    /// The figure, or nothing if there is nothing to draw.
    pub(super) fn figure(&self) -> Option<Markup> {
        let values = || self.lines.iter().flat_map(|line| &line.points).filter(|(_, y)| y.is_finite());
        values().next()?;
        let x = Axis::new(self.x_scale, values().map(|(x, _)| *x));
        let y = Axis::new(self.y_scale, values().map(|(_, y)| *y));
        Some(html! {
            figure.plot {
                figcaption { (self.title) @if !self.unit.is_empty() { span.unit { ", " (self.unit) } } }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) {
                    (grid(&x, &y))
                    text.label x=(LEFT + (WIDTH - LEFT - RIGHT) / 2.0) y=(HEIGHT - 5.0) text-anchor="middle" { (self.x_label) }
                    @for line in &self.lines { (line.drawn(&x, &y)) }
                }
                (self.legend())
                @if !self.note.is_empty() { p.note { (self.note) } }
            }
        })
    }

    /// One entry for each name; a single one needs none.
    fn legend(&self) -> Markup {
        let mut entries: Vec<&Line> = Vec::new();
        for line in self.lines.iter().filter(|line| line.points.iter().any(|(_, y)| y.is_finite())) {
            if !entries.iter().any(|entry| entry.name == line.name) {
                entries.push(line);
            }
        }
        html! {
            @if entries.len() > 1 {
                ul.legend {
                    @for line in entries {
                        li {
                            svg viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" {
                                g class=(line.class()) {
                                    path d="M1 6H29" {}
                                    (line.mark(22.0, 6.0))
                                }
                            }
                            (line.name)
                        }
                    }
                }
            }
        }
    }
}

fn across(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn up(place: f64) -> f64 {
    HEIGHT - BOTTOM - place * (HEIGHT - TOP - BOTTOM)
}

fn grid(x: &Axis, y: &Axis) -> Markup {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    html! {
        g.grid {
            @for (value, text) in y.ticks() {
                @let at = up(y.place(value));
                path d=(format!("M{LEFT} {at:.1}H{right}")) {}
                text x=(LEFT - 7.0) y=(format!("{:.1}", at + 4.5)) text-anchor="end" { (text) }
            }
            @for (value, text) in x.ticks() {
                @let at = across(x.place(value));
                path d=(format!("M{at:.1} {bottom}v5")) {}
                text x=(format!("{at:.1}")) y=(bottom + 18.0) text-anchor="middle" { (text) }
            }
            path.axis d=(format!("M{LEFT} {bottom}H{right}")) {}
        }
    }
}

impl Line {
    fn class(&self) -> String {
        format!("line c{} d{}", self.colour % COLOURS, self.dash % 3)
    }

    fn drawn(&self, x: &Axis, y: &Axis) -> Markup {
        let place = |(at, value): &(f64, f64)| (across(x.place(*at)), up(y.place(*value)));
        let mut path = String::new();
        let mut last = None;
        let mut command = 'M';
        for point in &self.points {
            let (left, top) = place(point);
            if !(left.is_finite() && top.is_finite()) {
                command = 'M';
                continue;
            }
            let _ = write!(path, "{command}{left:.1} {top:.1}"); // a String takes everything
            (command, last) = ('L', Some((left, top)));
        }
        let alone = self.points.iter().filter(|(_, y)| y.is_finite()).count() == 1;
        html! {
            g class=(self.class()) {
                title { (self.name) }
                @if !alone { path d=(path) {} }
                @if let Some((left, top)) = last { (self.mark(left, top)) }
            }
        }
    }

    /// A shape for those who do not tell the colours apart.
    fn mark(&self, x: f64, y: f64) -> Markup {
        let shape = match self.colour % 4 {
            0 => format!(r#"<circle class="mark" cx="{x:.1}" cy="{y:.1}" r="3.6"/>"#),
            1 => format!(r#"<rect class="mark" x="{:.1}" y="{:.1}" width="6.6" height="6.6"/>"#, x - 3.3, y - 3.3),
            2 => format!(r#"<path class="mark" d="M{x:.1} {:.1}l4.4 7.4h-8.8z"/>"#, y - 4.4),
            _ => format!(r#"<path class="mark" d="M{x:.1} {:.1}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"/>"#, y - 4.4),
        };
        PreEscaped(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(y_scale: Scale, points: Vec<(f64, f64)>) -> Plot {
        let line = Line { name: "a".to_owned(), colour: 0, dash: 0, points };
        Plot {
            title: "t".to_owned(),
            x_label: String::new(),
            x_scale: Scale::Linear,
            unit: "",
            y_scale,
            lines: vec![line],
            note: String::new(),
        }
    }

    #[test]
    fn numbers_on_axes_are_short() {
        let texts = [0.0, 0.05, 20.0, 2500.0, 40_000.0, 1.5e6, 3e9].map(short);
        assert_eq!(texts, ["0", "0.05", "20", "2500", "40k", "1.5M", "3G"]);
    }

    #[test]
    fn nothing_is_drawn_where_there_is_nothing_to_draw() {
        assert!(plot(Scale::Linear, vec![]).figure().is_none());
        assert!(plot(Scale::Linear, vec![(0.0, f64::NAN)]).figure().is_none());
    }

    #[test]
    fn every_place_is_a_number_inside_the_picture_whatever_the_values() {
        let zeros = vec![(0.0, 0.0), (1.0, 0.0)];
        let one = vec![(3.0, 5.0)];
        let mixed = vec![(0.0, 0.0), (1.0, f64::NAN), (2.0, 1e12), (3.0, 1e-9)];
        for points in [zeros, one, mixed] {
            for scale in [Scale::Linear, Scale::Log] {
                let text = plot(scale, points.clone()).figure().unwrap().into_string();
                assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            }
        }
    }

    #[test]
    fn a_gap_in_the_values_is_a_gap_in_the_line() {
        let points = vec![(0.0, 1.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 1.0)];
        let text = plot(Scale::Linear, points).figure().unwrap().into_string();
        let path = text.split("<path d=\"M").skip(1).find(|path| path.contains('L')).unwrap();
        assert_eq!(path.split('"').next().unwrap().matches('M').count(), 1, "{path}");
    }
}
