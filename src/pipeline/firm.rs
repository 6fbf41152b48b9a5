//! What firm placing looks at: which tokens are a region's words, and where they are to be.

use std::ops::Range;

use crate::models::config::UNetConfig;
use crate::models::unet;
use crate::sd::looking::{TargetMap, Targets};

use super::adaptation::Adaptation;
use super::checked::CheckedRequest;
use super::error::{Result, option};
use super::regions::Regional;
use super::wording::Wording;
use super::{Pipeline, Place, Request};

/// Places of the smallest feature map that is looked at.
const LEAST_PLACES: usize = 16;

impl Pipeline {
    /// None unless the request is to be placed firmly. `regional`: what holds where; none without
    /// regions. `lengths`: tokens of each of its prompts.
    pub(super) fn targets(
        &self,
        request: &Request,
        checked: &mut CheckedRequest,
        adaptation: &Adaptation,
        wordings: &[Wording],
        regional: Option<&Regional>,
        lengths: &[usize],
    ) -> Result<Option<Targets>> {
        let Place::Firm(strength) = request.place else { return Ok(None) };
        if !(strength > 0.0 && strength <= 100.0) {
            return Err(option("place", request.place, "a strength above 0, 100 at most"));
        }
        let Some(regional) = regional else {
            let expected = "regions that hold in parts of the picture";
            return Err(option("place", request.place, expected));
        };
        if regional.isolate {
            let expected = "free, where regions are isolated: there is no gradient through that";
            return Err(option("place", request.place, expected));
        }
        let mut first = 0;
        let (mut spans, mut words, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        let prompts = regional.prompts.iter().zip(wordings).zip(lengths).enumerate();
        for (at, ((&number, wording), &length)) in prompts {
            let span = first..first + length;
            first += length;
            // The context's prompt has no region.
            let Some(index) = number.checked_sub(1) else { continue };
            let own = own_words(wording, adaptation, &span);
            if own.is_empty() {
                checked.warnings.push(format!(
                    "region `{}` has no words that could be placed firmly",
                    request.regions.name(index)
                ));
                continue;
            }
            spans.push(span);
            words.push(own);
            numbers.push(at);
        }
        if spans.is_empty() {
            return Err(option("place", request.place, "a region with words"));
        }
        if !request.controls.is_empty() {
            checked.warnings.push(
                "firm placing looks at the picture without the networks that steer it".into(),
            );
        }
        let maps = maps(&self.unet.config, checked.size, regional, &numbers);
        Ok(Some(Targets { spans, words, maps, strength }))
    }
}

/// The places of a region's words among all prompts' tokens: those of concepts, or all where there
/// are none of those.
fn own_words(wording: &Wording, adaptation: &Adaptation, span: &Range<usize>) -> Vec<usize> {
    let encoder = wording.variants.first().and_then(|variant| variant.encoders.first());
    let prompt = encoder.and_then(|encoder| encoder.prompts.last()?.first());
    let chunks = prompt.map_or(&[][..], |prompt| &prompt.chunks);
    let (mut start, mut all, mut special) = (span.start, Vec::new(), Vec::new());
    for chunk in chunks {
        for (at, id) in chunk.ids.iter().enumerate().take(chunk.end).skip(1) {
            all.push(start + at);
            special.extend(adaptation.is_word(*id).then_some(start + at));
        }
        start += chunk.ids.len();
    }
    if special.is_empty() { all } else { special }
}

/// The feature maps that are looked at, all but the largest: where the prompts of `numbers` hold.
fn maps(
    config: &UNetConfig,
    [height, width]: [usize; 2],
    regional: &Regional,
    numbers: &[usize],
) -> Vec<TargetMap> {
    let sizes = unet::feature_sizes(config, height, width);
    let map = |(number, size): (usize, &[usize; 2])| {
        let all = regional.inside(number);
        let inside = numbers.iter().filter_map(|at| all.get(*at).cloned()).collect();
        TargetMap { size: *size, inside }
    };
    let is_wanted = |(number, size): &(usize, &[usize; 2])| {
        *number > 0 && size[0] * size[1] >= LEAST_PLACES || sizes.len() == 1
    };
    sizes.iter().enumerate().filter(is_wanted).map(map).collect()
}
