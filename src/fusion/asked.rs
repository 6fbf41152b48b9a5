//! What is asked of the distillation, looked at alike whoever asks: the command line, programs in
//! other languages, clients of the server.

use std::fmt;

use super::settings::Distillation;

/// What is asked of a distillation; none: what is usual, or what the model was made with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DistillationOptions {
    /// [`Distillation::pictures`]; 0: no distillation.
    pub pictures: Option<u64>,
    /// [`Distillation::rate`]
    pub rate: Option<f32>,
    /// [`Distillation::rank`]
    pub rank: Option<usize>,
    /// [`Distillation::scenes`]
    pub scenes: Option<u64>,
    /// [`Distillation::scene_strength`]
    pub scene_strength: Option<f32>,
    /// [`Distillation::one_prompt`]
    pub one_prompt: Option<u64>,
}

/// An option of a distillation that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// As the settings of a fusion are named: `scene_strength`.
    pub option: &'static str,
    /// In a sentence, options as the asker names them.
    pub words: String,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Unfit {}

impl DistillationOptions {
    /// Over `usual`. `name` makes of `scene_strength` what the asker calls it, such as
    /// `--scene-strength`.
    ///
    /// # Errors
    /// A number out of its range; what would be of no use, since there is no distillation, or no
    /// scene.
    pub fn over(
        &self,
        usual: Distillation,
        name: &dyn Fn(&str) -> String,
    ) -> Result<Distillation, Unfit> {
        let pictures = self.pictures.unwrap_or(usual.pictures);
        let scenes = self.scenes.filter(|count| *count > 0);
        let whole = |count: Option<u64>| count.map(|n| (n as f64, n.to_string()));
        let number = |value: Option<f32>| value.map(|v| (f64::from(v), v.to_string()));
        let given = [
            (PICTURES, whole(self.pictures), Distillation::PICTURES),
            (RATE, number(self.rate), Distillation::RATE),
            (RANK, whole(self.rank.map(|rank| rank as u64)), Distillation::RANK),
            (SCENES, whole(self.scenes), Distillation::PICTURES),
            (STRENGTH, number(self.scene_strength), Distillation::STRENGTH),
            (ONE_PROMPT, whole(self.one_prompt), Distillation::PICTURES),
        ];
        for (option, value, range) in given {
            if let Some((_, said)) = value.filter(|(value, _)| !range.contains(*value)) {
                let words = format!("{} is {said}: expected {range}", name(option));
                return Err(Unfit { option, words });
            }
        }
        if pictures == 0 {
            let idle = [
                (RATE, self.rate.is_some()),
                (RANK, self.rank.is_some()),
                (SCENES, scenes.is_some()),
                (STRENGTH, self.scene_strength.is_some()),
                (ONE_PROMPT, self.one_prompt.is_some_and(|count| count > 0)),
            ];
            return match idle.into_iter().find(|(_, is_given)| *is_given) {
                None => Ok(Distillation::NONE),
                Some((option, _)) => {
                    let [of, option_name] = [name(PICTURES), name(option)];
                    let words = format!(
                        "{option_name} is of the distillation, which is off: {of} is 0; above 0 \
                            turns it on"
                    );
                    Err(Unfit { option, words })
                }
            };
        }
        // Where there is none usually, what is usual where there is.
        let usual = if usual.pictures > 0 { usual } else { Distillation::default() };
        let scenes = self.scenes.unwrap_or(usual.scenes);
        let found = Distillation {
            pictures,
            rate: self.rate.unwrap_or(usual.rate),
            rank: self.rank.or(usual.rank),
            scenes,
            scene_strength: self.scene_strength.unwrap_or(usual.scene_strength),
            one_prompt: self.one_prompt.unwrap_or(usual.one_prompt.min(scenes)),
            ..usual
        };
        if found.scenes == 0 && self.scene_strength.is_some() {
            let words = format!(
                "{} is of scenes, of which there are none: {} is 0",
                name(STRENGTH),
                name(SCENES)
            );
            return Err(Unfit { option: STRENGTH, words });
        }
        if found.one_prompt > scenes {
            let [option, of] = [name(ONE_PROMPT), name(SCENES)];
            let words = format!(
                "{option} is {}: expected as many as there are pictures of each scene at most; \
                    {of} is {scenes}",
                found.one_prompt
            );
            return Err(Unfit { option: ONE_PROMPT, words });
        }
        Ok(found)
    }
}

const PICTURES: &str = "distillation";
const RATE: &str = "distillation_rate";
const RANK: &str = "distillation_rank";
const SCENES: &str = "scenes";
const STRENGTH: &str = "scene_strength";
const ONE_PROMPT: &str = "one_prompt";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: DistillationOptions, usual: Distillation) -> String {
        asked.over(usual, &|name| format!("--{}", name.replace('_', "-"))).unwrap_err().words
    }

    #[test]
    fn what_is_asked_lies_over_what_is_usual() {
        let plain = |name: &str| name.to_string();
        let nothing = DistillationOptions::default();
        let (usual, none) = (Distillation::default(), Distillation::NONE);
        assert_eq!(nothing.over(usual, &plain), Ok(usual));
        assert_eq!(nothing.over(none, &plain), Ok(none));
        let off = DistillationOptions { pictures: Some(0), scenes: Some(0), ..nothing };
        assert_eq!(off.over(usual, &plain), Ok(none));
        // What a model was made with holds but for what is asked.
        let made = Distillation { rank: Some(7), scenes: 0, one_prompt: 0, rate: 1e-3, ..usual };
        let more = DistillationOptions { pictures: Some(9), ..nothing };
        assert_eq!(more.over(made, &plain), Ok(Distillation { pictures: 9, ..made }));
        assert_eq!(more.over(none, &plain), Ok(Distillation { pictures: 9, ..usual }));
    }

    #[test]
    fn what_is_of_no_use_is_refused_by_name() {
        let (usual, nothing) = (Distillation::default(), DistillationOptions::default());
        for (asked, option) in [
            (DistillationOptions { rate: Some(0.01), ..nothing }, "--distillation-rate"),
            (DistillationOptions { rank: Some(8), ..nothing }, "--distillation-rank"),
            (DistillationOptions { scenes: Some(1), ..nothing }, "--scenes"),
            (DistillationOptions { scene_strength: Some(2.0), ..nothing }, "--scene-strength"),
            (DistillationOptions { one_prompt: Some(1), ..nothing }, "--one-prompt"),
        ] {
            let off = DistillationOptions { pictures: Some(0), ..asked };
            for words in [said(off, usual), said(asked, Distillation::NONE)] {
                assert!(words.starts_with(&format!("{option} is of the distillation")), "{words}");
                assert!(words.contains("--distillation is 0"), "{words}");
            }
        }
        let strong = DistillationOptions { scene_strength: Some(2.0), ..nothing };
        let alone = DistillationOptions { scenes: Some(0), ..strong };
        for words in [said(alone, usual), said(strong, Distillation { scenes: 0, ..usual })] {
            assert!(words.contains("--scene-strength") && words.contains("--scenes is 0"));
        }
        // Of no more pictures than there are, which goes for what is usual unasked.
        let many = DistillationOptions { scenes: Some(1), one_prompt: Some(2), ..nothing };
        let words = said(many, usual);
        assert!(words.contains("--one-prompt is 2") && words.contains("--scenes is 1"), "{words}");
        let made = Distillation { one_prompt: 3, ..usual };
        let fewer = DistillationOptions { one_prompt: None, ..many };
        let found = fewer.over(made, &|name| name.to_string()).map(|found| found.one_prompt);
        assert_eq!(found, Ok(1));
        for (asked, wanted) in [
            (DistillationOptions { pictures: Some(1001), ..nothing }, "--distillation is 1001"),
            (DistillationOptions { rate: Some(0.0), ..nothing }, "--distillation-rate is 0"),
            (DistillationOptions { rank: Some(0), ..nothing }, "--distillation-rank is 0"),
            (DistillationOptions { scenes: Some(5000), ..nothing }, "--scenes is 5000"),
            (DistillationOptions { scene_strength: Some(f32::NAN), ..nothing }, "is NaN"),
        ] {
            assert!(said(asked, usual).contains(wanted), "{}", said(asked, usual));
        }
    }
}
