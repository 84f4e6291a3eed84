//! Samples and what is said of them: minimum, median, 99th percentile.
//!
//! The minimum says what the work costs, the median what it costs on this
//! machine today. Means are not used: one descheduling outweighs a thousand
//! good samples. (Sizes, which nobody deschedules, may have a mean.)

#[derive(Clone, Debug, Default)]
pub struct Sample {
    sorted: Vec<f64>,
}

impl Sample {
    pub fn new(mut values: Vec<f64>) -> Sample {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        Sample { sorted: values }
    }

    /// Where the median of all that could have been measured lies, 19 times of 20: the values whose
    /// ranks bound that many coin tosses (n/2 +- 1.96 sqrt(n)/2). Too few values bound nothing.
    pub fn median_within(&self) -> (f64, f64) {
        let count = self.sorted.len() as f64;
        let reach = 0.98 * count.sqrt();
        let below = (count / 2.0 - reach).floor();
        let above = (count / 2.0 + reach).ceil();
        if below < 1.0 || above > count {
            return (f64::NEG_INFINITY, f64::INFINITY);
        }
        (
            self.sorted[below as usize - 1],
            self.sorted[above as usize - 1],
        )
    }

    pub fn min(&self) -> f64 {
        self.sorted.first().copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    pub fn max(&self) -> f64 {
        self.sorted.last().copied().unwrap_or(f64::NAN)
    }

    pub fn mean(&self) -> f64 {
        self.sorted.iter().sum::<f64>() / self.sorted.len() as f64
    }

    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.sorted.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The nearest rank; no interpolation between two that were measured.
    pub fn quantile(&self, share: f64) -> f64 {
        if self.sorted.is_empty() {
            return f64::NAN;
        }
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        self.sorted[rank.clamp(1, self.sorted.len()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let sample = Sample::new(vec![5.0, 1.0, f64::NAN, 3.0, 2.0, 4.0]);
        assert_eq!(sample.min(), 1.0);
        assert_eq!(sample.median(), 3.0);
        assert_eq!(sample.p99(), 5.0);
        assert!(Sample::new(vec![]).median().is_nan());
    }

    #[test]
    fn many_values_bound_their_median() {
        let sample = Sample::new((1..=100).map(f64::from).collect());
        assert_eq!(sample.median_within(), (40.0, 60.0));
        let few = Sample::new(vec![1.0, 2.0, 3.0]);
        assert_eq!(few.median_within(), (f64::NEG_INFINITY, f64::INFINITY));
    }
}
