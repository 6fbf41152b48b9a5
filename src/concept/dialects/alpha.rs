//! How strong updates are of which no tensor tells alpha: by the settings that stand elsewhere,
//! else 1; and what is said of it.

use crate::checkpoint::{LoraSettings, TensorFile};
use crate::concept::parts::{Names, Part, Scale};
use crate::concept::{Error, Result, Side};
use crate::numbers::counted;

use super::gather::Gathered;

/// This program's note in files of other programs' names whose factor is 1.
pub fn is_rank() -> (String, String) {
    ("mos_alpha".to_string(), "rank".to_string())
}

/// Sets the scales that are still open, and tells where they came from.
///
/// # Errors
/// Settings that cannot be read, or are of another kind of change.
pub fn complete(file: &TensorFile, updates: &mut Gathered) -> Result<Vec<String>> {
    let settings = LoraSettings::of(file)?;
    let mut notes = Vec::new();
    if let Some(way) = settings.as_ref().and_then(LoraSettings::unusual_start) {
        notes.push(format!(
            "it began as {way}, which changes the model's own weights too: unless it was saved as \
                a LoRA of the unchanged model, \
             it does something else here"
        ));
    }
    let (mut told, mut resized, mut without, mut usual) = (Vec::new(), None, 0, 0);
    let place = |problem| Error::File { path: file.path().to_path_buf(), problem };
    if let Some(settings) = &settings {
        for (_, layer, names) in updates.iter_mut().filter(|(.., n)| n.has(Part::Ia3Factor)) {
            let on_input = settings.is_feedforward(layer).map_err(place)?;
            names.side = on_input.map(|is| if is { Side::Input } else { Side::Output });
        }
    }
    for (network, layer, names) in
        updates.iter_mut().filter(|(_, _, names)| matches!(names.scale, Scale::One))
    {
        let whole = names.is_whole_lokr();
        if names.rank_tensor().is_none() && !whole {
            continue;
        }
        let found = settings.as_ref().map(|settings| settings.scaling(network.folder(), layer));
        let found = found.transpose();
        let found = found.map_err(place)?.flatten();
        let Some(found) = found else {
            without += usize::from(!whole);
            continue;
        };
        names.scale = match (whole, found.rank) {
            // PEFT divides by a rank that none of its tensors has; LyCORIS does not.
            (true, Some(rank)) if settings.as_ref().is_some_and(LoraSettings::is_lokr) => {
                Scale::Factor(found.alpha / rank as f32)
            }
            (true, _) => continue,
            _ if found.stabilised => Scale::Stabilised(found.alpha),
            _ => Scale::Number(found.alpha),
        };
        let rank = rank(file, names);
        match found.is_usual {
            true => usual += 1,
            false => told.push(found.alpha),
        }
        if let (Some(said), Some(rank)) = (found.rank, rank)
            && said != rank
        {
            resized.get_or_insert((layer.to_string(), said, rank));
        }
    }
    if let Some(settings) = settings.as_ref().filter(|_| !told.is_empty() || usual > 0) {
        told.sort_by(f32::total_cmp);
        told.dedup();
        let alphas: Vec<String> = told.iter().map(f32::to_string).collect();
        match &alphas[..] {
            [] => {}
            [alpha] => notes.push(format!("alpha is {alpha}, by {}", settings.place())),
            _ => notes.push(format!("alphas are {}, by {}", alphas.join(", "), settings.place())),
        }
        if usual > 0 {
            let of = if alphas.is_empty() { "" } else { " for the other layers" };
            notes.push(format!("{} names no alpha{of}: PEFT's own, 8, is taken", settings.place()));
        }
        if let Some((layer, said, rank)) = resized {
            notes.push(format!(
                "{} says rank {said} of `{layer}`, whose tensors have rank {rank}: alpha is \
                    divided by {rank}",
                settings.place()
            ));
        }
    }
    let (key, value) = is_rank();
    if without > 0 && file.metadata().get(&key) != Some(&value) {
        let of = if told.is_empty()
            && usual == 0
            && !updates.iter_mut().any(|(_, _, names)| matches!(names.scale, Scale::Alpha(_)))
        {
            "no alpha was found".to_string()
        } else {
            format!("no alpha was found for {}", counted(without, "layer"))
        };
        notes.push(format!("{of}, in it or beside it: the factor 1 is taken"));
    }
    Ok(notes)
}

fn rank(file: &TensorFile, names: &Names) -> Option<usize> {
    file.tensor(names.rank_tensor()?)?.shape().first().copied()
}
