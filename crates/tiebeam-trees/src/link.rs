//! [`Link`]: from raw scores to what a package's `predict` gives.

/// What is made of the scores of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Link {
    /// Nothing.
    Identity,
    /// `1 / (1 + exp(-k·x))`
    Sigmoid(f64),
    /// `exp(x)`
    Exp,
    /// 1 where the score is above zero, else 0.
    Hinge,
    /// Shares of one.
    Softmax,
    /// The number of the greatest.
    Argmax,
    /// `sign(x)·x²`
    SignedSquare,
    /// `ln(1 + exp(x))`
    LogOnePlusExp,
}

impl Link {
    /// How many numbers come of so many scores.
    pub(crate) fn outputs(self, scores: usize) -> usize {
        if self == Link::Argmax { 1 } else { scores }
    }

    /// In XGBoost's numbers, step by step as it computes them.
    pub(crate) fn apply_f32(self, scores: &mut [f32]) {
        match self {
            Link::Softmax => {
                let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let mut sum = 0.0f64;
                for score in scores.iter_mut() {
                    *score = (*score - most).exp();
                    sum += f64::from(*score);
                }
                scores.iter_mut().for_each(|score| *score /= sum as f32);
            }
            Link::Argmax => {
                let mut best = 0;
                for (i, score) in scores.iter().enumerate() {
                    best = if *score > scores[best] { i } else { best };
                }
                if let Some(first) = scores.first_mut() {
                    *first = best as f32;
                }
            }
            _ => scores.iter_mut().for_each(|score| *score = self.of_f32(*score)),
        }
    }

    fn of_f32(self, x: f32) -> f32 {
        match self {
            Link::Sigmoid(_) => 1.0 / ((-x).min(88.7).exp() + 1.0 + 1e-16),
            Link::Exp => x.exp(),
            Link::Hinge => f32::from(u8::from(x > 0.0)),
            Link::SignedSquare => x.signum() * x * x,
            Link::LogOnePlusExp => x.exp().ln_1p(),
            Link::Identity | Link::Softmax | Link::Argmax => x,
        }
    }

    /// In LightGBM's numbers.
    pub(crate) fn apply_f64(self, scores: &mut [f64]) {
        match self {
            Link::Softmax => {
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                scores.iter_mut().for_each(|score| *score = (*score - most).exp());
                let sum = scores.iter().sum::<f64>();
                scores.iter_mut().for_each(|score| *score /= sum);
            }
            _ => scores.iter_mut().for_each(|score| *score = self.of_f64(*score)),
        }
    }

    fn of_f64(self, x: f64) -> f64 {
        match self {
            Link::Sigmoid(k) => 1.0 / (1.0 + (-k * x).exp()),
            Link::Exp => x.exp(),
            Link::Hinge => f64::from(u8::from(x > 0.0)),
            Link::SignedSquare => x.signum() * x * x,
            Link::LogOnePlusExp => x.exp().ln_1p(),
            Link::Identity | Link::Softmax | Link::Argmax => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_what_predict_gives() {
        let f32s = |link: Link, scores: &[f32]| {
            let mut scores = scores.to_vec();
            link.apply_f32(&mut scores);
            scores.truncate(link.outputs(scores.len()));
            scores
        };
        assert_eq!(f32s(Link::Sigmoid(1.0), &[0.0, -1000.0, 1000.0]), [0.5, 3.006_636e-39, 1.0]);
        assert_eq!(f32s(Link::Argmax, &[1.0, 3.0, 3.0]), [1.0]);
        assert_eq!(f32s(Link::Hinge, &[0.0, 0.1]), [0.0, 1.0]);
        assert_eq!(f32s(Link::Softmax, &[1000.0, 1000.0]), [0.5, 0.5]);
        let mut scores = [-2.0, 3.0];
        Link::SignedSquare.apply_f64(&mut scores);
        assert_eq!(scores, [-4.0, 9.0]);
    }
}
