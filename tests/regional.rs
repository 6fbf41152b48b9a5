//! Attention by regions, kernel against plain Rust and plain Rust against the published procedure,
//! over random boxes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use mixofshow::backend::wgpu::{Gpu, MatrixUse, Options, Schedule};
use mixofshow::backend::{Device, Precision, Program, Weights};
use mixofshow::graph::ops::{Reach, RegionInputs, RegionTables};
use mixofshow::graph::{Array, Graph, ParameterError, ParameterInfo, ParameterSource, Tensor};
use mixofshow::region::{Area, Layout, Placed, Region};

#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "common/chosen.rs"]
mod chosen;

/// The processor where it is chosen, else the adapter in several ways; and whether it rounds
/// factors to f16.
fn devices() -> Vec<(Device, bool)> {
    match chosen::processor() {
        Some(cpu) => vec![(cpu.into(), false)],
        None => gpus()
            .iter()
            .map(|gpu| (gpu.clone().into(), matches!(gpu.schedule(), Schedule::Matrices(_))))
            .collect(),
    }
}

/// The adapter, and again with cooperative matrices where it takes them.
fn gpus() -> &'static [Arc<Gpu>] {
    static GPUS: OnceLock<Vec<Arc<Gpu>>> = OnceLock::new();
    GPUS.get_or_init(|| {
        let floor = Options { checked: true, floor: true, ..Options::default() };
        let with = Options { checked: true, matrices: MatrixUse::On, ..Options::default() };
        let mut gpus = vec![chosen::adapter(floor)];
        let with = chosen::adapter(with);
        if with.matrices().is_ok() {
            gpus.push(with);
        }
        gpus
    })
}

/// A model without weights.
struct Nothing;

impl ParameterSource for Nothing {
    fn info(&self, _: &str) -> Option<ParameterInfo> {
        None
    }

    fn read(
        &self,
        name: &str,
        _: std::ops::Range<usize>,
        _: &mut [f32],
    ) -> Result<(), ParameterError> {
        Err(ParameterError::Missing { name: name.into() })
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e3779b97f4a7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    fn array(&mut self, shape: [usize; 3]) -> Array {
        let values = (0..shape.iter().product())
            .map(|_| (self.bits() >> 40) as f32 / (1 << 22) as f32 - 2.0)
            .collect();
        Array::f32(shape, values)
    }
}

/// A graph of one attention, its inputs and its output.
struct Attention {
    graph: Graph,
    output: Tensor,
    values: HashMap<String, Array>,
}

impl Attention {
    fn new() -> Self {
        Attention {
            graph: Graph::new(),
            output: Graph::new().input("", [1]),
            values: HashMap::new(),
        }
    }

    fn input(&mut self, name: &str, array: &Array) -> Tensor {
        // Numbers that f16 has come through the rounding of factors unchanged.
        let half = |&value: &f32| half::f16::from_f32(value).to_f32();
        let held = match array.ids().is_empty() {
            true => Array::f32(array.shape.clone(), array.values().iter().map(half).collect()),
            false => array.clone(),
        };
        self.values.insert(name.into(), held);
        match array.ids().is_empty() {
            true => self.graph.input(name, &array.shape[..]),
            false => self.graph.input_ids(name, &array.shape[..]),
        }
    }

    fn regional(arrays: &[Array; 3], weights: &[f32], lengths: &[usize], heads: usize) -> Self {
        let tables = RegionTables::new(weights, lengths);
        Self::reaching(arrays, &tables, tables.reach().to_vec(), heads)
    }

    /// Declared for `reach`, with the values of `tables`.
    fn reaching(
        [q, k, v]: &[Array; 3],
        tables: &RegionTables,
        reach: Vec<Reach>,
        heads: usize,
    ) -> Self {
        let mut a = Self::new();
        let tokens = q.shape[1];
        let [q, k, v] = [("q", q), ("k", k), ("v", v)].map(|(name, array)| a.input(name, array));
        a.values.extend(tables.named("regions").map(|(name, array)| (name, array.clone())));
        let inputs = RegionInputs::declare(&mut a.graph, "regions", tokens, reach);
        a.output = a.graph.regional_attention(q, k, v, inputs, heads, 0.4).unwrap();
        a
    }

    fn plain([q, k, v]: &[Array; 3], heads: usize) -> Self {
        let mut a = Self::new();
        let [q, k, v] = [("q", q), ("k", k), ("v", v)].map(|(name, array)| a.input(name, array));
        a.output = a.graph.attention_to_prompt(q, k, v, heads, 0.4).unwrap();
        a
    }

    fn evaluate(&self) -> Array {
        self.graph.evaluate(&[self.output], &self.values, &Nothing).unwrap().remove(0)
    }

    fn run(&self, device: &Device) -> Array {
        let weights = Weights::new(device, Arc::new(Nothing), Precision::F32);
        let program = Program::new(&weights, &self.graph, &[self.output]).unwrap();
        for (name, array) in &self.values {
            program.write(name, array).unwrap();
        }
        program.run();
        program.output(0).unwrap()
    }

    /// Fails unless kernels and plain Rust agree; what plain Rust says.
    fn check(&self, what: &str) -> Array {
        let expected = self.evaluate();
        for (device, rounds) in devices() {
            // Matrices keep 11 bits of exponentials.
            close(what, &self.run(&device), &expected, if rounds { 5e-4 } else { 1e-5 });
        }
        expected
    }
}

fn close(what: &str, found: &Array, expected: &Array, tolerance: f32) {
    let scale = expected.values().iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.values().iter().zip(expected.values()).enumerate() {
        assert!((f - e).abs() <= tolerance * scale, "{what}: element {i} is {f} instead of {e}");
    }
    assert_eq!(found.shape, expected.shape, "{what}");
}

/// The rows of prompt `p` out of keys or values of all.
fn part(all: &Array, lengths: &[usize], p: usize) -> Array {
    let [batch, keys, channels] = [all.shape[0], all.shape[1], all.shape[2]];
    let start: usize = lengths[..p].iter().sum();
    let rows = (0..batch)
        .flat_map(|b| &all.values()[(b * keys + start) * channels..][..lengths[p] * channels]);
    Array::f32([batch, lengths[p], channels], rows.copied().collect())
}

fn layout(boxes: &[[f64; 4]]) -> Layout {
    let region = |edges: &[f64; 4]| Region {
        prompt: "a".into(),
        area: Area::Box(*edges),
        ..Region::default()
    };
    Layout { regions: boxes.iter().map(region).collect(), ..Layout::default() }
}

fn shares(layout: &Layout, [height, width]: [usize; 2]) -> Vec<f32> {
    let placed = Placed::new(layout, width * 8, height * 8, &[[height, width]]).unwrap();
    placed.shares(0, &vec![true; layout.regions.len()]).weights
}

/// The published procedure in f64: the context's result, replaced where boxes lie by the mean of
/// theirs.
fn published(results: &[Array], boxes: &[[f64; 4]], [height, width]: [usize; 2]) -> Array {
    let shape = &results[0].shape;
    let (tokens, channels) = (shape[1], shape[2]);
    let mut out = results[0].values().to_vec();
    for (row, y) in out.chunks_exact_mut(channels).enumerate() {
        let (i, j) = (row % tokens / width, row % tokens % width);
        let covers = |edges: &&[f64; 4]| {
            let [left, top, right, bottom] = **edges;
            let (w, h) = (width as f64, height as f64);
            (left * w).ceil() as usize <= j
                && j < (right * w).floor() as usize
                && (top * h).ceil() as usize <= i
                && i < (bottom * h).floor() as usize
        };
        let covering: Vec<usize> = (1..=boxes.len()).filter(|&p| covers(&&boxes[p - 1])).collect();
        for (c, y) in y.iter_mut().enumerate().filter(|_| !covering.is_empty()) {
            let sum: f64 =
                covering.iter().map(|&p| f64::from(results[p].values()[row * channels + c])).sum();
            *y = (sum / covering.len() as f64) as f32;
        }
    }
    Array::f32(shape.clone(), out)
}

#[test]
fn random_boxes_give_what_the_published_procedure_gives() {
    let mut random = Random(7);
    let heads =
        [(2, 8), (3, 40), (1, 64), (2, 10), (1, 160), (2, 5), (1, 192), (4, 4), (3, 40), (2, 80)];
    for (case, (heads, d)) in heads.into_iter().enumerate() {
        let size = [random.below(12) + 1, random.below(15) + 1];
        let [height, width] = size;
        // In quarters of a cell, at least one cell large: empty, whole and touching ones among
        // them.
        let mut boxes = Vec::new();
        for _ in 0..random.below(5) + usize::from(case > 0) {
            let mut side = |n: usize| {
                let first = random.below(4 * n - 3);
                let last = first + 4 + random.below(4 * n - first - 3);
                let whole = if first.div_ceil(4) < last / 4 { [first, last] } else { [0, 4 * n] };
                whole.map(|v| v as f64 / (4 * n) as f64)
            };
            let ([left, right], [top, bottom]) = (side(width), side(height));
            boxes.push([left, top, right, bottom]);
        }
        if case == 2 {
            boxes.push([0.0, 0.0, 1.0, 1.0]);
        }
        // In every other case none is shorter than a tile.
        let least = if case % 2 == 0 { 16 } else { 1 };
        let lengths: Vec<usize> = (0..=boxes.len()).map(|_| random.below(80) + least).collect();
        let (keys, channels) = (lengths.iter().sum(), heads * d);
        let (batch, share) = if case % 2 == 0 { (4, 2) } else { (2, 1) };
        let arrays = [
            random.array([batch, height * width, channels]),
            random.array([batch / share, keys, channels]),
            random.array([batch / share, keys, channels]),
        ];
        let what =
            format!("{height}x{width}, {heads} heads of {d}, boxes {boxes:?}, keys {lengths:?}");
        let weights = shares(&layout(&boxes), size);
        let found = Attention::regional(&arrays, &weights, &lengths, heads).check(&what);
        let alone = |p| {
            let [q, k, v] = &arrays;
            Attention::plain(&[q.clone(), part(k, &lengths, p), part(v, &lengths, p)], heads)
                .evaluate()
        };
        let results: Vec<Array> = (0..lengths.len()).map(alone).collect();
        close(&what, &found, &published(&results, &boxes, size), 1e-6);
    }
}

#[test]
fn weights_of_any_kind() {
    let mut random = Random(3);
    // Keys that fill tiles and that do not, tokens of one group and of several.
    for (lengths, tokens, d) in [
        ([13, 77, 1], 70, 8),
        ([13, 77, 1], 129, 40),
        ([77, 154, 16], 129, 40),
        ([9, 1, 2], 5, 192),
    ] {
        let keys = lengths.iter().sum();
        let arrays = [
            random.array([2, tokens, 2 * d]),
            random.array([2, keys, 2 * d]),
            random.array([2, keys, 2 * d]),
        ];
        // Soft shares, shares of nothing, rows without any.
        let weight = |random: &mut Random| {
            if random.below(3) == 0 { 0.0 } else { random.below(100) as f32 / 70.0 }
        };
        let mut weights: Vec<f32> = (0..tokens * 3).map(|_| weight(&mut random)).collect();
        weights[3..6].fill(0.0);
        let found = Attention::regional(&arrays, &weights, &lengths, 2)
            .check(&format!("{tokens} tokens, heads of {d}"));
        assert!(found.values()[2 * d..4 * d].iter().all(|v| *v == 0.0));
    }
}

/// The gradients of queries, keys and values, on devices as in plain Rust.
#[test]
fn gradients() {
    let mut random = Random(11);
    for (lengths, tokens, (batch, share), (heads, d)) in [
        (&[13, 77, 1][..], 70, (2, 1), (2, 8)),
        (&[77, 77], 129, (4, 2), (1, 40)),
        (&[5, 20, 9, 3], 16, (3, 3), (3, 5)),
        (&[9], 33, (1, 1), (2, 20)),
    ] {
        let keys = lengths.iter().sum();
        let arrays = [
            random.array([batch, tokens, heads * d]),
            random.array([batch / share, keys, heads * d]),
            random.array([batch / share, keys, heads * d]),
        ];
        let weight = |random: &mut Random| {
            if random.below(2) == 0 { 0.0 } else { random.below(100) as f32 / 70.0 }
        };
        let weights: Vec<f32> = (0..tokens * lengths.len()).map(|_| weight(&mut random)).collect();
        let mut a = Attention::regional(&arrays, &weights, lengths, heads);
        let upstream = random.array([batch, tokens, heads * d]);
        let upstream = a.input("upstream", &upstream);
        let [q, k, v] = ["q", "k", "v"].map(|name| a.graph.find_input(name).unwrap());
        let found = a.graph.gradients_of(a.output, upstream, &[q, k, v]).unwrap();
        let flat = found.into_iter().map(|gradient| {
            let count = a.graph.shape(gradient).elements();
            a.graph.reshape(gradient, [count]).unwrap()
        });
        let flat: Vec<Tensor> = flat.collect();
        a.output = a.graph.concat(&flat, 0).unwrap();
        a.check(&format!("gradients of {lengths:?}, {tokens} tokens, {heads} heads of {d}"));
    }
}

#[test]
fn inputs_for_a_farther_reach_take_tables_of_a_shorter_one() {
    let mut random = Random(4);
    let (lengths, d) = ([77, 20], 16);
    let arrays =
        [random.array([2, 60, 2 * d]), random.array([2, 97, 2 * d]), random.array([2, 97, 2 * d])];
    // Two phases of one program: the context reaches farther in the second, the region in the
    // first.
    let phases = [[0.0, 0.0, 0.8, 1.0], [0.2, 0.0, 0.5, 0.5]]
        .map(|edges| shares(&layout(&[edges]), [6, 10]));
    let tables = phases.each_ref().map(|weights| RegionTables::new(weights, &lengths));
    let most = |p: usize| tables.iter().map(|t| t.reach()[p].tokens).max().unwrap();
    let reach = vec![Reach { keys: 77, tokens: most(0) }, Reach { keys: 20, tokens: most(1) }];
    for (weights, tables) in phases.iter().zip(&tables) {
        assert!(tables.reach() != reach);
        let expected = Attention::regional(&arrays, weights, &lengths, 2).evaluate();
        let farther = Attention::reaching(&arrays, tables, reach.clone(), 2);
        for (device, rounds) in devices() {
            let tolerance = if rounds { 5e-4 } else { 1e-5 };
            close("tables of a shorter reach", &farther.run(&device), &expected, tolerance);
        }
    }
}

#[test]
fn one_region_over_everything_is_its_prompt_bit_for_bit() {
    let mut random = Random(11);
    for d in [8, 40, 64, 160, 192, 6] {
        let size = [9, 11];
        let lengths = [7, 77];
        let arrays = [
            random.array([2, 99, 2 * d]),
            random.array([2, 84, 2 * d]),
            random.array([2, 84, 2 * d]),
        ];
        let weights = shares(&layout(&[[0.0, 0.0, 1.0, 1.0]]), size);
        let regional = Attention::regional(&arrays, &weights, &lengths, 2);
        let [q, k, v] = &arrays;
        let plain = Attention::plain(&[q.clone(), part(k, &lengths, 1), part(v, &lengths, 1)], 2);
        for (device, _) in devices() {
            assert!(regional.run(&device) == plain.run(&device), "heads of {d}");
        }
    }
}

#[test]
fn the_order_of_regions_that_do_not_overlap_changes_nothing() {
    let mut random = Random(5);
    let size = [16, 16];
    let boxes = [[0.0, 0.0, 0.4, 1.0], [0.5, 0.0, 1.0, 0.5], [0.5, 0.5, 1.0, 1.0]];
    let q = random.array([2, 256, 80]);
    let prompts: &Vec<[Array; 2]> =
        &(0..4).map(|_| [random.array([2, 20, 80]), random.array([2, 20, 80])]).collect();
    let run = |order: [usize; 3], device: &Device| {
        let all = |i: usize| {
            let order: Vec<usize> = std::iter::once(0).chain(order.map(|n| n + 1)).collect();
            let half = |half: usize| {
                order.iter().flat_map(|&p| prompts_half(&prompts[p][i], half)).collect::<Vec<f32>>()
            };
            Array::f32([2, 80, 80], [half(0), half(1)].concat())
        };
        let weights = shares(&layout(&order.map(|n| boxes[n])), size);
        Attention::regional(&[q.clone(), all(0), all(1)], &weights, &[20; 4], 2).run(device)
    };
    for (device, _) in devices() {
        let first = run([0, 1, 2], &device);
        assert!(first == run([2, 0, 1], &device) && first == run([1, 2, 0], &device));
    }
}

fn prompts_half(array: &Array, half: usize) -> Vec<f32> {
    array.values()[half * 1600..(half + 1) * 1600].to_vec()
}

#[test]
fn tokens_see_what_shares_a_bit_with_them() {
    let mut random = Random(9);
    for (tokens, d, halves) in [(1, 8, false), (70, 40, false), (33, 192, false), (70, 40, true)] {
        let arrays = [0; 3].map(|_| random.array([2, tokens, 2 * d]));
        // At random, or in two halves: keys that come first are seen by none of the last tokens.
        let mut bits = |token| {
            if halves { 1 + u32::from(token >= 40) } else { [1, 2, 3, u32::MAX][random.below(4)] }
        };
        let sight: Vec<u32> = (0..tokens).map(&mut bits).collect();
        let mut a = Attention::new();
        let [q, k, v] = [0, 1, 2].map(|i| a.input(&i.to_string(), &arrays[i]));
        let input = a.input("mask", &Array::u32([tokens], sight.clone()));
        a.output = a.graph.masked_attention(q, k, v, input, 2, 0.3).unwrap();
        let found = a.check(&format!("sight of {tokens}"));
        // The keys that a token does not see are as good as absent.
        let token = tokens / 2;
        let seen: Vec<usize> = (0..tokens).filter(|&key| sight[key] & sight[token] != 0).collect();
        let rows = |array: &Array, which: &[usize]| {
            let row =
                |b: usize, t: usize| array.values()[(b * tokens + t) * 2 * d..][..2 * d].to_vec();
            let values: Vec<f32> =
                (0..2).flat_map(|b| which.iter().flat_map(move |&t| row(b, t))).collect();
            Array::f32([2, which.len(), 2 * d], values)
        };
        let mut alone = Attention::new();
        let [q, k, v] = [
            ("q", rows(&arrays[0], &[token])),
            ("k", rows(&arrays[1], &seen)),
            ("v", rows(&arrays[2], &seen)),
        ]
        .map(|(name, array)| alone.input(name, &array));
        alone.output = alone.graph.attention(q, k, v, 2, 0.3, false).unwrap();
        close("what is seen", &rows(&found, &[token]), &alone.evaluate(), 1e-6);
    }
}

#[test]
fn means_of_two_by_two() {
    for shape in [[2, 4, 6, 8], [1, 5, 7, 3], [1, 1, 1, 4], [2, 1, 4, 12]] {
        let mut random = Random(1);
        let mut a = Attention::new();
        let x = random.array([shape[0] * shape[1], shape[2], shape[3]]);
        let x = a.input("x", &Array::f32(shape, x.values().to_vec()));
        a.output = a.graph.average_pool(x).unwrap();
        a.check(&format!("pool {shape:?}"));
    }
    let mut a = Attention::new();
    let x = a.input("x", &Array::f32([1, 3, 3, 1], (0..9).map(|i| i as f32).collect()));
    a.output = a.graph.average_pool(x).unwrap();
    assert_eq!(a.evaluate().values(), [2.0, 3.5, 6.5, 8.0]);
}
