//! What `mos bench table` finds: rows of methods and mergers, and whether bleeding came as it was
//! predicted.
use std::fmt::Write;

use mixofshow::counted;
use mixofshow::metrics::survey::Class;
use mixofshow::metrics::{Agreement, Pairs};
use serde::Serialize;

use super::judge::Looked;
use crate::cli::bench::asked;
use crate::cli::bench::shares::{CLASS, Spread, figure, table};
use crate::cli::bench::study::Cast;
use mixofshow::training::step::Method;

/// Concepts of one kind, as columns have them.
const GROUPS: [(&str, &[Class]); 3] = [
    ("people, animals", &[Class::People, Class::Animals]),
    ("objects", &[Class::Objects]),
    ("places", &[Class::Places]),
];
const ALL: &str = "all";

#[derive(Serialize)]
pub struct Report {
    pub settings: Settings,
    /// Means over concepts; spread over casts.
    pub rows: Vec<Row>,
    /// Whether concepts became like each other where that was predicted.
    pub bleeding: Vec<Bleeding>,
    /// Each concept in each row.
    pub concepts: Vec<ConceptRow>,
}

#[derive(Serialize)]
pub struct Settings {
    pub model: String,
    pub adapter: String,
    /// The file of the settings.
    pub taught_by: Option<String>,
    /// Of each run; none where they differ.
    pub updates: Option<usize>,
    pub prompts: usize,
    pub seeds: Vec<u64>,
    pub sampling_steps: usize,
    pub guidance: f32,
    /// Who told who is who.
    pub identity: Option<String>,
}

/// One concept in one row.
#[derive(Clone, Serialize)]
pub struct ConceptRow {
    pub cast: String,
    pub name: String,
    pub class_word: String,
    pub what: &'static str,
    pub merged: bool,
    pub pictures: usize,
    /// CLIPScore, with the class word in the place of the concept's.
    pub text: Option<f64>,
    /// Mean cosine to the pictures that it was trained from, in the model's own tower.
    pub image: f64,
    /// The same in the tower that tells who is who.
    pub identity: Option<f64>,
    /// The share of pictures that this tower takes for who they are, of all of the cast.
    pub right: Option<f64>,
    /// Likeness of ordinary prompts' pictures to the base model's.
    pub ordinary: Option<f64>,
    /// To teach it, or to merge all of its cast.
    pub seconds: Option<f64>,
    /// Likeness to each of the cast, in its order, in the model's own tower.
    pub looks: Vec<f64>,
    /// The same in the tower that tells who is who; null for places.
    pub identities: Vec<f64>,
    #[serde(skip)]
    at: usize,
}

impl ConceptRow {
    /// Of the cast's concept `at`.
    pub fn new(
        cast: &Cast,
        at: usize,
        what: &'static str,
        merged: bool,
        looked: Looked,
        seconds: Option<f64>,
    ) -> ConceptRow {
        let subject = &cast.subjects[at];
        ConceptRow {
            cast: cast.name.clone(),
            name: subject.name.clone(),
            class_word: subject.class_word.clone(),
            what,
            merged,
            pictures: looked.pictures,
            text: looked.text,
            image: looked.looks.get(at).copied().unwrap_or(0.0),
            identity: looked.identity.get(at).copied().filter(|like| like.is_finite()),
            right: looked.right,
            ordinary: None,
            seconds,
            looks: looked.looks,
            identities: looked.identity,
            at,
        }
    }
}

/// A way to teach or to merge, over all concepts.
#[derive(Serialize)]
pub struct Row {
    pub what: &'static str,
    pub merged: bool,
    pub concepts: usize,
    pub casts: usize,
    /// Of people and animals, of objects, of places, of all.
    pub groups: Vec<Group>,
    pub right: Option<Spread>,
    pub ordinary: Option<Spread>,
    pub seconds: Option<Spread>,
}

#[derive(Serialize)]
pub struct Group {
    pub of: &'static str,
    pub concepts: usize,
    pub text: Option<Spread>,
    pub image: Option<Spread>,
    pub identity: Option<Spread>,
}

/// What a cast's fusion predicted of each two concepts, in the cast's order.
pub struct Predicted {
    pub cast: String,
    pub conflicts: Vec<Vec<f64>>,
    pub alike: Vec<Vec<f64>>,
    pub contact: Vec<Vec<f64>>,
}

/// How much more pictures of one concept look like another in a merged model than from the
/// concept's own file, beside what was predicted.
#[derive(Serialize)]
pub struct Bleeding {
    pub what: &'static str,
    /// Who told: the model's own tower, or the one that tells who is who, which knows no places.
    pub judge: &'static str,
    /// More than from the concept's own file; or more than fading alone would bring, for what fades
    /// on the way to its class looks less like all that looks like it.
    pub than: &'static str,
    /// Mean over ordered pairs.
    pub mean: f64,
    pub ordered_pairs: usize,
    /// Rank correlation with the conflicts that the report of a fusion predicts; each two concepts
    /// are one pair.
    pub conflicts: Option<Agreement>,
    /// With how alike their inputs are.
    pub alike: Option<Agreement>,
    /// With how much of the other's change reaches a concept's inputs; pairs are ordered.
    pub contact: Option<Agreement>,
}

impl Report {
    pub fn new(settings: Settings, concepts: Vec<ConceptRow>, predicted: &[Predicted]) -> Report {
        let mut ways: Vec<(&'static str, bool)> = Vec::new();
        for row in &concepts {
            if !ways.contains(&(row.what, row.merged)) {
                ways.push((row.what, row.merged));
            }
        }
        let rows = ways.iter().map(|(what, merged)| Row::of(what, *merged, &concepts)).collect();
        let judges: [(&'static str, Seen); 2] =
            [("tower", |row| &row.looks), ("identity", |row| &row.identities)];
        let merged = ways.iter().filter(|(_, merged)| *merged).map(|(what, _)| *what);
        let of = |what| {
            judges.map(|judge| {
                [OWN_FILE, FADED]
                    .map(|than| Bleeding::of((what, than), judge, &concepts, predicted))
            })
        };
        let bleeding = merged.flat_map(of).flatten().flatten().collect();
        Report { settings, rows, bleeding, concepts }
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Taught and merged\n\n");
        let settings = &self.settings;
        let taught = match (&settings.taught_by, settings.updates) {
            (Some(file), Some(updates)) => format!("{updates} updates by {file}"),
            (Some(file), None) => format!("by {file}"),
            (None, Some(updates)) => format!("{updates} updates by the defaults"),
            (None, None) => "by the defaults".into(),
        };
        let casts = self.rows.iter().map(|row| row.casts).max().unwrap_or(0);
        let concepts = self.rows.iter().map(|row| row.concepts).max().unwrap_or(0);
        let seeds: Vec<String> = settings.seeds.iter().map(u64::to_string).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "Model {}, on {}. {} of {}, taught with {taught}; each asked for by {}, seeds {}, {} \
                steps, guidance {}.\n",
            settings.model,
            settings.adapter,
            counted(concepts, "concept"),
            counted(casts, "cast"),
            counted(settings.prompts, "prompt"),
            seeds.join(", "),
            settings.sampling_steps,
            settings.guidance,
        );
        let _ = writeln!(text, "{}\n", self.ways());
        if !self.bleeding.is_empty() {
            let _ = writeln!(
                text,
                "## Bleeding\n\nHow much more pictures of one concept look like another of its \
                    cast in a merged model than from the concept's own file, or than if they had \
                    only faded towards their class, and its rank correlation with what a fusion's \
                    report tells beforehand; in brackets, how often shuffled concepts do as \
                    well:\n\n{}\n",
                self.bleeding_table()
            );
        }
        text + NOTES
    }

    fn ways(&self) -> comfy_table::Table {
        let groups: Vec<&'static str> = GROUPS
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| self.rows.iter().any(|row| row.group(name).is_some()))
            .collect();
        let identity = |name: &str| {
            let found = |row: &Row| row.group(name).is_some_and(|group| group.identity.is_some());
            self.rows.iter().any(found)
        };
        let mut header = vec![String::new()];
        for name in &groups {
            header.extend([format!("{name}: text"), "image".into()]);
            header.extend(identity(name).then(|| "identity".to_string()));
        }
        header.extend(["who", "ordinary", "seconds"].map(String::from));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut table = table(&header, 1);
        for row in &self.rows {
            let mut cells = vec![match row.merged {
                true => format!("merged: {}", row.what),
                false => row.what.to_string(),
            }];
            for name in &groups {
                let group = row.group(name);
                cells.push(spread(group.and_then(|g| g.text.as_ref()), 2));
                cells.push(spread(group.and_then(|g| g.image.as_ref()), 3));
                if identity(name) {
                    cells.push(spread(group.and_then(|g| g.identity.as_ref()), 3));
                }
            }
            cells.push(spread(row.right.as_ref(), 2));
            cells.push(spread(row.ordinary.as_ref(), 3));
            cells.push(spread(row.seconds.as_ref(), 0));
            table.add_row(cells);
        }
        table
    }

    fn bleeding_table(&self) -> comfy_table::Table {
        let header =
            ["merged", "by", "more than", "mean", "pairs", "conflicts", "inputs alike", "contact"];
        let mut table = table(&header, 3);
        let told = |agreement: &Option<Agreement>| {
            agreement.map_or_else(String::new, |found| {
                format!("{:.2} ({:.3})", found.correlation, found.chance)
            })
        };
        for row in &self.bleeding {
            table.add_row([
                row.what.to_string(),
                row.judge.to_string(),
                row.than.to_string(),
                figure(Some(row.mean), 3),
                (row.ordered_pairs / 2).to_string(),
                told(&row.conflicts),
                told(&row.alike),
                told(&row.contact),
            ]);
        }
        table
    }
}

const NOTES: &str = "\
text: 2.5 times the cosine of a picture and its prompt with the class word; image: mean cosine to
the pictures that were trained from; both in the model's own tower. identity: the same as image in
the tower that tells who is who, which knows no places; who: the share of pictures that it takes for
who they are, among all of their cast. ordinary: likeness of ordinary prompts' pictures to the base
model's. seconds: to teach one concept (beside others, where the processor computes), or to merge a
cast. Means over concepts, each cast counting once; behind \u{b1} the standard deviation of the
casts' means.
";

fn spread(of: Option<&Spread>, digits: usize) -> String {
    of.map_or_else(String::new, |spread| match spread.over_casts {
        Some(over) => format!("{:.digits$} \u{b1} {over:.digits$}", spread.mean),
        None => format!("{:.digits$}", spread.mean),
    })
}

impl Row {
    fn of(what: &'static str, merged: bool, all: &[ConceptRow]) -> Row {
        let all: Vec<&ConceptRow> =
            all.iter().filter(|row| (row.what, row.merged) == (what, merged)).collect();
        let casts: std::collections::BTreeSet<&str> = all.iter().map(|r| r.cast.as_str()).collect();
        let whole = |of: &dyn Fn(&ConceptRow) -> Option<f64>| spread_of(&all, of);
        let group = |(name, classes): &(&'static str, &[Class])| {
            let is_in = |row: &&&ConceptRow| classes.contains(&Class::of(&row.class_word));
            Group::of(name, &all.iter().filter(is_in).copied().collect::<Vec<_>>())
        };
        let groups = GROUPS.iter().map(group).chain([Group::of(ALL, &all)]);
        Row {
            what,
            merged,
            concepts: all.len(),
            casts: casts.len(),
            groups: groups.filter(|group| group.concepts > 0).collect(),
            right: whole(&|row| row.right),
            ordinary: whole(&|row| row.ordinary),
            seconds: whole(&|row| row.seconds),
        }
    }

    fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.of == name)
    }
}

fn spread_of(rows: &[&ConceptRow], of: &dyn Fn(&ConceptRow) -> Option<f64>) -> Option<Spread> {
    Spread::of(rows.iter().filter_map(|row| Some((row.cast.as_str(), of(row)?))))
}

impl Group {
    fn of(name: &'static str, rows: &[&ConceptRow]) -> Group {
        Group {
            of: name,
            concepts: rows.len(),
            text: spread_of(rows, &|row| row.text),
            image: spread_of(rows, &|row| Some(row.image)),
            identity: spread_of(rows, &|row| row.identity),
        }
    }
}

const OWN_FILE: &str = "own file";
const FADED: &str = "faded";

/// What one tower tells of a row.
type Seen = fn(&ConceptRow) -> &Vec<f64>;

impl Bleeding {
    /// None where there is nothing to compare with.
    fn of(
        (what, than): (&'static str, &'static str),
        (judge, seen): (&'static str, Seen),
        all: &[ConceptRow],
        predicted: &[Predicted],
    ) -> Option<Bleeding> {
        let own = asked::name_of(Method::EdLora);
        let (mut conflicts, mut alike, mut contact) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = Vec::new();
        for cast in predicted {
            let of = |what: &str, merged: bool| -> Vec<&ConceptRow> {
                let is_it = |row: &&ConceptRow| {
                    (row.cast.as_str(), row.what, row.merged) == (cast.cast.as_str(), what, merged)
                };
                all.iter().filter(is_it).collect()
            };
            let (before, after, class) = (of(own, false), of(what, true), of(CLASS, false));
            // Places are nobody to the tower that tells who is who.
            let at = |row: &&&ConceptRow| seen(row).get(row.at).is_some_and(|v| v.is_finite());
            let who: Vec<usize> = before.iter().filter(at).map(|row| row.at).collect();
            let row = |i: usize| -> Option<Vec<f64>> {
                let [own, made, class] =
                    [&before, &after, &class].map(|rows| rows.iter().find(|row| row.at == i));
                let at = |row: Option<&&ConceptRow>, j: usize| seen(row?).get(j).copied();
                let left = match than {
                    FADED => left([at(made, i)?, at(own, i)?, at(class, i)?]),
                    _ => 1.0,
                };
                let more = |j: &usize| {
                    let own = at(own, *j)?;
                    let class = if left < 1.0 { at(class, *j)? } else { own };
                    Some(at(made, *j)? - (class + left * (own - class)))
                };
                who.iter().map(more).collect()
            };
            let Some(measured) = who.iter().map(|i| row(*i)).collect::<Option<Vec<_>>>() else {
                continue;
            };
            for (i, row) in measured.iter().enumerate() {
                let others = row.iter().enumerate().filter(|(j, _)| *j != i);
                found.extend(others.map(|(_, more)| *more));
            }
            let pairs = |table: &[Vec<f64>]| Pairs {
                predicted: who
                    .iter()
                    .filter_map(|i| {
                        let row = table.get(*i)?;
                        who.iter().map(|j| row.get(*j).copied()).collect()
                    })
                    .collect(),
                measured: measured.clone(),
            };
            conflicts.push(pairs(&cast.conflicts));
            alike.push(pairs(&cast.alike));
            contact.push(pairs(&cast.contact));
        }
        (!found.is_empty()).then(|| Bleeding {
            what,
            judge,
            than,
            mean: found.iter().sum::<f64>() / found.len() as f64,
            ordered_pairs: found.len(),
            conflicts: Agreement::of(&conflicts, false),
            alike: Agreement::of(&alike, false),
            contact: Agreement::of(&contact, true),
        })
    }
}

/// How much of a concept is left, from 1 of its own file to 0 of its class word.
fn left([made, own, class]: [f64; 3]) -> f64 {
    let all = own - class;
    if all <= 0.0 { 1.0 } else { ((made - class) / all).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [&str; 4] = ["man", "woman", "cat", "place"];

    fn row(cast: &str, at: usize, what: &'static str, looks: [f64; 4]) -> ConceptRow {
        let is_place = CLASSES[at] == "place";
        let mut identities = looks.to_vec();
        identities[3] = f64::NAN;
        if is_place {
            identities = vec![f64::NAN; 4];
        }
        ConceptRow {
            cast: cast.into(),
            name: format!("{cast}{at}"),
            class_word: CLASSES[at].into(),
            what,
            merged: what == "exact",
            pictures: 2,
            text: Some(1.0 + at as f64),
            image: looks[at],
            identity: (!is_place).then_some(looks[at]),
            right: (!is_place).then_some(1.0),
            ordinary: None,
            seconds: Some(10.0),
            looks: looks.to_vec(),
            identities,
            at,
        }
    }

    fn report(casts: &[&str]) -> Report {
        // What bleeds is what was predicted, two thirds of it this way and one third that way.
        let predicted = |i: usize, j: usize| ((i + 1) * (j + 1)) as f64 * 0.01;
        let conflicts: Vec<Vec<f64>> =
            (0..4).map(|i| (0..4).map(|j| predicted(i, j)).collect()).collect();
        let (mut rows, mut all) = (Vec::new(), Vec::new());
        for cast in casts {
            for at in 0..4 {
                let mut own = [0.1; 4];
                own[at] = 0.6;
                rows.push(row(cast, at, CLASS, [0.1; 4]));
                rows.push(row(cast, at, "ED-LoRA", own));
                let mut bled = own;
                bled[at] = 0.5;
                for (j, like) in bled.iter_mut().enumerate().filter(|(j, _)| *j != at) {
                    *like += predicted(at, j) * if at < j { 4.0 / 3.0 } else { 2.0 / 3.0 };
                }
                rows.push(row(cast, at, "exact", bled));
            }
            let (cast, alike) = (cast.to_string(), conflicts.clone());
            let contact = conflicts.clone();
            all.push(Predicted { cast, conflicts: conflicts.clone(), alike, contact });
        }
        let settings = Settings {
            model: "tiny".into(),
            adapter: "cpu".into(),
            taught_by: None,
            updates: Some(3),
            prompts: 2,
            seeds: vec![1, 2],
            sampling_steps: 4,
            guidance: 3.0,
            identity: None,
        };
        Report::new(settings, rows, &all)
    }

    #[test]
    fn what_fades_looks_less_like_others() {
        assert_eq!(left([0.5, 0.6, 0.1]), 0.8);
        assert_eq!((left([0.7, 0.6, 0.1]), left([0.0, 0.6, 0.1])), (1.0, 0.0));
        assert_eq!(left([0.3, 0.2, 0.4]), 1.0);
    }

    #[test]
    fn rows_are_of_groups() {
        let report = report(&["a", "b"]);
        let [_, own, exact] = &report.rows[..] else { panic!("three rows") };
        assert_eq!((own.concepts, own.casts, own.merged, exact.merged), (8, 2, false, true));
        let of = |row: &Row, name| row.group(name).map(|group| group.concepts);
        assert_eq!(
            [of(own, "people, animals"), of(own, "places"), of(own, "objects")],
            [Some(6), Some(2), None]
        );
        let people = own.group("people, animals").unwrap();
        assert!((people.text.as_ref().unwrap().mean - 2.0).abs() < 1e-12);
        assert!((people.image.as_ref().unwrap().mean - 0.6).abs() < 1e-12);
        assert!(own.group("places").unwrap().identity.is_none());
        let text = report.markdown();
        assert!(text.contains("8 concepts of 2 casts") && text.contains("merged: exact"), "{text}");
        assert!(!text.contains("objects: text"), "{text}");
    }

    #[test]
    fn bleeding_is_beside_what_was_predicted() {
        let report = report(&["a"]);
        let [tower, faded, identity, _] = &report.bleeding[..] else { panic!("two judges, twice") };
        // Nothing that others look like fades with a concept here.
        assert_eq!((faded.than, faded.judge), (FADED, "tower"));
        assert!((faded.mean - tower.mean).abs() < 1e-12);
        assert_eq!((tower.judge, tower.ordered_pairs), ("tower", 12));
        assert_eq!((identity.judge, identity.ordered_pairs), ("identity", 6));
        // Of the six pairs 2, 3, 4, 6, 8, 12 hundredths.
        assert!((tower.mean - 0.35 / 6.0).abs() < 1e-9, "{}", tower.mean);
        let found = tower.conflicts.unwrap();
        assert!((found.correlation - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!((found.pairs, found.groups), (6, 1));
        assert_eq!(identity.conflicts.map(|found| found.pairs), Some(3));
        assert_eq!(tower.contact.map(|found| found.pairs), Some(12));
    }
}
