//! The baseline: the mean of the concepts' changes.

use super::{Change, Group, beside, stack};

/// sum_i w_i T_i / sum_i w_i (FedAvg, McMahan et al. 2017).
pub(super) fn solve(group: &dyn Group) -> Vec<Change> {
    let total: f64 = group.weights().iter().sum();
    let of_layer = |(layer, described): (usize, &super::Layer)| {
        let changes = group
            .weights()
            .iter()
            .enumerate()
            .filter_map(|(i, &w)| Some((group.change(i, layer)?, w / total)));
        let (ups, downs): (Vec<_>, Vec<_>) =
            changes.map(|(change, w)| (change.up * faer::Scale(w), change.down)).unzip();
        Change {
            left: beside(&ups.iter().collect::<Vec<_>>(), described.out),
            right: stack(&downs.iter().collect::<Vec<_>>(), group.width()),
        }
    };
    group.layers().iter().enumerate().map(of_layer).collect()
}
