//! A look at what a run would be made from, without any device and without decoding a picture.

use super::config::Settings;
use super::error::{Error, Result};
use super::folder::{self, Depth};
use super::prior::{self, ClassCost, ClassPictures};
use super::run::size;
use super::saved::Places;
use super::step::Models;
use super::words::{Words, initial_rows};
use crate::backend::reference::Reference;
use crate::checkpoint::Checkpoint;
use crate::concept::with_words;
use crate::pipeline::Pipeline;

/// What [`look`] found in order.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Pictures that there are.
    pub pictures: usize,
    /// Width and height that would be tuned at.
    pub size: [usize; 2],
    /// Class pictures of a folder, that would be learnt from.
    pub own_class: usize,
    /// Class pictures that would be made.
    pub class: Option<ClassCost>,
}

/// Checks settings, words, captions, the headers of pictures and masks, and that the results can be
/// written. Makes no file or folder. `tell` hears what would be noticed and go on all the same,
/// also before an error.
///
/// # Errors
/// [`Error::Unfit`] with everything that has to be put right; a place that cannot be written; a
/// model that cannot be tuned.
pub fn look(
    checkpoint: &Checkpoint,
    settings: &Settings,
    tell: &mut dyn FnMut(&str),
) -> Result<Looked> {
    let places = Places::of(&settings.output);
    places.check()?;
    let nothing = Reference::new().into();
    let encoder = Pipeline::load(&nothing, checkpoint, settings.precision)?;
    let models = Models::of(encoder.model())?;
    let (size, mut problems) = size(settings, &encoder);
    let mut checked = folder::check_at(settings, size, Depth::Headers);
    checked.remarks.iter().for_each(|remark| tell(remark));
    problems.append(&mut checked.problems);
    let own_class = prior::own_folder(settings)
        .map(|folder| folder::check_class(&folder, settings, size, Depth::Headers));
    if let Some(own) = &own_class {
        own.remarks.iter().for_each(|remark| tell(remark));
        problems.extend_from_slice(&own.problems);
    }
    let copies = super::run::step_config(settings, size, &encoder).rows_per_word(&models.unet);
    let rows = initial_rows(settings, encoder.model(), copies);
    if let Err(mut wrong) = rows {
        problems.append(&mut wrong);
    }
    let words = Words::of(encoder.model(), &settings.words, copies);
    let words = words.map_err(|error| problems.push(error.to_string())).ok();
    let (Some(words), true) = (words, problems.is_empty()) else {
        return Err(Error::Unfit(problems));
    };
    for seen in &checked.seen {
        if words.caption(&with_words(&seen.caption, &settings.phrase()))?.cut {
            tell(&words.cut(&seen.path));
        }
    }
    for seen in own_class.iter().flat_map(|own| &own.seen) {
        let phrase = settings.class_word.as_deref().unwrap_or_default();
        if words.caption(&with_words(&seen.caption, phrase))?.cut {
            tell(&words.cut(&seen.path));
        }
    }
    let captions: Vec<(&str, usize)> =
        checked.seen.iter().map(|seen| (seen.caption.as_str(), seen.repeats)).collect();
    let (guidance, place) = (encoder.guidance(), places.class());
    let class = ClassPictures::of(settings, &captions, size, guidance, place, None);
    if let Some(class) = &class {
        class.remarks(&words)?.iter().for_each(|remark| tell(remark));
    }
    let of_update = 2 * settings.batch * settings.accumulate;
    Ok(Looked {
        pictures: checked.seen.len(),
        size,
        own_class: own_class.map_or(0, |own| own.seen.len()),
        class: class.map(|class| class.cost(of_update)).transpose()?,
    })
}
