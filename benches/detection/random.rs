//! Draws from distributions that a life needs.

use fastrand::Rng;

/// Between two bounds, every value as likely.
pub fn between(rng: &mut Rng, from: f64, to: f64) -> f64 {
    from + (to - from) * rng.f64()
}

/// Between two bounds, every order of magnitude as likely.
pub fn scale(rng: &mut Rng, from: f64, to: f64) -> f64 {
    between(rng, from.ln(), to.ln()).exp()
}

/// Until the next of events that come by chance, one in `mean` on average.
pub fn wait(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

/// How many of events that come by chance, `mean` on average. Above thirty the normal distribution is close enough.
pub fn poisson(rng: &mut Rng, mean: f64) -> u64 {
    if mean > 30.0 {
        return whole(mean + mean.sqrt() * normal(rng));
    }
    let limit = (-mean).exp();
    let (mut count, mut product) = (0, rng.f64());
    while product > limit {
        count += 1;
        product *= rng.f64();
    }
    count
}

/// How many of `trials` succeed, each with the chance `p`.
pub fn binomial(rng: &mut Rng, trials: u64, p: f64) -> u64 {
    if p <= 0.0 || trials == 0 {
        return 0;
    }
    if p >= 1.0 {
        return trials;
    }
    if trials <= 40 {
        return (0..trials).map(|_| u64::from(rng.f64() < p)).sum();
    }
    let mean = float(trials) * p;
    if mean < 10.0 {
        return poisson(rng, mean).min(trials);
    }
    whole(mean + (mean * (1.0 - p)).sqrt() * normal(rng)).min(trials)
}

fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates: nothing is below zero")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
fn float(value: u64) -> f64 {
    value as f64
}
