//! Scores of embeddings.

/// Factor of CLIPScore.
const WEIGHT: f64 = 2.5;

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

    /// The cosine of the angle between two embeddings.
    pub fn cosine(&self, other: &Embedding) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }
}

/// Mean CLIPScore of pairs of a text and its picture; 0 of none.
pub fn text_alignment<'a>(pairs: impl IntoIterator<Item = (&'a Embedding, &'a Embedding)>) -> f64 {
    mean(pairs.into_iter().map(|(text, picture)| WEIGHT * text.cosine(picture).max(0.0)))
}

/// Mean cosine over all pairs of a generated picture and one that was trained from; 0 of none.
pub fn image_alignment(generated: &[Embedding], trained_on: &[Embedding]) -> f64 {
    mean(generated.iter().flat_map(|a| trained_on.iter().map(|b| a.cosine(b))))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let [x, y, diagonal] =
            [[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]].map(|v| Embedding::new(v.to_vec()));
        let back = Embedding::new(vec![-1.0, 0.0]);
        assert!((x.cosine(&diagonal) - 0.5f64.sqrt()).abs() < 1e-6);
        assert!((text_alignment([(&x, &x), (&x, &y), (&x, &back)]) - 2.5 / 3.0).abs() < 1e-6);
        let score = image_alignment(&[x.clone(), y], &[x.clone(), diagonal]);
        assert!((score - (1.0 + 0.0 + 2.0 * 0.5f64.sqrt()) / 4.0).abs() < 1e-6);
        assert_eq!(image_alignment(&[], &[x]), 0.0);
        assert_eq!(Embedding::new(vec![0.0; 2]).cosine(&Embedding::new(vec![1.0, 0.0])), 0.0);
    }
}
