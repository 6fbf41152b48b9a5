//! What is measured, not derived: whether matrices suit an adapter, and the sizes that kernels are
//! rendered with. Operations ask this table, never for an adapter's name.

use serde::{Deserialize, Serialize};

use crate::graph::ops::regional_attention::REGION_GROUP;

/// The table: a part for each family of kernels, by their files in `kernels/`. What a file of
/// sizes leaves out is as in [`Tuned::STANDARD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tuned {
    /// Cooperative matrices are faster, where the adapter has them and they pass their test.
    pub matrices: bool,
    /// Of `matmul`.
    pub matmul: MatmulSizes,
    /// Of `matmul_matrices`.
    pub matmul_matrices: MatmulMatricesSizes,
    /// Of `attention` and `regional_attention`.
    pub attention: AttentionSizes,
    /// Of the kernels of attention's gradient.
    pub attention_gradient: AttentionSizes,
    /// Of `attention_matrices`.
    pub attention_matrices: AttentionMatricesSizes,
    /// Of `lora_down`.
    pub lora_down: LoraDownSizes,
    /// Of `lora_up`.
    pub lora_up: LoraUpSizes,
    /// Of `weight_gradient_partial`.
    pub weight_gradient: WeightGradientSizes,
    /// Of the kernels that sum up for group normalisation.
    pub group_norm: GroupNormSizes,
    /// Of `outer_sums`.
    pub outer_sums: OuterSumsSizes,
}

/// `matmul`: a tile in registers, for extents that are no multiples of 4, which tiles in workgroup
/// memory (`matmul_staged`) don't suit; for all extents where such tiles are slower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatmulSizes {
    /// Rows of a tile.
    pub rows: usize,
    /// Invocations, which share 64 outputs: 1, 2, 4, 8 or 16.
    pub lanes: usize,
    /// Inputs taken in one round of the loop where they divide all of them, else one: 1, 4 or 8.
    pub unroll: usize,
    /// Whether extents that are multiples of 4 take tiles in workgroup memory: 1 or 0.
    #[serde(default = "MatmulSizes::is_staged")]
    pub staged: usize,
}

impl MatmulSizes {
    /// What files of sizes leave out that are from before there was a choice.
    const fn is_staged() -> usize {
        1
    }
}

/// `matmul_matrices`: how large, and how many, its workgroups are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatmulMatricesSizes {
    /// Large blocks are taken where at least so many of them keep the card busy.
    pub enough_large: usize,
    /// Sums are shared by several workgroups where there would be fewer than this.
    pub enough: usize,
    /// Fewest steps over inputs of a workgroup that shares sums, and most that share one.
    pub least_steps: usize,
    /// Most workgroups that share a sum.
    pub most_parts: usize,
}

/// `attention`, `regional_attention` and the kernels of attention's gradient. Backward, keys take
/// the tokens' part where the gradient is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionSizes {
    /// Widest heads that an invocation holds whole, and meets with what is staged in workgroup
    /// memory. Of wider ones sums are made in parts of `part` channels, and what is met is read
    /// again for every part.
    pub widest_held: usize,
    /// Channels of such a part.
    pub part: usize,
    /// Invocations of a workgroup where heads are held, and where they are not: divisors of 64.
    pub lanes_held: usize,
    /// Where they are summed in parts.
    pub lanes_parts: usize,
    /// Tokens of an invocation.
    pub per_lane: usize,
    /// Keys met at a time by held heads up to `widest_narrow`, by wider ones, and in parts.
    pub widest_narrow: usize,
    /// Where heads are at most `widest_narrow` wide.
    pub block_narrow: usize,
    /// Where held heads are wider.
    pub block_held: usize,
    /// Where sums are made in parts.
    pub block_parts: usize,
    /// Most keys in workgroup memory.
    pub staged: usize,
}

/// `attention_matrices`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionMatricesSizes {
    /// Wider heads leave a subgroup too few registers beside queries and sums.
    pub widest: usize,
    /// Wider heads up to this width are shared out among the subgroups of a workgroup
    /// (`attention_matrices_wide`); what is wider is left to `attention`.
    #[serde(default = "AttentionMatricesSizes::widest_shared")]
    pub widest_shared: usize,
    /// Heads up to this width are made as many tokens a subgroup as it has lanes: keys and values
    /// are read half as often, for sums and queries of `1.5 d` registers an invocation. Of wider
    /// ones, and where workgroups are fewer than `enough`, half as many.
    pub widest_large: usize,
    /// Fewest workgroups that keep a device busy.
    pub enough: usize,
    /// Bytes of workgroup memory at most: several workgroups should fit.
    pub memory: usize,
    /// Vectors of the next keys and values that an invocation loads ahead, while it works on those
    /// before, at most.
    pub ahead: usize,
}

impl AttentionMatricesSizes {
    /// What files of sizes leave out that are from before there was such a kernel.
    const fn widest_shared() -> usize {
        512
    }
}

/// `lora_down`: rows by outputs that a workgroup makes, each sum shared by its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraDownSizes {
    /// Invocations that share a sum.
    pub lanes: usize,
    /// Rows of a workgroup.
    pub rows: usize,
    /// A multiple of 4.
    pub outputs: usize,
}

/// `lora_up`: rows by 4 outputs of each of its lanes that a workgroup makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraUpSizes {
    /// Invocations side by side, each with 4 outputs.
    pub lanes: usize,
    /// Rows of a workgroup.
    pub rows: usize,
}

/// `weight_gradient_partial`: rows are summed in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightGradientSizes {
    /// Invocations of a workgroup.
    pub lanes: usize,
    /// Fewest rows of a block.
    pub shortest_block: usize,
    /// Most blocks that a sum is cut into.
    pub most_blocks: usize,
}

/// `group_norm_partial` and `group_norm_means_partial`: a batch entry's rows are cut into chunks,
/// so that even a small picture keeps a device busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNormSizes {
    /// Fewest rows of a chunk.
    pub shortest_chunk: usize,
    /// Most chunks of a batch entry.
    pub most_chunks: usize,
}

/// `outer_sums`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OuterSumsSizes {
    /// Tiles of a workgroup.
    pub tiles: usize,
}

impl Default for Tuned {
    fn default() -> Tuned {
        Tuned::STANDARD
    }
}

impl Tuned {
    /// For cards that nobody has measured.
    pub const STANDARD: Tuned = Tuned {
        matrices: true,
        matmul: MatmulSizes { rows: 16, lanes: 8, unroll: 1, staged: MatmulSizes::is_staged() },
        matmul_matrices: MatmulMatricesSizes {
            enough_large: 256,
            enough: 512,
            least_steps: 4,
            most_parts: 16,
        },
        attention: AttentionSizes {
            widest_held: 160,
            part: 64,
            lanes_held: 64,
            lanes_parts: 32,
            per_lane: 1,
            widest_narrow: 64,
            block_narrow: 2,
            block_held: 2,
            block_parts: 4,
            staged: 32,
        },
        attention_gradient: AttentionSizes {
            widest_held: 160,
            part: 64,
            lanes_held: 64,
            lanes_parts: 32,
            per_lane: 1,
            widest_narrow: 64,
            block_narrow: 4,
            block_held: 2,
            block_parts: 4,
            staged: 32,
        },
        attention_matrices: AttentionMatricesSizes {
            widest: 160,
            widest_shared: AttentionMatricesSizes::widest_shared(),
            widest_large: 64,
            enough: 256,
            memory: 48 << 10,
            ahead: 10,
        },
        lora_down: LoraDownSizes { lanes: 64, rows: 4, outputs: 4 },
        lora_up: LoraUpSizes { lanes: 16, rows: 4 },
        weight_gradient: WeightGradientSizes { lanes: 64, shortest_block: 32, most_blocks: 64 },
        group_norm: GroupNormSizes { shortest_chunk: 64, most_chunks: 512 },
        outer_sums: OuterSumsSizes { tiles: 4 },
    };

    /// The table of an adapter that nobody has measured: the standard one; on processor cores, where
    /// drivers make matrices of ordinary arithmetic and barriers cost more than caches save,
    /// without them.
    pub fn unmeasured(is_processor: bool) -> Tuned {
        match is_processor {
            false => Tuned::STANDARD,
            true => Tuned {
                matrices: false,
                matmul: MatmulSizes { unroll: 4, staged: 0, ..Tuned::STANDARD.matmul },
                ..Tuned::STANDARD
            },
        }
    }

    /// Whether the kernels can be rendered with these sizes and keep to WebGPU's floor, or what is
    /// wrong.
    pub fn check(&self) -> Result<(), String> {
        let mut problems = Vec::new();
        let mut expect = |name: &str, found: usize, allowed: bool, wanted: &str| {
            if !allowed {
                problems.push(format!("{name} is {found}, expected {wanted}"));
            }
        };
        let MatmulSizes { rows, lanes, unroll, staged } = self.matmul;
        expect("matmul.rows", rows, (1..=64).contains(&rows), "1 to 64");
        expect("matmul.lanes", lanes, [1, 2, 4, 8, 16].contains(&lanes), "1, 2, 4, 8 or 16");
        expect("matmul.unroll", unroll, [1, 4, 8].contains(&unroll), "1, 4 or 8");
        expect("matmul.staged", staged, staged <= 1, "1 or 0");
        let MatmulMatricesSizes { least_steps, most_parts, .. } = self.matmul_matrices;
        expect("matmul_matrices.least_steps", least_steps, least_steps > 0, "1 or more");
        let in_range = (1..=1024).contains(&most_parts);
        expect("matmul_matrices.most_parts", most_parts, in_range, "1 to 1024");
        for (name, sizes) in
            [("attention", self.attention), ("attention_gradient", self.attention_gradient)]
        {
            let widest = sizes.widest_held;
            expect(&format!("{name}.widest_held"), widest, widest <= 256, "at most 256");
            let whole = sizes.part > 0 && sizes.part.is_multiple_of(4);
            expect(&format!("{name}.part"), sizes.part, whole, "a multiple of 4");
            let lanes = [("lanes_held", sizes.lanes_held), ("lanes_parts", sizes.lanes_parts)];
            for (part, lanes) in lanes {
                let divides = lanes > 0 && REGION_GROUP.is_multiple_of(lanes);
                expect(&format!("{name}.{part}"), lanes, divides, "a divisor of 64");
            }
            let per_lane = sizes.per_lane;
            let power = per_lane.is_power_of_two() && per_lane <= 16;
            expect(&format!("{name}.per_lane"), per_lane, power, "1, 2, 4, 8 or 16");
            let blocks = [
                ("block_narrow", sizes.block_narrow),
                ("block_held", sizes.block_held),
                ("block_parts", sizes.block_parts),
            ];
            for (part, block) in blocks {
                let power = block.is_power_of_two() && block <= 4;
                expect(&format!("{name}.{part}"), block, power, "1, 2 or 4");
            }
            let staged = sizes.staged;
            expect(&format!("{name}.staged"), staged, (4..=256).contains(&staged), "4 to 256");
        }
        let LoraDownSizes { lanes, rows, outputs } = self.lora_down;
        expect("lora_down.lanes", lanes, (1..=256).contains(&lanes), "1 to 256");
        expect("lora_down.rows", rows, rows > 0, "1 or more");
        let fours = outputs > 0 && outputs.is_multiple_of(4);
        expect("lora_down.outputs", outputs, fours, "a multiple of 4");
        let bytes = lanes.saturating_mul(rows).saturating_mul(outputs).saturating_mul(4);
        expect("lora_down's workgroup memory", bytes, bytes <= 16 << 10, "at most 16384 bytes");
        let LoraUpSizes { lanes, rows } = self.lora_up;
        expect("lora_up.lanes", lanes, (1..=256).contains(&lanes), "1 to 256");
        expect("lora_up.rows", rows, (1..=64).contains(&rows), "1 to 64");
        let WeightGradientSizes { lanes, shortest_block, most_blocks } = self.weight_gradient;
        expect("weight_gradient.lanes", lanes, (1..=256).contains(&lanes), "1 to 256");
        let whole = shortest_block > 0;
        expect("weight_gradient.shortest_block", shortest_block, whole, "1 or more");
        let in_range = (1..=65535).contains(&most_blocks);
        expect("weight_gradient.most_blocks", most_blocks, in_range, "1 to 65535");
        let GroupNormSizes { shortest_chunk, most_chunks } = self.group_norm;
        expect("group_norm.shortest_chunk", shortest_chunk, shortest_chunk > 0, "1 or more");
        expect("group_norm.most_chunks", most_chunks, most_chunks > 0, "1 or more");
        let tiles = self.outer_sums.tiles;
        expect("outer_sums.tiles", tiles, (1..=16).contains(&tiles), "1 to 16");
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_sizes_says_what_differs() {
        let text = "[matmul]\nrows = 8\nlanes = 16\nunroll = 4\n";
        let tuned: Tuned = toml::from_str(text).unwrap();
        let matmul = MatmulSizes { rows: 8, lanes: 16, unroll: 4, staged: 1 };
        assert_eq!(tuned, Tuned { matmul, ..Tuned::STANDARD });
        let whole: Tuned = toml::from_str(&toml::to_string(&Tuned::STANDARD).unwrap()).unwrap();
        assert_eq!(whole, Tuned::STANDARD);
        assert!(toml::from_str::<Tuned>("[matmull]\nrows = 8\n").is_err());
    }

    #[test]
    fn sizes_that_kernels_are_not_written_for_are_refused() {
        assert_eq!(Tuned::STANDARD.check(), Ok(()));
        let refused = |change: &dyn Fn(&mut Tuned)| {
            let mut tuned = Tuned::STANDARD;
            change(&mut tuned);
            tuned.check().unwrap_err()
        };
        let said = refused(&|t| (t.matmul.lanes, t.lora_down.lanes) = (12, 512));
        assert!(said.contains("matmul.lanes is 12") && said.contains("lora_down.lanes"), "{said}");
        let said = refused(&|t| t.lora_down.rows = 64);
        assert!(said.contains("workgroup memory is 65536"), "{said}");
        let said = refused(&|t| t.attention_gradient.lanes_held = 48);
        assert!(said.contains("attention_gradient.lanes_held is 48"), "{said}");
        assert!(refused(&|t| t.attention.block_held = 3).contains("attention.block_held is 3"));
    }
}
