//! How much pictures of one concept look like each of its cast.
use mixofshow::concept::with_words;
use mixofshow::metrics::{
    Embedding, ImageAlignment, Likeness, Metric, Sample, TextAlignment, Towers, VisionTower,
    closest,
};
use mixofshow::picture::Picture;

use crate::cli::Result;
use crate::cli::bench::asked;
use crate::cli::bench::study::Subject;

/// What is known of a cast, and by whom its pictures are looked at.
pub struct CastJudge<'a> {
    towers: &'a Towers,
    /// Of each concept, what it was trained from.
    trained_on: Vec<Vec<Embedding>>,
    /// Of those who are no places, cut out.
    identity: Option<(&'a VisionTower, Likeness)>,
    /// Their numbers.
    standing: Vec<usize>,
    firsts: Vec<Picture>,
    /// Its own captions, where it has any, and the pictures that they are of.
    captions: Vec<Vec<(usize, String)>>,
}

/// One picture, or the mean of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    pub pictures: usize,
    pub text: Option<f64>,
    /// Mean cosine in the model's own tower to the pictures of each of the cast.
    pub looks: Vec<f64>,
    /// The same in the tower that tells who is who, to those who are no places, cut out; not a
    /// number for places, and nothing without such a tower.
    pub identity: Vec<f64>,
    /// That tower takes it for who it is: 1 or 0.
    pub right: Option<f64>,
}

impl<'a> CastJudge<'a> {
    pub fn new(
        subjects: &[Subject],
        towers: &'a Towers,
        eye: Option<&'a VisionTower>,
    ) -> Result<CastJudge<'a>> {
        let (mut trained_on, mut firsts, mut captions) = (Vec::new(), Vec::new(), Vec::new());
        for subject in subjects {
            let pictures = subject.pictures()?;
            let seen = pictures.iter().map(|(picture, _)| Ok(towers.picture(picture)?));
            trained_on.push(seen.collect::<Result<Vec<_>>>()?);
            firsts.extend(pictures.first().map(|(picture, _)| picture.clone()));
            let told = pictures.into_iter().enumerate();
            captions.push(told.filter_map(|(i, (_, caption))| Some((i, caption?))).collect());
        }
        let standing: Vec<usize> =
            (0..subjects.len()).filter(|i| !asked::is_place(&subjects[*i])).collect();
        let identity = match eye {
            Some(eye) => {
                let masked = standing.iter().map(|i| subjects[*i].masked());
                Some((eye, Likeness::new(eye, &masked.collect::<Result<Vec<_>>>()?)?))
            }
            None => None,
        };
        Ok(CastJudge { towers, trained_on, identity, standing, firsts, captions })
    }

    /// The first picture that each was trained from.
    pub fn firsts(&self) -> Vec<Picture> {
        self.firsts.clone()
    }

    /// A picture that should show concept `own`, and what `text` says.
    pub fn see(&self, own: usize, picture: &Picture, text: &Embedding) -> Result<Looked> {
        let seen = [self.towers.picture(picture)?];
        let texts = std::slice::from_ref(text);
        let like = |trained_on: &Vec<Embedding>| {
            let sample = Sample { seen: &seen, trained_on, ..Sample::default() };
            ImageAlignment.score(&sample).unwrap_or(0.0)
        };
        let mut identity = Vec::new();
        let mut right = None;
        if let Some((eye, likeness)) = &self.identity {
            let found = likeness.of_part(*eye, picture, [0.0, 0.0, 1.0, 1.0])?;
            let at = |i: usize| self.standing.iter().position(|who| *who == i);
            if let Some(own) = at(own) {
                right = Some(f64::from(u8::from(closest(&found) == Some(own))));
            }
            let of = |i: usize| at(i).and_then(|at| found.get(at)).copied().unwrap_or(f64::NAN);
            identity = (0..self.trained_on.len()).map(of).collect();
        }
        Ok(Looked {
            pictures: 1,
            text: TextAlignment.score(&Sample { seen: &seen, texts, ..Sample::default() }),
            looks: self.trained_on.iter().map(like).collect(),
            identity,
            right,
        })
    }

    /// The taught pictures among themselves, each against its own caption.
    pub fn taught(&self, subjects: &[Subject]) -> Result<Vec<Looked>> {
        let mut all = Vec::new();
        for (own, subject) in subjects.iter().enumerate() {
            let of = &self.trained_on[own];
            let class = asked::class_phrase(subject, &subject.class_word);
            let (mut seen, mut texts) = (Vec::new(), Vec::new());
            for (i, caption) in &self.captions[own] {
                texts.push(self.towers.text(&with_words(caption, &class))?);
                seen.push(of[*i].clone());
            }
            let sample = Sample { seen: &seen, texts: &texts, ..Sample::default() };
            let like = |other: &Vec<Embedding>| {
                let pairs = of.iter().enumerate().flat_map(|(i, a)| {
                    let others = other.iter().enumerate();
                    others.filter(move |(j, b)| i != *j || *b != a).map(|(_, b)| a.cosine(b))
                });
                mean(pairs).unwrap_or(1.0)
            };
            let at = |i: usize| self.standing.iter().position(|who| *who == i);
            let identity = self.identity.as_ref().map_or(Vec::new(), |(_, likeness)| {
                let between = |i| Some(likeness.between(at(own)?, at(i)?));
                (0..self.trained_on.len()).map(|i| between(i).unwrap_or(f64::NAN)).collect()
            });
            all.push(Looked {
                pictures: of.len(),
                text: TextAlignment.score(&sample),
                looks: self.trained_on.iter().map(like).collect(),
                identity,
                right: None,
            });
        }
        Ok(all)
    }
}

impl Looked {
    /// The mean of single pictures.
    pub fn mean(all: &[Looked]) -> Looked {
        let each = |of: &dyn Fn(&Looked) -> &Vec<f64>| -> Vec<f64> {
            let width = all.first().map_or(0, |looked| of(looked).len());
            let column = |i: usize| all.iter().filter_map(move |looked| of(looked).get(i)).copied();
            (0..width).map(|i| mean(column(i)).unwrap_or(f64::NAN)).collect()
        };
        Looked {
            pictures: all.iter().map(|looked| looked.pictures).sum(),
            text: mean(all.iter().filter_map(|looked| looked.text)),
            looks: each(&|looked| &looked.looks),
            identity: each(&|looked| &looked.identity),
            right: mean(all.iter().filter_map(|looked| looked.right)),
        }
    }
}

fn mean(of: impl Iterator<Item = f64>) -> Option<f64> {
    let all: Vec<f64> = of.collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_of_pictures() {
        let one = |text, right, looks: [f64; 2]| Looked {
            pictures: 1,
            text: Some(text),
            looks: looks.to_vec(),
            identity: vec![looks[0], f64::NAN],
            right,
        };
        let both =
            Looked::mean(&[one(1.0, Some(1.0), [0.2, 0.4]), one(2.0, Some(0.0), [0.4, 0.0])]);
        assert_eq!((both.pictures, both.text, both.right), (2, Some(1.5), Some(0.5)));
        assert!((both.looks[0] - 0.3).abs() < 1e-12 && (both.looks[1] - 0.2).abs() < 1e-12);
        assert!(both.identity[1].is_nan());
        let none = Looked { pictures: 1, ..Looked::default() };
        assert_eq!(Looked::mean(std::slice::from_ref(&none)), none);
    }
}
