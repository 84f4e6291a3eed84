//! An axis: where values lie on it, and which values are written beside it.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// From zero.
    Linear,
    /// Decades; values that are not above zero are not shown.
    Log,
    /// Powers of two, for pages and their like.
    Log2,
}

#[derive(Clone, Copy, Debug)]
pub struct Scale {
    kind: Kind,
    low: f64,
    high: f64,
}

impl Scale {
    /// The smallest scale with round ends that shows all of `values`.
    pub fn over(kind: Kind, values: impl Iterator<Item = f64>) -> Scale {
        let shown = values.filter(|v| v.is_finite() && (kind == Kind::Linear || *v > 0.0));
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in shown {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (1.0, 2.0);
        }
        match kind {
            Kind::Linear => {
                let step = round_step((high.max(0.0) - low.min(0.0)) / 5.0);
                low = (low.min(0.0) / step).floor() * step;
                high = (high / step).ceil().max(1.0) * step;
            }
            Kind::Log => {
                low = 10f64.powf(low.log10().floor());
                high = 10f64.powf(high.log10().ceil()).max(low * 10.0);
            }
            Kind::Log2 => {
                low = low.log2().floor().exp2();
                high = high.log2().ceil().exp2().max(low * 2.0);
            }
        }
        Scale { kind, low, high }
    }

    /// Where a value lies, from 0 to 1.
    pub fn share(&self, value: f64) -> Option<f64> {
        let share = match self.kind {
            Kind::Linear => (value - self.low) / (self.high - self.low),
            _ if value <= 0.0 => return None,
            _ => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        (share.is_finite() && (-0.001..=1.001).contains(&share)).then_some(share)
    }

    pub fn ticks(&self) -> Vec<(f64, String)> {
        let values: Vec<f64> = match self.kind {
            Kind::Linear => {
                let step = round_step((self.high - self.low) / 5.0);
                let count = ((self.high - self.low) / step).round() as usize;
                (0..=count).map(|i| self.low + i as f64 * step).collect()
            }
            Kind::Log => powers(self.low, self.high, 10.0),
            Kind::Log2 => {
                let doublings = (self.high / self.low).log2().round();
                powers(self.low, self.high, if doublings > 8.0 { 4.0 } else { 2.0 })
            }
        };
        values.into_iter().map(|v| (v, label(v))).collect()
    }
}

fn powers(low: f64, high: f64, base: f64) -> Vec<f64> {
    std::iter::successors(Some(low), |value| Some(value * base))
        .take_while(|value| *value <= high * 1.001)
        .collect()
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 || !least.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= least * 0.999);
    factor.unwrap_or(10.0) * power
}

fn label(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value.abs() >= 1e6 {
        format!("{}M", trimmed(value / 1e6))
    } else if value.abs() >= 1e4 {
        format!("{}k", trimmed(value / 1e3))
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_round_and_everything_is_shown() {
        let scale = Scale::over(Kind::Log, [3.0, 800.0].into_iter());
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(labels, ["1", "10", "100", "1000"]);
        assert_eq!(scale.share(1000.0), Some(1.0));
        assert_eq!(scale.share(0.0), None);

        let scale = Scale::over(Kind::Linear, [0.4, 11.0].into_iter());
        let labels: Vec<String> = scale.ticks().into_iter().map(|(_, text)| text).collect();
        assert_eq!(labels, ["0", "5", "10", "15"]);

        let scale = Scale::over(Kind::Log2, [1.0, 4096.0].into_iter());
        assert_eq!(scale.ticks().len(), 7);
    }
}
