//! The range of each setting that is a number.

use crate::numbers::Range;

/// 0 on.
pub(super) const WHOLE: Range = Range::WHOLE;
pub(super) const CROP: Range = Range::SHARE;
/// Least and greatest share of the size.
pub(super) const SCALE: Range = Range::POSITIVE_SHARE;
pub(super) const ALPHA: Range = Range::POSITIVE;
pub(super) const STEPS: Range = Range::whole(1, 10_000_000);
pub(super) const BATCH: Range = Range::whole(1, 1024);
pub(super) const ACCUMULATE: Range = Range::whole(1, 1024);
pub(super) const RANK: Range = Range::whole(0, 1024);
/// Learning rates.
pub(super) const RATE: Range = Range::SHARE;
pub(super) const WEIGHT_DECAY: Range = Range::SHARE;
pub(super) const LORA_WEIGHT_DECAY: Range = Range::NOT_NEGATIVE;
pub(super) const DROPOUT: Range = Range::BELOW_ONE;
pub(super) const BETA: Range = Range::BELOW_ONE;
pub(super) const NORM_STOP: Range = Range::NOT_NEGATIVE;
pub(super) const NOISE_OFFSET: Range = Range::SHARE;
pub(super) const MIN_SNR: Range = Range::NOT_NEGATIVE;
pub(super) const UNMASKED_WEIGHT: Range = Range::SHARE;
pub(super) const ATTENTION_WEIGHT: Range = Range::NOT_NEGATIVE;
pub(super) const PRIOR_PICTURES: Range = Range::whole(0, 10_000);
pub(super) const PRIOR_WEIGHT: Range = Range::NOT_NEGATIVE;
pub(super) const PRIOR_STEPS: Range = Range::whole(1, 1000);
pub(super) const SAVE_EVERY: Range = Range::COUNT;
pub(super) const SHEET_STEPS: Range = Range::whole(1, 1000);
pub(super) const SHEET_SCALE: Range = Range::ANY;
pub(super) const SHEET_GUIDANCE: Range = Range::NOT_NEGATIVE;
