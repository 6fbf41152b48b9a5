//! What both towers make of texts and pictures.

/// A text or a picture in the space that both share: of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding(Vec<f32>);

impl Embedding {
    /// Scales to length 1; zeros stay zeros.
    pub fn new(mut values: Vec<f32>) -> Embedding {
        let length = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            values.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
        }
        Embedding(values)
    }

    /// Its coordinates.
    pub fn values(&self) -> &[f32] {
        &self.0
    }

    /// The cosine of the angle between two embeddings, -1 to 1.
    pub fn cosine(&self, other: &Embedding) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_by_hand() {
        let [x, diagonal] = [[2.0, 0.0], [1.0, 1.0]].map(|v| Embedding::new(v.to_vec()));
        assert!((x.cosine(&diagonal) - 0.5f64.sqrt()).abs() < 1e-6);
        assert_eq!(Embedding::new(vec![0.0; 2]).cosine(&Embedding::new(vec![1.0, 0.0])), 0.0);
    }
}
