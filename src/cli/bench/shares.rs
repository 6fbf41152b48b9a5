//! What `mos bench concepts` finds: each concept's scores, and means over concepts and casts.
use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::cli::units;

#[derive(Serialize)]
pub struct Report {
    pub concepts: Vec<ConceptReport>,
    /// Over all of them, by way.
    pub summary: Vec<Summary>,
}

#[derive(Serialize)]
pub struct ConceptReport {
    pub cast: String,
    pub name: String,
    pub class_word: String,
    pub other_class: String,
    /// The pictures that it was trained from, among themselves, and with their own captions.
    pub taught: Scored,
    pub ways: Vec<Scored>,
}

/// Pictures of one concept, asked for in one way.
#[derive(Clone, Serialize)]
pub struct Scored {
    pub what: &'static str,
    pub pictures: usize,
    /// Mean cosine with the pictures that it was trained from.
    pub image: f64,
    /// CLIPScore, with the class word in the place of the concept's.
    pub text: Option<f64>,
    /// Image alignment, where the taught pictures have 1 and the class word alone has 0.
    pub share: Option<f64>,
    /// As `image`, in the tower that tells who is who, to the pictures cut out.
    pub identity: Option<f64>,
    /// As `share`, of that.
    pub identity_share: Option<f64>,
    /// Of each part, the median over pictures.
    pub colours: Vec<PartColour>,
    /// Seconds that learning took, perhaps beside others; none where the concept was there.
    pub learnt_in: Option<f64>,
}

#[derive(Clone, Serialize)]
pub struct PartColour {
    pub part: String,
    /// 0 to 255, in the channel that differs most.
    pub distance: f64,
}

/// One way over all concepts.
#[derive(Serialize)]
pub struct Summary {
    pub what: &'static str,
    pub concepts: usize,
    pub casts: usize,
    pub share: Option<Spread>,
    pub identity_share: Option<Spread>,
    pub image: Option<Spread>,
    pub identity: Option<Spread>,
    pub text: Option<Spread>,
    /// The median over all parts of all concepts.
    pub colour: Option<f64>,
    /// The share of parts that are near their colour.
    pub parts_near: Option<f64>,
    pub parts: usize,
}

/// A figure over concepts, each cast's mean counting once.
#[derive(Clone, Serialize)]
pub struct Spread {
    pub mean: f64,
    /// Standard deviation of the casts' means; none of a single one.
    pub over_casts: Option<f64>,
    /// Standard deviation over concepts; none of a single one.
    pub over_concepts: Option<f64>,
    pub least: f64,
    pub most: f64,
}

/// A colour that nobody would call another one.
pub const NEAR: f64 = 20.0;
/// The way that has no share.
pub const CLASS: &str = "class word";
pub const TAUGHT: &str = "the pictures themselves";
/// A class word whose pictures are as near as the taught ones themselves tells of no share.
const LEAST_APART: f64 = 0.01;

impl ConceptReport {
    /// Fills in what share of the taught pictures' likeness each way has.
    pub fn with_shares(mut self) -> ConceptReport {
        let of = |what| self.ways.iter().find(|way| way.what == what).map(|way| way.image);
        if let Some(none) = of(CLASS) {
            let all = self.taught.image - none;
            for way in self.ways.iter_mut().chain([&mut self.taught]) {
                way.share = (all > LEAST_APART).then(|| (way.image - none) / all);
            }
        }
        let of = |what| self.ways.iter().find(|way| way.what == what).and_then(|way| way.identity);
        if let Some((none, taught)) = of(CLASS).zip(self.taught.identity) {
            let all = taught - none;
            for way in self.ways.iter_mut().chain([&mut self.taught]) {
                let share = way.identity.map(|identity| (identity - none) / all);
                way.identity_share = share.filter(|_| all > LEAST_APART);
            }
        }
        self
    }
}

impl Report {
    pub fn new(concepts: Vec<ConceptReport>) -> Report {
        let mut ways: Vec<&'static str> = Vec::new();
        for way in concepts.iter().flat_map(ConceptReport::all) {
            if !ways.contains(&way.what) {
                ways.push(way.what);
            }
        }
        let summary = ways.into_iter().map(|what| Summary::of(what, &concepts)).collect();
        Report { concepts, summary }
    }

    /// Each concept in each way.
    pub fn each(&self) -> Table {
        let header =
            ["concept", "what", "text", "image", "share", "who", "share", "colours", "trained in"];
        let mut table = table(&header, 2);
        for concept in &self.concepts {
            for way in concept.all() {
                let took = way.learnt_in.map(|s| units::duration(Duration::from_secs_f64(s)));
                table.add_row([
                    concept.title(),
                    way.what.to_string(),
                    figure(way.text, 3),
                    format!("{:.3}", way.image),
                    figure(way.share, 2),
                    figure(way.identity, 3),
                    figure(way.identity_share, 2),
                    figure(median(way.colours.iter().map(|part| part.distance)), 0),
                    took.unwrap_or_default(),
                ]);
            }
        }
        table
    }

    /// All concepts together.
    pub fn all(&self) -> Table {
        let near = format!("within {NEAR:.0}");
        let header =
            ["what", "share", "concepts", "least", "most", "who: share", "text", "colours", &near];
        let mut table = table(&header, 1);
        for way in &self.summary {
            let share = way.share.as_ref();
            let spread = |of: Option<f64>| figure(of, 2);
            let over_casts = |of: Option<&Spread>| {
                of.map_or_else(String::new, |share| match share.over_casts {
                    Some(over) => format!("{:.2} ± {over:.2}", share.mean),
                    None => format!("{:.2}", share.mean),
                })
            };
            table.add_row([
                way.what.to_string(),
                over_casts(share),
                share.and_then(|s| s.over_concepts).map_or("".into(), |s| format!("± {s:.2}")),
                spread(share.map(|share| share.least)),
                spread(share.map(|share| share.most)),
                over_casts(way.identity_share.as_ref()),
                figure(way.text.as_ref().map(|text| text.mean), 3),
                figure(way.colour, 0),
                way.parts_near.map_or_else(String::new, |near| format!("{:.0} %", 100.0 * near)),
            ]);
        }
        table
    }
}

impl ConceptReport {
    fn title(&self) -> String {
        match self.cast.is_empty() {
            true => format!("{} ({})", self.name, self.class_word),
            false => format!("{}/{} ({})", self.cast, self.name, self.class_word),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Scored> {
        [&self.taught].into_iter().chain(&self.ways)
    }
}

impl Summary {
    fn of(what: &'static str, concepts: &[ConceptReport]) -> Summary {
        let scored: Vec<(&str, &Scored)> = concepts
            .iter()
            .flat_map(|concept| concept.all().map(|way| (concept.cast.as_str(), way)))
            .filter(|(_, way)| way.what == what)
            .collect();
        let spread = |of: &dyn Fn(&Scored) -> Option<f64>| {
            Spread::of(scored.iter().filter_map(|(cast, way)| Some((*cast, of(way)?))))
        };
        let parts: Vec<f64> =
            scored.iter().flat_map(|(_, way)| way.colours.iter().map(|c| c.distance)).collect();
        let near = parts.iter().filter(|distance| **distance <= NEAR).count();
        let casts: std::collections::BTreeSet<&str> =
            scored.iter().map(|(cast, _)| *cast).collect();
        Summary {
            what,
            concepts: scored.len(),
            casts: casts.len(),
            share: spread(&|way| way.share),
            identity_share: spread(&|way| way.identity_share),
            image: spread(&|way| Some(way.image)),
            identity: spread(&|way| way.identity),
            text: spread(&|way| way.text),
            colour: median(parts.iter().copied()),
            parts_near: (!parts.is_empty()).then(|| near as f64 / parts.len() as f64),
            parts: parts.len(),
        }
    }
}

impl Spread {
    /// Of figures of concepts, each with its cast.
    pub fn of<'a>(figures: impl Iterator<Item = (&'a str, f64)>) -> Option<Spread> {
        let (mut casts, mut all) = (BTreeMap::<&str, Vec<f64>>::new(), Vec::new());
        for (cast, figure) in figures {
            casts.entry(cast).or_default().push(figure);
            all.push(figure);
        }
        let means: Vec<f64> = casts.values().map(|of| mean(of)).collect();
        Some(Spread {
            mean: (!means.is_empty()).then(|| mean(&means))?,
            over_casts: deviation(&means),
            over_concepts: deviation(&all),
            least: all.iter().copied().reduce(f64::min)?,
            most: all.iter().copied().reduce(f64::max)?,
        })
    }
}

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len().max(1) as f64
}

/// The standard deviation of a sample; none of a single figure.
fn deviation(of: &[f64]) -> Option<f64> {
    let mean = mean(of);
    let squares: f64 = of.iter().map(|x| (x - mean).powi(2)).sum();
    (of.len() > 1).then(|| (squares / (of.len() - 1) as f64).sqrt())
}

/// The middle one; of an even number the mean of both. None of nothing.
pub fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    let (a, b) = (all.get(all.len().checked_sub(1)? / 2)?, all.get(all.len() / 2)?);
    Some((a + b) / 2.0)
}

pub fn figure(of: Option<f64>, digits: usize) -> String {
    of.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

pub fn table(header: &[&str], numbers_from: usize) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(what: &'static str, image: f64, distance: f64) -> Scored {
        let colours = vec![PartColour { part: "hat".into(), distance }];
        let (text, share, learnt_in) = (Some(1.0), None, None);
        // The judge of identity tells half as much.
        let (identity, identity_share) = (Some(image / 2.0), None);
        Scored {
            what,
            pictures: 1,
            image,
            text,
            share,
            identity,
            identity_share,
            colours,
            learnt_in,
        }
    }

    fn concept(cast: &str, name: &str, words: f64, distance: f64) -> ConceptReport {
        let taught = scored(TAUGHT, 0.7, 2.0);
        let ways = vec![scored(CLASS, 0.1, 90.0), scored("ED-LoRA", words, distance)];
        let [cast, name, class_word, other_class] = [cast, name, "man", "woman"].map(String::from);
        ConceptReport { cast, name, class_word, other_class, taught, ways }.with_shares()
    }

    #[test]
    fn shares_by_hand() {
        let concepts = vec![
            concept("1", "a", 0.7, 10.0),
            concept("1", "b", 0.4, 30.0),
            concept("2", "c", 0.55, 12.0),
        ];
        let report = Report::new(concepts);
        let [taught, class, words] = &report.summary[..] else { panic!("three ways") };
        let share = |way: &Summary| way.share.as_ref().unwrap().mean;
        assert!((share(taught) - 1.0).abs() < 1e-12 && share(class).abs() < 1e-12);
        // Of the casts 0.75 and 0.75, of the concepts 1, 0.5 and 0.75.
        let of_words = words.share.as_ref().unwrap();
        assert!((of_words.mean - 0.75).abs() < 1e-12);
        assert!(of_words.over_casts.unwrap() < 1e-9);
        assert!((of_words.over_concepts.unwrap() - 0.25).abs() < 1e-9);
        assert!((of_words.least - 0.5).abs() < 1e-9 && (of_words.most - 1.0).abs() < 1e-9);
        assert_eq!((words.concepts, words.casts, words.parts), (3, 2, 3));
        assert_eq!((words.colour, class.colour), (Some(12.0), Some(90.0)));
        assert!((words.parts_near.unwrap() - 2.0 / 3.0).abs() < 1e-12);
        let identity = words.identity_share.as_ref().unwrap();
        assert!((identity.mean - 0.75).abs() < 1e-12);
        assert!((words.identity.as_ref().unwrap().mean - 0.275).abs() < 1e-12);
        assert!(report.all().to_string().contains("0.75 ± 0.00"));
        assert!(report.each().to_string().contains("1/a (man)"));
    }

    #[test]
    fn medians_and_what_has_none() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
        assert_eq!(deviation(&[1.0]), None);
        // A class that looks like the taught pictures themselves.
        let mut alike = concept("", "a", 0.7, 0.0);
        alike.ways[0].image = 0.7;
        assert_eq!(alike.with_shares().ways[1].share, None);
    }
}
