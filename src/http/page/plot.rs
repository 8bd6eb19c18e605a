//! Plots as inline SVG: a deployment's last minutes.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::model::{Timestamp, humane};
use crate::telemetry::Sample;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 60.0;

/// Green's share of the traffic over time.
pub(super) fn split(samples: &[Sample]) -> Markup {
    let share = |sample: &Sample| sample.green_share.map(|share| share.clamp(0.0, 1.0));
    let points = steps(samples, 1.0, share);
    let now = samples.last().and_then(share).map(|share| format!("{:.0} % green", share * 100.0));
    figure("Traffic on green", now.as_deref().unwrap_or("no load balancer"), samples, &[("green", points)])
}

/// Failed tasks in the windows over time.
pub(super) fn failures(samples: &[Sample]) -> Markup {
    let most = samples.iter().map(|sample| sample.green_failures.max(sample.blue_failures)).max().unwrap_or(0).max(1);
    let green = steps(samples, most.into(), |sample| Some(sample.green_failures.into()));
    let blue = steps(samples, most.into(), |sample| Some(sample.blue_failures.into()));
    let now = samples.last().map(|sample| format!("green {}, blue {}", sample.green_failures, sample.blue_failures));
    figure("Failed tasks in the window", now.as_deref().unwrap_or(""), samples, &[("blue", blue), ("green", green)])
}

fn figure(title: &str, now: &str, samples: &[Sample], lines: &[(&str, String)]) -> Markup {
    let span = span(samples).map(|(from, to)| humane(to.since(from)));
    html! {
        figure {
            figcaption { (title) @if let Some(span) = span { span.dim { ", last " (span) } } ": " b { (now) } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label={ (title) ": " (now) } {
                line x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) class="axis" {}
                @for (class, points) in lines { polyline class=(class) points=(points) {} }
            }
        }
    }
}

fn span(samples: &[Sample]) -> Option<(Timestamp, Timestamp)> {
    Some((samples.first()?.at, samples.last()?.at))
}

/// A value stays until the next one: corners, not slopes.
fn steps(samples: &[Sample], most: f64, value: impl Fn(&Sample) -> Option<f64>) -> String {
    let Some((from, to)) = span(samples) else { return String::new() };
    let whole = to.since(from).as_secs_f64().max(0.001);
    let x = |at: Timestamp| at.since(from).as_secs_f64() / whole * WIDTH;
    let y = |value: f64| HEIGHT - value / most * (HEIGHT - 2.0);
    let mut points = String::new();
    let mut before: Option<f64> = None;
    for sample in samples {
        let Some(value) = value(sample) else { continue };
        for height in before.into_iter().chain([value]) {
            // Writing to a string does not fail.
            let _ = write!(points, "{:.1},{:.1} ", x(sample.at), y(height));
        }
        before = Some(value);
    }
    // One sample alone is a line too.
    if let (Some(value), [_]) = (before, samples) {
        let _ = write!(points, "{WIDTH},{:.1}", y(value));
    }
    points.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: i64, share: f64) -> Sample {
        let at = Timestamp::from_millis(second * 1000);
        Sample { at, green_share: Some(share), green_failures: 0, blue_failures: 0 }
    }

    #[test]
    fn a_value_stays_until_the_next_one() {
        let share = |sample: &Sample| sample.green_share;
        let drawn = steps(&[sample(0, 0.0), sample(5, 1.0), sample(10, 0.5)], 1.0, share);
        assert_eq!(drawn, "0.0,60.0 150.0,60.0 150.0,2.0 300.0,2.0 300.0,31.0");
        assert_eq!(steps(&[sample(3, 1.0)], 1.0, share), "0.0,2.0 300,2.0");
        assert_eq!(steps(&[], 1.0, share), "");
    }
}
