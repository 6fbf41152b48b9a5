//! The inverse of a group's sums with a ridge, ready to be applied.

use faer::linalg::solvers::{Llt, Solve};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Side};

use super::{Conditioning, Gathered, singular};
use crate::fusion::Result;
use crate::fusion::statistics::Moments;

/// Directions with eigenvalues below this part of the largest are left out: nothing but rounding is
/// known of them.
const NOISE: f64 = 1e-13;

/// The sums, decomposed as far as that serves every ridge.
pub(in crate::fusion) enum Sums<'a> {
    /// Eigenvectors as columns `[in, k]` and eigenvalues, from the inputs themselves: their
    /// singular values, squared.
    Spectrum(Mat<f64>, Vec<f64>),
    Gram(&'a Mat<f64>),
}

/// (G + ridge)^-1
pub(in crate::fusion) enum Inverse<'s> {
    Spectrum(&'s Mat<f64>, &'s [f64], f64),
    Cholesky(Llt<f64>, f64),
}

impl Sums<'_> {
    /// Few inputs are decomposed as they are (thin SVD, which sees twice the digits that their sums
    /// keep); sums only where there is no ridge (`whole`), for then directions without inputs must
    /// be left out.
    pub fn of(gathered: &Gathered, whole: bool) -> Result<Sums<'_>> {
        let failed = || singular(&gathered.name, gathered.width, 0.0);
        match &gathered.inputs {
            Moments::Samples(x) if x.nrows() == 0 => {
                Ok(Sums::Spectrum(Mat::zeros(gathered.width, 0), Vec::new()))
            }
            Moments::Samples(x) => {
                let svd = x.thin_svd().map_err(|_| failed())?;
                let squares = svd.S().column_vector().iter().map(|s| s * s).collect();
                Ok(Sums::Spectrum(svd.V().to_owned(), squares))
            }
            Moments::Gram(gram) if whole => {
                let eigen = gram.self_adjoint_eigen(Side::Lower).map_err(|_| failed())?;
                let values = eigen.S().column_vector().iter().map(|s| s.max(0.0)).collect();
                Ok(Sums::Spectrum(eigen.U().to_owned(), values))
            }
            Moments::Gram(gram) => Ok(Sums::Gram(gram)),
        }
    }

    /// With `ridge` in absolute figures; none where the sums are not positive definite.
    pub fn inverse(&self, ridge: f64) -> Option<Inverse<'_>> {
        match self {
            Sums::Spectrum(vectors, values) => Some(Inverse::Spectrum(vectors, values, ridge)),
            Sums::Gram(gram) => {
                let mut lifted = Mat::clone(gram);
                (0..lifted.nrows()).for_each(|i| lifted[(i, i)] += ridge);
                Some(Inverse::Cholesky(lifted.llt(Side::Lower).ok()?, ridge))
            }
        }
    }
}

impl Inverse<'_> {
    /// `m` (G + ridge)^-1 for `m` `[rows, in]` in the row space of the inputs.
    pub fn applied_to(&self, m: &Mat<f64>) -> Mat<f64> {
        match self {
            Inverse::Spectrum(vectors, values, ridge) => {
                let least = values.iter().fold(0.0f64, |most, &v| most.max(v)) * NOISE;
                let mut along = m * *vectors;
                for (j, &value) in values.iter().enumerate() {
                    let factor = if value > least { 1.0 / (value + ridge) } else { 0.0 };
                    (0..along.nrows()).for_each(|i| along[(i, j)] *= factor);
                }
                along * vectors.transpose()
            }
            Inverse::Cholesky(factor, _) => factor.solve(m.transpose()).transpose().to_owned(),
        }
    }

    pub fn conditioning(&self, width: usize) -> Conditioning {
        match self {
            Inverse::Spectrum(_, values, ridge) => {
                let most = values.iter().fold(0.0f64, |most, &v| most.max(v));
                let counted = || values.iter().filter(|&&v| *ridge > 0.0 || v > most * NOISE);
                let least = if *ridge > 0.0 && values.len() < width {
                    0.0
                } else {
                    counted().fold(most, |a, &b| a.min(b))
                };
                Conditioning {
                    effective_rank: counted().map(|v| v / (v + ridge)).sum(),
                    condition: (most + ridge) / (least + ridge),
                }
            }
            Inverse::Cholesky(factor, ridge) => {
                let lower = factor.L();
                let mut inverse = Mat::<f64>::zeros(width, width);
                invert_lower_triangular(inverse.as_mut(), lower, faer::get_global_parallelism());
                // trace (G + ridge)^-1 = || L^-1 ||^2
                let trace = inverse.norm_l2().powi(2);
                let most = greatest_eigenvalue(width, |v| lower * (lower.transpose() * v));
                let least =
                    1.0 / greatest_eigenvalue(width, |v| inverse.transpose() * (&inverse * v));
                Conditioning {
                    effective_rank: width as f64 - ridge * trace,
                    condition: most / least,
                }
            }
        }
    }
}

/// Of a positive definite map on vectors of `width`, by power iteration until it moves by less than
/// a thousandth.
fn greatest_eigenvalue(width: usize, apply: impl Fn(&Mat<f64>) -> Mat<f64>) -> f64 {
    let mut v = Mat::from_fn(width, 1, |i, _| 1.0 + (i % 7) as f64 / 7.0);
    v *= faer::Scale(1.0 / v.norm_l2());
    let mut greatest = 0.0;
    for _ in 0..40 {
        v = apply(&v);
        let norm = v.norm_l2().max(f64::MIN_POSITIVE);
        v *= faer::Scale(1.0 / norm);
        if (norm - greatest).abs() < 1e-3 * norm {
            return norm;
        }
        greatest = norm;
    }
    greatest
}
