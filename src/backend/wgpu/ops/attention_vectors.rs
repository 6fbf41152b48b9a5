//! Attention as matrix products in straight-line code ([`Schedule::Vectors`]): the scores of as
//! many tokens as fit a fixed scratch are made, turned into probabilities and multiplied by the
//! values, before the next tokens' take their place.
//!
//! Scores need one operand with the tokens along its rows, so that neighbours can be loaded
//! together: that is transposed first.

use crate::backend::wgpu::lower::{BufferView, Lowering, Work, spread};
use crate::backend::wgpu::{Params, Schedule, Traits, Value};
use crate::graph::Shape;
use crate::graph::ops::attention::Attention;

/// How one attention is cut up. Rows of scores are tokens, and their columns keys; or the other way
/// round, see [`Straight::keys_values`].
pub(super) struct Straight {
    /// Invocations of a subgroup.
    lanes: usize,
    heads: usize,
    scale: f32,
    causal: bool,
    batch: usize,
    /// Batch entries of the queries that share one of keys and values.
    share: usize,
    rows: usize,
    /// Columns that count.
    met: usize,
    /// Channels of a head.
    d: usize,
    /// Numbers of a row of scores: the columns that count, filled up to whole workgroups.
    columns: usize,
    /// Rows that stand in the scratch at one time.
    block: usize,
}

/// One prompt among several: which keys are its own, and which tokens read it.
pub(super) struct OneOfSeveral {
    /// Its first key, and how many keys all prompts have.
    pub first_key: usize,
    pub all_keys: usize,
    /// u32: the rows that read it, from `first_reader` on.
    pub readers: BufferView,
    pub first_reader: usize,
    /// `[tokens, prompts]`, and which of them it is.
    pub weights: BufferView,
    pub prompts: usize,
    pub number: usize,
}

/// Which of a kernel's inputs, scratch or output a matrix is, and how far its rows, heads and batch
/// entries are apart.
#[derive(Clone)]
struct Matrix {
    at: BufferView,
    in_scratch: bool,
    start: usize,
    row: usize,
    head: usize,
    entry: usize,
    /// Batch entries that share one of the matrix.
    share: usize,
    /// The u32 that say which rows are meant, from which on.
    chosen: Option<(BufferView, usize)>,
}

/// What is done with a product when it is complete.
enum Tail {
    Nothing,
    /// Scaled scores of the rows from `first_row` on; places of the greatest of each workgroup's
    /// columns, if wanted.
    Scores {
        first_row: usize,
        visible: Visible,
        peaks: Option<usize>,
    },
    Scaled(f32),
    /// Rows are multiplied by factors that stand from here on in the scratch, and added to what is
    /// there, or take its place.
    Added {
        factors: usize,
        fresh: bool,
    },
}

/// What is made of some numbers of every row.
enum Statistic<'a> {
    /// The greatest.
    Peaks,
    /// One over the sum, or the weight of `prompt` over it, in the block from row `first` on.
    Factors { prompt: Option<&'a OneOfSeveral>, first: usize },
}

/// Which columns of a row of scores count.
#[derive(Clone, Copy)]
enum Visible {
    All,
    UpToTheRow,
    FromTheRow,
}

impl Straight {
    /// Numbers in the scratch's block of scores, about: 16 MiB.
    const SCORES: usize = 1 << 22;
    /// Vectors of sums in a workgroup: with their operands they fill 16 registers.
    const SUMS: usize = 12;
    /// The longest unrolled chunk of inputs; see `matmul_vectors`.
    const CHUNKS: std::ops::RangeInclusive<usize> = 16..=96;
    /// Rows of a workgroup of the kernels that work on scores alone.
    const TILE: usize = 2;
    /// What the kernels' indices can count.
    const MOST_ELEMENTS: usize = 1 << 28;
    const MOST_WORKGROUPS: usize = 65535;

    /// For the scores of queries `q` with the keys `k`. None where the schedule, the shape or the
    /// size of a binding doesn't suit it.
    pub fn of(traits: &Traits, attention: &Attention, q: &Shape, k: &Shape) -> Option<Straight> {
        Self::between(traits, attention, [q, k], [q[1], k[1]])
    }

    /// As [`Straight::of`], with the keys as rows.
    pub fn of_keys(
        traits: &Traits,
        attention: &Attention,
        q: &Shape,
        k: &Shape,
    ) -> Option<Straight> {
        Self::between(traits, attention, [q, k], [k[1], q[1]])
            .filter(|straight| straight.share == 1)
    }

    fn between(
        traits: &Traits,
        attention: &Attention,
        [q, k]: [&Shape; 2],
        [rows, met]: [usize; 2],
    ) -> Option<Straight> {
        let Schedule::Vectors { lanes, least_flops } = traits.schedule else { return None };
        let (batch, channels, heads) = (q[0], q[2], attention.heads);
        let (share, d, columns) =
            (batch / k[0].max(1), channels / heads, met.next_multiple_of(2 * lanes));
        let planes = (batch * heads).max(1);
        let fitting =
            (Self::SCORES / (planes * columns)).min(Self::TILE * Self::MOST_WORKGROUPS / planes);
        let block = (fitting / (2 * Self::SUMS) * 2 * Self::SUMS).max(2 * Self::SUMS).min(rows);
        let (scale, causal) = (attention.scale, attention.causal);
        let straight =
            Straight { lanes, heads, scale, causal, batch, share, rows, met, d, columns, block };
        let flops = 4 * (batch * rows * met * channels) as u64;
        let whole = d.is_multiple_of(lanes) || (lanes..=Self::SUMS * lanes).contains(&d);
        let suits = whole
            && [d, met].iter().all(|&inner| chunk(inner).is_some())
            && straight.scratch(2)
                < Self::MOST_ELEMENTS.min((traits.limits.max_binding / 4) as usize)
            && 2 * batch * rows.max(met) * channels < Self::MOST_ELEMENTS
            && planes * straight.block <= Self::TILE * Self::MOST_WORKGROUPS
            && planes <= Self::MOST_WORKGROUPS;
        (suits && least_flops <= flops).then_some(straight)
    }

    /// The same for fewer rows.
    pub fn with_rows(self, rows: usize) -> Straight {
        Straight { rows, block: self.block.min(rows), ..self }
    }

    /// Heads of all batch entries.
    fn planes(&self) -> usize {
        self.batch * self.heads
    }

    fn width(&self) -> usize {
        let widths = (1..=12).map(|vectors| vectors * self.lanes);
        widths.rev().find(|width| self.columns.is_multiple_of(*width)).unwrap_or(self.lanes)
    }

    /// Elements of a transposed tensor.
    fn turned(&self) -> usize {
        self.planes() * self.d * self.columns
    }

    /// Elements of a block of scores.
    fn scores(&self) -> usize {
        self.planes() * self.block * self.columns
    }

    /// Elements of scratch with `blocks` transposed tensors and as many blocks of scores: going
    /// forward 1, backward 1 (rows) or 2.
    pub fn scratch(&self, blocks: usize) -> usize {
        let rows = self.planes() * self.block;
        let statistics = self.columns / (2 * self.lanes) + self.columns / self.width() + 1;
        blocks * (self.turned() + self.scores()) + rows * statistics
    }

    /// Lowers y = softmax(`scale` q k^T) v.
    pub fn forward(&self, lowering: &mut Lowering<'_>) {
        let k = self.tensor(lowering.input(1), self.met).shared(self.share);
        let v = Matrix { at: lowering.input(2), ..k.clone() };
        self.add(lowering, [k, v], None, true);
    }

    /// Lowers y += weight softmax(`scale` q k^T) v of the tokens that read `prompt`.
    pub fn forward_of(&self, lowering: &mut Lowering<'_>, prompt: &OneOfSeveral) {
        let k = self
            .tensor(lowering.input(1), prompt.all_keys)
            .shared(self.share)
            .at_row(prompt.first_key);
        let v = Matrix { at: lowering.input(2), ..k.clone() };
        self.add(lowering, [k, v], Some(prompt), false);
    }

    /// Adds the attention to `k` and `v` to the output, or, `fresh`, overwrites it: the same
    /// numbers, if it is all zeros.
    fn add(
        &self,
        lowering: &mut Lowering<'_>,
        [k, v]: [Matrix; 2],
        prompt: Option<&OneOfSeveral>,
        fresh: bool,
    ) {
        let tokens = lowering.shape()[1];
        let chosen = prompt.map(|prompt| (prompt.readers.clone(), prompt.first_reader));
        let [q, y] = [lowering.input(0), lowering.output()]
            .map(|at| Matrix { chosen: chosen.clone(), ..self.tensor(at, tokens) });
        let places = Places::of(self, 1);
        self.transpose(lowering, &k, 0);
        for (first, rows) in self.blocks() {
            self.softmax_sums(lowering, &q, &places, (first, rows), true);
            let scores = self.in_scratch(lowering, places.scores, rows);
            // Their factors take the place of the peaks, which have served.
            let statistic = Statistic::Factors { prompt, first };
            self.statistics(
                lowering,
                statistic,
                rows,
                self.columns / self.width(),
                places.sums,
                places.peaks,
            );
            let tail = Tail::Added { factors: places.peaks, fresh };
            self.product(lowering, &scores, &v, &y.at_row(first), [rows, self.met, self.d], tail);
        }
    }

    /// Lowers [`super::attention_gradient::AttentionRows`]: of q, k, y and dy.
    pub fn rows(&self, lowering: &mut Lowering<'_>) {
        let (q, k) = (
            self.tensor(lowering.input(0), self.rows),
            self.tensor(lowering.input(1), self.met).shared(self.share),
        );
        let places = Places::of(self, 1);
        self.transpose(lowering, &k, 0);
        for (first, rows) in self.blocks() {
            self.softmax_sums(lowering, &q, &places, (first, rows), false);
            let lanes = self.lanes;
            let work = Work {
                kernel: "attention_rows_totals",
                params: [("lanes", Value::from(lanes))].into(),
                uniforms: vec![
                    ("tokens", self.rows.into()),
                    ("channels", (self.heads * self.d).into()),
                    ("heads", self.heads.into()),
                    ("first", first.into()),
                    ("count", rows.into()),
                    ("peaks", places.peaks.into()),
                    ("sums", places.sums.into()),
                    ("chunks", (self.columns / self.width()).into()),
                ],
                grid: [rows.div_ceil(lanes), 1, self.planes()],
                bindings: vec![
                    ("scratch", lowering.scratch()),
                    ("y", lowering.input(2)),
                    ("dy", lowering.input(3)),
                    ("rows", lowering.output()),
                ],
                flops: 2 * (self.planes() * rows * self.d) as u64,
            };
            lowering.dispatch(work, false);
        }
    }

    /// Lowers [`super::attention_gradient::AttentionQueries`]: of q, k, v, dy and the rows.
    pub fn queries(&self, lowering: &mut Lowering<'_>) {
        let [q, dy] = [0, 3].map(|i| self.tensor(lowering.input(i), self.rows));
        let [k, v] = [1, 2].map(|i| self.tensor(lowering.input(i), self.met).shared(self.share));
        let dq = self.tensor(lowering.output(), self.rows);
        let places = Places::of(self, 2);
        self.transpose(lowering, &k, 0);
        self.transpose(lowering, &v, self.turned());
        for (first, rows) in self.blocks() {
            self.gradient_of_scores(lowering, [&q, &dy], &places, (first, rows), false);
            let gradients = self.in_scratch(lowering, places.gradients, rows);
            self.product(
                lowering,
                &gradients,
                &k,
                &dq.at_row(first),
                [rows, self.met, self.d],
                Tail::Scaled(self.scale),
            );
        }
    }

    /// Lowers [`super::attention_gradient::AttentionKeysValues`]: of q, k, v, dy and the rows. Rows
    /// of scores are keys here.
    pub fn keys_values(&self, lowering: &mut Lowering<'_>) {
        let [q, dy] = [0, 3].map(|i| self.tensor(lowering.input(i), self.met));
        let [k, v] = [1, 2].map(|i| self.tensor(lowering.input(i), self.rows));
        let dk = self.tensor(lowering.output(), self.rows);
        let dv = Matrix { start: self.batch * dk.entry, ..dk.clone() };
        let places = Places::of(self, 2);
        self.transpose(lowering, &q, 0);
        self.transpose(lowering, &dy, self.turned());
        for (first, rows) in self.blocks() {
            self.gradient_of_scores(lowering, [&k, &v], &places, (first, rows), true);
            let [probabilities, gradients] =
                [places.scores, places.gradients].map(|at| self.in_scratch(lowering, at, rows));
            let extents = [rows, self.met, self.d];
            self.product(lowering, &probabilities, &dy, &dv.at_row(first), extents, Tail::Nothing);
            self.product(
                lowering,
                &gradients,
                &q,
                &dk.at_row(first),
                extents,
                Tail::Scaled(self.scale),
            );
        }
    }

    /// First row and number of rows of each block.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (block, rows) = (self.block, self.rows);
        (0..rows).step_by(block.max(1)).map(move |first| (first, block.min(rows - first)))
    }

    /// A `[batch, rows, channels]` tensor.
    fn tensor(&self, at: BufferView, rows: usize) -> Matrix {
        let row = self.heads * self.d;
        Matrix {
            at,
            in_scratch: false,
            start: 0,
            row,
            head: self.d,
            entry: rows * row,
            share: 1,
            chosen: None,
        }
    }

    /// `rows` rows of scores in the scratch, or d of a transposed tensor.
    fn in_scratch(&self, lowering: &Lowering<'_>, start: usize, rows: usize) -> Matrix {
        let head = rows * self.columns;
        let (row, entry) = (self.columns, self.heads * head);
        Matrix {
            at: lowering.scratch(),
            in_scratch: true,
            start,
            row,
            head,
            entry,
            share: 1,
            chosen: None,
        }
    }

    /// Puts the transposed `x`, which has a row for each column of scores, into the scratch.
    fn transpose(&self, lowering: &mut Lowering<'_>, x: &Matrix, start: usize) {
        let work = Work {
            kernel: "attention_transposed",
            params: [("lanes", Value::from(self.lanes))].into(),
            uniforms: vec![
                ("tokens", self.met.into()),
                ("channels", (self.heads * self.d).into()),
                ("heads", self.heads.into()),
                ("share", x.share.into()),
                ("first", x.start.into()),
                ("entry", x.entry.into()),
                ("start", start.into()),
                ("columns", self.columns.into()),
            ],
            grid: [self.columns.div_ceil(self.lanes), 1, self.planes()],
            bindings: vec![("x", x.at.clone()), ("y", lowering.scratch())],
            flops: 0,
        };
        lowering.dispatch(work, false);
    }

    /// The scores of some queries, their peaks and the sums of their exponentials, which are
    /// `stored` or not.
    fn softmax_sums(
        &self,
        lowering: &mut Lowering<'_>,
        q: &Matrix,
        places: &Places,
        (first, rows): (usize, usize),
        stored: bool,
    ) {
        let visible = if self.causal { Visible::UpToTheRow } else { Visible::All };
        let keys = self.in_scratch(lowering, 0, self.d);
        let scores = self.in_scratch(lowering, places.scores, rows);
        let tail = Tail::Scores { first_row: first, visible, peaks: Some(places.tiles) };
        self.product(
            lowering,
            &q.at_row(first),
            &keys,
            &scores,
            [rows, self.d, self.columns],
            tail,
        );
        self.statistics(
            lowering,
            Statistic::Peaks,
            rows,
            self.columns / (2 * self.lanes),
            places.tiles,
            places.peaks,
        );
        let (all, width) = (self.planes() * rows, self.width());
        let work = Work {
            kernel: "attention_exponentials",
            params: [
                ("lanes", Value::from(self.lanes)),
                ("tile", Value::from(Self::TILE)),
                ("width", Value::from(width)),
                ("stored", Value::from(stored)),
            ]
            .into(),
            uniforms: vec![
                ("rows", all.into()),
                ("columns", self.columns.into()),
                ("start", places.scores.into()),
                ("peaks", places.peaks.into()),
                ("sums", places.sums.into()),
                ("chunks", (self.columns / width).into()),
                ("opaque", 0usize.into()),
            ],
            grid: [self.columns / width, all.div_ceil(Self::TILE), 1],
            bindings: vec![("y", lowering.scratch())],
            flops: 0,
        };
        lowering.dispatch(work, false);
    }

    /// Probabilities and the gradients of scores, which the rows of `operands` make with what
    /// stands transposed in the scratch: the first the scores, the second the gradients of the
    /// probabilities. Rows are queries, or, `by_column`, keys.
    fn gradient_of_scores(
        &self,
        lowering: &mut Lowering<'_>,
        operands: [&Matrix; 2],
        places: &Places,
        (first, rows): (usize, usize),
        by_column: bool,
    ) {
        let visible = match (self.causal, by_column) {
            (false, _) => Visible::All,
            (true, false) => Visible::UpToTheRow,
            (true, true) => Visible::FromTheRow,
        };
        let tails = [Tail::Scores { first_row: first, visible, peaks: None }, Tail::Nothing];
        let targets = [(0, places.scores), (self.turned(), places.gradients)];
        for ((operand, tail), (turned, target)) in operands.into_iter().zip(tails).zip(targets) {
            let [turned, target] = [(turned, self.d), (target, rows)]
                .map(|(at, rows)| self.in_scratch(lowering, at, rows));
            self.product(
                lowering,
                &operand.at_row(first),
                &turned,
                &target,
                [rows, self.d, self.columns],
                tail,
            );
        }
        let width = 2 * self.lanes;
        let tile = if by_column { 6 } else { Self::TILE };
        let work = Work {
            kernel: "attention_scores_gradient",
            params: [
                ("lanes", Value::from(self.lanes)),
                ("tile", Value::from(tile)),
                ("width", Value::from(width)),
                ("by_column", Value::from(by_column)),
            ]
            .into(),
            uniforms: vec![
                ("count", rows.into()),
                ("columns", self.columns.into()),
                ("tokens", if by_column { self.met } else { self.rows }.into()),
                ("heads", self.heads.into()),
                ("scores", places.scores.into()),
                ("gradients", places.gradients.into()),
                ("first_row", first.into()),
                ("opaque", 0usize.into()),
            ],
            grid: [self.columns / width, rows.div_ceil(tile), self.planes()],
            bindings: vec![("rows", lowering.input(4)), ("y", lowering.scratch())],
            flops: 0,
        };
        lowering.dispatch(work, false);
    }

    /// For all `rows` of a block, at `to`: a statistic of `count` numbers at `from`.
    fn statistics(
        &self,
        lowering: &mut Lowering<'_>,
        statistic: Statistic<'_>,
        rows: usize,
        count: usize,
        from: usize,
        to: usize,
    ) {
        let all = self.planes() * rows;
        let mut uniforms = vec![
            ("rows", all.into()),
            ("begin", from.into()),
            ("count", count.into()),
            ("to", to.into()),
        ];
        let mut bindings = vec![("y", lowering.scratch())];
        let (peaks, prompt) = match statistic {
            Statistic::Peaks => (true, None),
            Statistic::Factors { prompt, first } => (false, prompt.map(|prompt| (prompt, first))),
        };
        if let Some((prompt, first)) = prompt {
            uniforms.extend([
                ("block", rows.into()),
                ("first_reader", (prompt.first_reader + first).into()),
                ("prompts", prompt.prompts.into()),
                ("prompt", prompt.number.into()),
            ]);
            bindings
                .extend([("readers", prompt.readers.clone()), ("weights", prompt.weights.clone())]);
        }
        let work = Work {
            kernel: "attention_statistics",
            params: [
                ("lanes", Value::from(self.lanes)),
                ("peaks", Value::from(peaks)),
                ("weighted", Value::from(prompt.is_some())),
            ]
            .into(),
            uniforms,
            grid: spread(all.div_ceil(self.lanes)),
            bindings,
            flops: 0,
        };
        lowering.dispatch(work, false);
    }

    /// c = a b of `[rows, inner, columns]` for every head of every batch entry.
    fn product(
        &self,
        lowering: &mut Lowering<'_>,
        a: &Matrix,
        b: &Matrix,
        c: &Matrix,
        [rows, inner, columns]: [usize; 3],
        tail: Tail,
    ) {
        let chunk = chunk(inner).unwrap_or(inner);
        // Two vectors and six rows want the fewest loads, five and two nearly as few; one and
        // twelve half as many again.
        let fitting =
            [2, 5, 3, 1].into_iter().find(|vectors| columns.is_multiple_of(vectors * self.lanes));
        // Columns that fill no vectors are made by one workgroup, whose last vectors overlap.
        let vectors = fitting.unwrap_or(columns.div_ceil(self.lanes));
        let overlapping = (vectors * self.lanes).saturating_sub(columns);
        let tile = Self::SUMS / vectors;
        let within = b.in_scratch && c.in_scratch;
        let chunks = inner / chunk;
        for number in 0..chunks {
            let mut params = Params::from([
                ("lanes", Value::from(self.lanes)),
                ("tile", Value::from(tile)),
                ("columns", Value::from(vectors)),
                ("chunk", Value::from(chunk)),
                ("overlapping", Value::from(overlapping)),
                ("within", Value::from(within)),
                ("whole", Value::from(chunks == 1 || matches!(tail, Tail::Added { .. }))),
                ("tail", Value::from("")),
                (
                    "chosen",
                    Value::from(if a.chosen.is_some() {
                        "a"
                    } else if c.chosen.is_some() {
                        "c"
                    } else {
                        ""
                    }),
                ),
            ]);
            let mut uniforms = vec![
                ("rows", rows.into()),
                ("heads", self.heads.into()),
                ("first", usize::from(number == 0).into()),
                ("a_start", (a.start + number * chunk).into()),
                ("a_row", a.row.into()),
                ("a_head", a.head.into()),
                ("a_entry", a.entry.into()),
                ("b_start", (b.start + number * chunk * b.row).into()),
                ("b_row", b.row.into()),
                ("b_head", b.head.into()),
                ("b_entry", b.entry.into()),
                ("share", b.share.into()),
                ("c_start", c.start.into()),
                ("c_row", c.row.into()),
                ("c_head", c.head.into()),
                ("c_entry", c.entry.into()),
            ];
            let name = match tail {
                Tail::Added { factors, fresh } => {
                    uniforms.extend([
                        ("factors", factors.into()),
                        ("fresh", usize::from(fresh && number == 0).into()),
                    ]);
                    "added"
                }
                _ if number + 1 < chunks => "",
                Tail::Nothing => "",
                Tail::Scores { first_row, visible, peaks } => {
                    let causal = match visible {
                        Visible::All => "",
                        Visible::UpToTheRow => "up to",
                        Visible::FromTheRow => "from",
                    };
                    params.extend([
                        ("causal", Value::from(causal)),
                        ("peaks", Value::from(peaks.is_some())),
                    ]);
                    uniforms.extend([
                        ("visible", self.met.into()),
                        ("first_row", first_row.into()),
                        ("peaks", peaks.unwrap_or(0).into()),
                        ("tiles", (columns / (vectors * self.lanes)).into()),
                        // Devices compute 2^x, not e^x.
                        ("scale", (self.scale * std::f32::consts::LOG2_E).into()),
                    ]);
                    "scores"
                }
                Tail::Scaled(scale) => {
                    uniforms.push(("scale", scale.into()));
                    "scaled"
                }
            };
            params.insert("tail", Value::from(name));
            let mut bindings = vec![("a", a.at.clone()), ("b", b.at.clone()), ("c", c.at.clone())];
            bindings.retain(|(name, _)| !within || *name != "b");
            if let Some((chosen, first)) = a.chosen.as_ref().or(c.chosen.as_ref()) {
                bindings.push(("chosen", chosen.clone()));
                uniforms.push(("first_chosen", (*first).into()));
            }
            let work = Work {
                kernel: "attention_matmul",
                params,
                uniforms,
                grid: [columns.div_ceil(vectors * self.lanes), rows.div_ceil(tile), self.planes()],
                bindings,
                flops: 2 * (self.planes() * rows * chunk * columns) as u64,
            };
            lowering.dispatch(work, false);
        }
    }
}

/// The longest chunk of which `inner` inputs are made.
fn chunk(inner: usize) -> Option<usize> {
    Straight::CHUNKS.rev().find(|chunk| inner.is_multiple_of(*chunk))
}

impl Matrix {
    /// The rows from number `row` on.
    fn at_row(&self, row: usize) -> Matrix {
        match &self.chosen {
            Some((chosen, first)) => {
                Matrix { chosen: Some((chosen.clone(), first + row)), ..self.clone() }
            }
            None => Matrix { start: self.start + row * self.row, ..self.clone() },
        }
    }

    fn shared(self, share: usize) -> Matrix {
        Matrix { share, ..self }
    }
}

/// Where things stand in the scratch, behind the transposed tensors.
struct Places {
    scores: usize,
    gradients: usize,
    /// Of every row: the greatest scores of each workgroup's columns; the greatest of all; the sums
    /// of each chunk.
    tiles: usize,
    peaks: usize,
    sums: usize,
}

impl Places {
    fn of(straight: &Straight, blocks: usize) -> Places {
        let rows = straight.planes() * straight.block;
        let scores = blocks * straight.turned();
        let tiles = scores + blocks * straight.scores();
        let peaks = tiles + rows * (straight.columns / (2 * straight.lanes));
        Places { scores, gradients: scores + straight.scores(), tiles, peaks, sums: peaks + rows }
    }
}
