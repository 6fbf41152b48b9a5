//! The outer half of a low-rank update: y + t u^T, folded into the kernel that computes y wherever
//! that is a product.

use super::{Epilogue, Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct LoraUp {
    /// The matrix lies as `[rank, out]`, not `[out, rank]`.
    pub transposed: bool,
    /// There is a first input that the product is added to.
    pub based: bool,
}

impl Graph {
    /// `y[.., n] = base[.., n] + sum_r t[.., r] u[n, r]`: `t` is `[.., rank]`, `u` `[out, rank]`,
    /// any tensor; `base` has the result's shape and is zero if there is none.
    pub fn lora_up(&mut self, base: Option<Tensor>, t: Tensor, u: Tensor) -> Result<Tensor> {
        self.lora_up_of(base, t, u, false)
    }

    /// `y[.., n] = base[.., n] + sum_r t[.., r] u[r, n]`: as [`Graph::lora_up`], for a `u`
    /// `[rank, out]`.
    pub fn lora_up_transposed(
        &mut self,
        base: Option<Tensor>,
        t: Tensor,
        u: Tensor,
    ) -> Result<Tensor> {
        self.lora_up_of(base, t, u, true)
    }

    fn lora_up_of(
        &mut self,
        base: Option<Tensor>,
        t: Tensor,
        u: Tensor,
        transposed: bool,
    ) -> Result<Tensor> {
        let inputs: Vec<Tensor> = base.into_iter().chain([t, u]).collect();
        self.apply(LoraUp { transposed, based: base.is_some() }, &inputs)
    }
}

impl LoraUp {
    /// Outputs and rank of the matrix `u`.
    fn extents(&self, u: &Shape) -> Option<[usize; 2]> {
        match (self.transposed, &u[..]) {
            (false, &[out, rank]) | (true, &[rank, out]) => Some([out, rank]),
            _ => None,
        }
    }
}

impl Operation for LoraUp {
    fn name(&self) -> &'static str {
        "lora_up"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (base, t, u) = match self.based {
            true => arity(inputs).map(|[base, t, u]| (Some(base), t, u))?,
            false => arity(inputs).map(|[t, u]| (None, t, u))?,
        };
        let expected = if self.transposed { "[rank, out]" } else { "[out, rank]" };
        let [out, rank] =
            self.extents(u).ok_or_else(|| format!("expected a matrix {expected}, found {u}"))?;
        if rank != t.channels() {
            return Err(format!(
                "expected a matrix {expected} of rank {}, found {u}",
                t.channels()
            ));
        }
        let shape = t.with_channels(out);
        match base {
            Some(base) if *base != shape => {
                Err(format!("expected {shape} to add to, found {base}"))
            }
            _ => Ok(shape),
        }
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let [t, u] = [inputs.len() - 2, inputs.len() - 1].map(|i| inputs[i]);
        let (n, rank) = (shape.channels(), t.shape.channels());
        if self.based {
            output.copy_from_slice(inputs[0].values());
        } else {
            output.fill(0.0);
        }
        let (of_output, of_rank) = if self.transposed { (1, n) } else { (rank, 1) };
        for (y, t) in output.chunks_exact_mut(n).zip(t.values().chunks_exact(rank)) {
            for (o, y) in y.iter_mut().enumerate() {
                *y += t
                    .iter()
                    .enumerate()
                    .map(|(r, t)| t * u.values()[o * of_output + r * of_rank])
                    .sum::<f32>();
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        2 * (output.elements() * inputs[inputs.len() - 2].channels()) as u64
    }

    fn as_epilogue(&self, inputs: &[Tensor], position: usize, _graph: &Graph) -> Option<Epilogue> {
        match inputs {
            &[_, hidden, up] if position == 0 => {
                Some(Epilogue::Lora { hidden, up, transposed: self.transposed })
            }
            _ => None,
        }
    }

    fn plus(&self, graph: &mut Graph, inputs: &[Tensor], base: Tensor) -> Option<Result<Tensor>> {
        match *inputs {
            [t, u] => Some(graph.lora_up_of(Some(base), t, u, self.transposed)),
            _ => None,
        }
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let dy = context.upstream;
        let first = usize::from(self.based);
        let (t, u) = (context.inputs[first], context.inputs[first + 1]);
        let dt = match (context.wants(first), self.transposed) {
            (false, _) => None,
            (true, false) => Some(graph.lora_down_transposed(dy, u)?),
            (true, true) => Some(graph.lora_down(dy, u)?),
        };
        let du = match (context.wants(first + 1), self.transposed) {
            (false, _) => None,
            (true, false) => Some(graph.linear_weight_gradient(t, dy)?),
            (true, true) => Some(graph.linear_weight_gradient(dy, t)?),
        };
        let base = self.based.then_some(context.wants(0).then_some(dy));
        Ok(base.into_iter().chain([dt, du]).collect())
    }
}
