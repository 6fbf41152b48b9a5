//! The walk through a graph: what is added up, what is left out, what is refused.

use std::collections::HashMap;
use std::sync::Arc;

use mixofshow::backend::wgpu::{Gpu, Options, Schedule, Selection, Traits, Tuned};
use mixofshow::backend::{self, Precision, Program, Weights};
use mixofshow::graph::{
    Array, Error, GradientContext, Graph, Limits, Operation, Plan, Shape, Tensor,
};

use super::differences::{check, evaluate, inputs, weights};

#[test]
fn what_arrives_by_several_ways_is_added_up() {
    check("a tensor used three times", &[("x", &[2, 4]), ("w", &[4, 4])], &["x", "w"], |g, t| {
        let a = g.linear(t[0], t[1]).unwrap();
        let b = g.linear(a, t[1]).unwrap();
        let c = g.multiply(b, a).unwrap();
        g.add(c, t[0]).unwrap()
    });
}

#[test]
fn a_parameter_is_every_node_of_its_name() {
    let mut g = Graph::new();
    let x = g.input("x", [3, 4]);
    let first = g.parameter("w", [4, 4]);
    let y = g.linear(x, first).unwrap();
    // A 1x1 convolution's weight under its other shape.
    let again = g.parameter("w", [4, 4, 1, 1]);
    let again = g.reshape(again, [4, 4]).unwrap();
    let y = g.linear(y, again).unwrap();
    let upstream = g.input("upstream", [3, 4]);
    let both = g.gradients_of(y, upstream, &[first]).unwrap();

    let mut h = Graph::new();
    let x = h.input("x", [3, 4]);
    let w = h.parameter("w", [4, 4]);
    let y = h.linear(x, w).unwrap();
    let y = h.linear(y, w).unwrap();
    let upstream = h.input("upstream", [3, 4]);
    let one = h.gradients_of(y, upstream, &[w]).unwrap();

    let (inputs, weights) = (inputs(&h), weights(&h));
    let (found, expected) =
        (evaluate(&g, &both, &inputs, &weights), evaluate(&h, &one, &inputs, &weights));
    assert_eq!(found[0].shape[..], [4, 4]);
    for (a, b) in found[0].values().iter().zip(expected[0].values()) {
        assert!((a - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} instead of {b}");
    }
}

#[test]
fn a_loss_is_seeded_with_one() {
    let mut g = Graph::new();
    let x = g.input("x", [2, 3]);
    let loss = g.sum(x).unwrap();
    let gradients = g.gradients(loss, &[x, x, loss]).unwrap();
    let found = evaluate(&g, &gradients, &inputs(&g), &weights(&g));
    let ones = Array::f32([2, 3], vec![1.0; 6]);
    assert_eq!(found, [ones.clone(), ones, Array::f32([1], vec![1.0])]);
}

/// The masked loss of tuning, from its definition.
#[test]
fn the_masked_loss_is_the_mean_of_the_images_losses() {
    let (batch, pixels, channels) = (2, 6, 4);
    let mask = [[1.0, 0.0, 1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0f32]];
    let mut g = Graph::new();
    let [p, t, w] = ["p", "t", "w"].map(|name| g.input(name, [batch, pixels, channels]));
    let loss = g.weighted_squared_error(p, t, w).unwrap();
    let mut inputs = inputs(&g);
    let scaled = mask
        .iter()
        .flat_map(|m| m.iter().flat_map(|v| [v / (m.iter().sum::<f32>() * batch as f32); 4]))
        .collect();
    inputs.insert("w".into(), Array::f32([batch, pixels, channels], scaled));
    let mut expected = 0.0;
    for (image, mask) in mask.iter().enumerate() {
        let squares = (0..pixels * channels).map(|i| {
            let at = image * pixels * channels + i;
            (inputs["p"].values()[at] - inputs["t"].values()[at]).powi(2) * mask[i / channels]
        });
        expected += squares.sum::<f32>() / mask.iter().sum::<f32>() / batch as f32;
    }
    let found = evaluate(&g, &[loss], &inputs, &weights(&g))[0].values()[0];
    assert!((found - expected).abs() < 1e-5 * expected, "{found} instead of {expected}");
}

/// Blocks that share a weight, one of them with a branch of its own into the loss, and a value that
/// all read.
fn in_blocks(recompute: bool) -> (Graph, Vec<Tensor>) {
    let mut g = Graph::new();
    let (x, w, shared) = (g.input("x", [3, 4]), g.input("w", [4, 4]), g.input("shared", [3, 4]));
    let shared = g.silu(shared).unwrap();
    let (mut y, mut inner) = (x, Vec::new());
    for block in 0..12 {
        g.enter(format!("blocks.{block}"));
        g.enter_block();
        let h = g.multiply(y, shared).unwrap();
        let h = g.silu(h).unwrap();
        g.enter_block();
        let h = g.linear(h, w).unwrap();
        g.leave_block();
        let h = g.silu(h).unwrap();
        inner.push(h);
        y = g.add(y, h).unwrap();
        g.leave_block();
        g.leave();
    }
    let y = g.multiply(y, inner[1]).unwrap();
    if recompute {
        g.recompute_blocks();
    }
    let upstream = g.input("upstream", [3, 4]);
    let gradients = g.gradients_of(y, upstream, &[x, w, shared]).unwrap();
    (g, gradients)
}

#[test]
fn blocks_computed_again_give_the_same_gradients_from_fewer_values() {
    let ((kept, one), (again, other)) = (in_blocks(false), in_blocks(true));
    let (inputs, weights) = (inputs(&kept), weights(&kept));
    assert_eq!(
        evaluate(&kept, &one, &inputs, &weights),
        evaluate(&again, &other, &inputs, &weights)
    );

    let limits = Limits { max_binding: 1 << 20, max_buffer: 1 << 20, alignment: 16 };
    let traits = Traits {
        limits,
        workgroup_memory: 16 << 10,
        schedule: Schedule::Staged,
        halves: false,
        tuned: Tuned::STANDARD,
    };
    let [first, second] = [(&kept, &one), (&again, &other)]
        .map(|(graph, outputs)| Plan::new(graph, outputs, &traits));
    // Each block is computed twice but for its sum, which no rule reads.
    assert!(second.flops(&again) > first.flops(&kept));
    let [kept, again] = [&first, &second].map(|plan| plan.live_bytes() / (3 * 4 * 4));
    println!("{kept} values live at once, {again} where blocks are computed again");
    assert!(again * 2 < kept, "{again} values live at once, {kept} where all are kept");
}

/// Layers of a frozen network, of which one has a trainable update.
fn deep(trainable: usize) -> (Graph, Tensor, Tensor) {
    let mut g = Graph::new();
    let mut x = g.input("x", [3, 4]);
    let update = g.parameter("update", [4, 4]);
    for layer in 0..10 {
        g.enter(format!("layers.{layer}"));
        let w = g.parameter(format!("w{layer}"), [4, 4]);
        let y = g.linear(x, w).unwrap();
        let y = match layer == trainable {
            true => {
                let more = g.linear(x, update).unwrap();
                g.add(y, more).unwrap()
            }
            false => y,
        };
        x = g.silu(y).unwrap();
        g.leave();
    }
    (g, x, update)
}

#[test]
fn only_what_a_wanted_tensor_needs_is_appended() {
    for trainable in [0, 4, 9] {
        let (mut g, y, update) = deep(trainable);
        let before = g.nodes().len();
        let upstream = g.input("upstream", [3, 4]);
        g.gradients_of(y, upstream, &[update]).unwrap();
        // Two for each later layer (function, product), two for this one (function, weight), and
        // the upstream gradient; no gradient of any frozen weight, none of the layers before.
        let added: Vec<&str> = g.nodes()[before + 1..].iter().map(|node| &*node.layer).collect();
        assert_eq!(added.len(), 2 * (9 - trainable) + 2, "trainable layer {trainable}: {added:?}");
        assert_eq!(added.last(), Some(&&*format!("layers.{trainable}")));
        assert_eq!(g.path(), "");
    }
}

#[test]
fn what_has_no_gradient_says_why() {
    let mut g = Graph::new();
    let (x, other) = (g.input("x", [1, 4, 4, 2]), g.input("other", [3]));
    let ids = g.input_ids("ids", [2]);
    g.enter("first");
    let (w, scale, shift) =
        (g.parameter("w", [2, 2, 3, 3]), g.parameter("scale", [2]), g.parameter("shift", [2]));
    let y = g.conv2d(x, w, 1).unwrap();
    g.leave();
    g.enter("second");
    let s = g.group_norm_statistics(y, 1, 1e-5).unwrap();
    let z = g.group_norm(y, s, scale, shift).unwrap();
    let given = g.group_norm(x, s, scale, shift).unwrap();
    g.leave();
    let mut upstreams = HashMap::new();
    for t in [y, s, z, given] {
        let shape = g.shape(t).clone();
        upstreams.insert(t, g.input(format!("upstream {t:?}"), shape));
    }
    let mut refused = |output: Tensor, wanted: Tensor| {
        g.gradients_of(output, upstreams[&output], &[wanted]).unwrap_err()
    };
    let text = refused(z, w).to_string();
    assert!(
        text.starts_with("conv2d in layer `first` has no gradient with respect to its weight"),
        "{text}"
    );
    for (output, wanted) in [(z, scale), (s, x), (given, x)] {
        let error = refused(output, wanted);
        assert!(
            matches!(&error, Error::NotDifferentiable { layer, .. } if layer == "second"),
            "{error}"
        );
    }
    for wanted in [other, ids, z] {
        let error = refused(y, wanted);
        assert!(matches!(error, Error::Independent { .. }), "{error}");
    }
    assert!(refused(y, other).to_string().starts_with("the input `other` has no gradient"));

    let error = g.gradients(y, &[x]).unwrap_err();
    assert!(matches!(error, Error::Shape { operation: "gradients", .. }), "{error}");
    let error = g.gradients_of(y, other, &[x]).unwrap_err();
    assert!(matches!(error, Error::Shape { operation: "gradients", .. }), "{error}");

    let upstream = upstreams[&y];
    let dx = g.gradients_of(y, upstream, &[x]).unwrap();
    let again = g.sum(dx[0]).unwrap();
    let error = g.gradients(again, &[upstream]).unwrap_err();
    assert!(
        matches!(error, Error::NotDifferentiable { operation: "conv2d_transposed", .. }),
        "{error}"
    );
}

#[test]
fn samplers_are_not_differentiated() {
    let mut g = Graph::new();
    let (state, matrix) = (g.input("state", [2, 3]), g.input("matrix", [2, 4]));
    let (a, b) = (g.input("a", [3]), g.input("b", [3]));
    let y = g.mix(state, a, b, matrix).unwrap();
    let error = g.gradients_of(y, state, &[a]).unwrap_err();
    assert!(matches!(error, Error::NotDifferentiable { operation: "mix", .. }), "{error}");
}

/// An operation that only the host can do.
#[derive(Debug)]
struct HostOnly;

impl Operation for HostOnly {
    fn name(&self) -> &'static str {
        "host_only"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        Ok(inputs[0].clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        output.copy_from_slice(inputs[0].values());
    }

    fn gradient(
        &self,
        _graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>, Error> {
        Ok(vec![Some(context.upstream)])
    }
}

fn lowered(graph: &Graph, output: Tensor) -> Result<Program, backend::Error> {
    let selection = Selection::Noop(Box::default());
    let gpu = Gpu::open(&Options { selection, checked: true, floor: true, ..Options::default() })
        .expect("a device without a device");
    Program::new(
        &Weights::new(&gpu.clone().into(), Arc::new(weights(graph)), Precision::AsStored),
        graph,
        &[output],
    )
}

/// An operation without a kernel is an error of the plan, not a wrong number.
#[test]
fn what_no_kernel_computes_is_an_error() {
    let mut g = Graph::new();
    let x = g.input("x", [2, 3]);
    g.enter("layer");
    let y = g.apply(HostOnly, &[x]).unwrap();
    let error = lowered(&g, y).err().expect("an error");
    assert!(
        matches!(
            &error,
            backend::Error::NotImplemented { operation: "host_only", layer, .. } if layer == "layer"
        ),
        "{error}"
    );
}

/// Kernels that want a file's weight rearranged would misread a tensor that is none.
#[test]
fn a_computed_weight_is_refused() {
    let mut g = Graph::new();
    let (x, image) = (g.input("x", [90, 80]), g.input("image", [1, 4, 4, 80]));
    g.enter("layer");
    let w = g.input("w", [80, 80, 1, 1]);
    let doubled = g.scale(w, 2.0).unwrap();
    for weight in [w, doubled] {
        let flat = g.reshape(weight, [80, 80]).unwrap();
        let y = [g.linear(x, flat), g.linear_transposed(x, flat), g.conv2d(image, weight, 1)]
            .map(Result::unwrap);
        for y in y {
            let error = lowered(&g, y).err().expect("an error");
            assert!(
                matches!(&error, backend::Error::NotAParameter { layer, .. } if layer == "layer"),
                "{error}"
            );
        }
    }
}
