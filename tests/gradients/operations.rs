//! Every operation's gradient, mid-graph.

use mixofshow::graph::ops::{Function, RegionInputs, RegionTables};

use super::differences::{check, check_with};

#[test]
fn functions() {
    for function in
        [Function::Silu, Function::Gelu, Function::GeluTanh, Function::QuickGelu, Function::Exp]
    {
        check(function.name(), &[("x", &[3, 7])], &["x"], |g, t| {
            g.activation(t[0], function).unwrap()
        });
    }
    check("relu", &[("away", &[3, 7])], &["away"], |g, t| {
        g.activation(t[0], Function::Relu).unwrap()
    });
    check("scale", &[("x", &[5])], &["x"], |g, t| g.scale(t[0], -1.75).unwrap());
}

#[test]
fn sums_and_products_with_every_broadcast() {
    let a: &[usize] = &[2, 3, 5];
    let operands: [&[usize]; 6] = [&[2, 3, 5], &[1], &[5], &[3, 5], &[2, 1, 5], &[1, 1, 1]];
    for b in operands {
        check(&format!("add {b:?}"), &[("a", a), ("b", b)], &["a", "b"], |g, t| {
            g.add(t[0], t[1]).unwrap()
        });
        check(&format!("multiply {b:?}"), &[("a", a), ("b", b)], &["a", "b"], |g, t| {
            g.multiply(t[0], t[1]).unwrap()
        });
        check(&format!("only the operand {b:?}"), &[("a", a), ("b", b)], &["b"], |g, t| {
            g.multiply(t[0], t[1]).unwrap()
        });
    }
    check("a square", &[("x", a)], &["x"], |g, t| g.multiply(t[0], t[0]).unwrap());
}

#[test]
fn reductions_and_broadcasts() {
    let shapes: [&[usize]; 4] = [&[1], &[5], &[3, 5], &[2, 1, 5]];
    for to in shapes {
        check(&format!("sum to {to:?}"), &[("x", &[2, 3, 5])], &["x"], |g, t| {
            let y = g.sum_to(t[0], to).unwrap();
            g.scale(y, 0.25).unwrap()
        });
        check(&format!("broadcast from {to:?}"), &[("x", to)], &["x"], |g, t| {
            g.broadcast_to(t[0], [2, 3, 5]).unwrap()
        });
    }
    check("mean", &[("x", &[2, 3, 5])], &["x"], |g, t| {
        let y = g.mean(t[0]).unwrap();
        g.scale(y, 8.0).unwrap()
    });
}

#[test]
fn linear_layers() {
    for (rows, into, out) in [(1, 1, 1), (3, 5, 2), (4, 3, 7)] {
        let named: [(&str, &[usize]); 2] = [("x", &[2, rows, into]), ("w", &[out, into])];
        check(&format!("linear {rows}x{into}x{out}"), &named, &["x", "w"], |g, t| {
            g.linear(t[0], t[1]).unwrap()
        });
    }
    check("only the weight", &[("x", &[3, 4]), ("w", &[2, 4])], &["w"], |g, t| {
        g.linear(t[0], t[1]).unwrap()
    });
}

#[test]
fn convolutions() {
    for (batch, height, width, into, out, kernel, stride) in [
        (2, 3, 5, 2, 3, 3, 1),
        (1, 6, 5, 3, 2, 3, 2),
        (1, 4, 4, 3, 2, 2, 2),
        (2, 2, 3, 3, 4, 1, 1),
        (1, 4, 5, 1, 2, 1, 3),
    ] {
        let named: [(&str, &[usize]); 2] =
            [("x", &[batch, height, width, into]), ("w", &[out, into, kernel, kernel])];
        let what = format!("conv {batch}x{height}x{width}x{into} -> {out}, {kernel}/{stride}");
        check(&what, &named, &["x"], |g, t| g.conv2d(t[0], t[1], stride).unwrap());
    }
    check("a tall window", &[("x", &[1, 4, 3, 2]), ("w", &[2, 2, 3, 1])], &["x"], |g, t| {
        g.conv2d(t[0], t[1], 1).unwrap()
    });
}

#[test]
fn feature_maps() {
    for edges in [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 2, 1], [3, 0, 0, 0], [0, 0, 0, 0]] {
        check(&format!("pad {edges:?}"), &[("x", &[2, 3, 2, 3])], &["x"], |g, t| {
            g.pad2d(t[0], edges).unwrap()
        });
    }
    for (height, width) in [(6, 4), (5, 3), (3, 7), (3, 2)] {
        check(&format!("upsample to {height}x{width}"), &[("x", &[2, 3, 2, 3])], &["x"], |g, t| {
            g.upsample_nearest(t[0], height, width).unwrap()
        });
    }
}

#[test]
fn norms() {
    for (shape, groups) in
        [(&[1usize, 2, 4][..], 2), (&[2, 3, 6], 3), (&[2, 2, 3, 4], 1), (&[1, 5, 3], 3)]
    {
        let channels = shape[shape.len() - 1];
        let named: [(&str, &[usize]); 3] =
            [("x", shape), ("weight", &[channels]), ("bias", &[channels])];
        check(&format!("group norm {shape:?}/{groups}"), &named, &["x", "bias"], |g, t| {
            let s = g.group_norm_statistics(t[0], groups, 1e-3).unwrap();
            g.group_norm(t[0], s, t[1], t[2]).unwrap()
        });
        check(&format!("layer norm {shape:?}"), &named, &["x", "bias"], |g, t| {
            g.layer_norm(t[0], t[1], t[2], 1e-3).unwrap()
        });
    }
}

/// Prompts that hold for some tokens, two at once, with a share, and nowhere.
#[test]
fn attention_to_prompts_in_regions() {
    for (batch, share, heads, d, lengths, weights) in [
        (1, 1, 1, 2, &[3, 2][..], &[1.0, 0.0, 0.25, 0.75, 0.0, 1.0][..]),
        (2, 1, 2, 3, &[2, 4, 3], &[1.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 1.0]),
        (4, 2, 1, 5, &[5, 1], &[0.0, 1.0, 1.0, 0.0]),
        (2, 2, 2, 2, &[4], &[1.0, 1.0, 1.0]),
        (1, 1, 1, 3, &[2, 3], &[1.0, 0.0, 1.0, 0.0]),
    ] {
        let tables = RegionTables::new(weights, lengths);
        let tokens = weights.len() / lengths.len();
        let keys = lengths.iter().sum();
        let (q, k) = ([batch, tokens, heads * d], [batch / share, keys, heads * d]);
        let named: [(&str, &[usize]); 3] = [("q", &q), ("k", &k), ("v", &k)];
        let what = format!("regional attention {batch}/{share}, {lengths:?}, {heads} of {d}");
        let fixed = tables.named("regions").map(|(name, array)| (name, array.clone()));
        for wanted in [&["q", "k", "v"][..], &["v"]] {
            check_with(&what, &named, wanted, &fixed, |g, t| {
                let reach = tables.reach().to_vec();
                let regions = RegionInputs::declare(g, "regions", tokens, reach);
                g.regional_attention(t[0], t[1], t[2], regions, heads, 2.5).unwrap()
            });
        }
    }
}

#[test]
fn attention() {
    for (batch, share, tokens, keys, heads, d) in [
        (1, 1, 2, 6, 1, 2),
        (1, 1, 1, 4, 1, 5),
        (2, 1, 3, 4, 2, 3),
        (4, 2, 2, 5, 1, 4),
        (3, 3, 2, 2, 3, 2),
    ] {
        let (q, k) = ([batch, tokens, heads * d], [batch / share, keys, heads * d]);
        let named: [(&str, &[usize]); 3] = [("q", &q), ("k", &k), ("v", &k)];
        let what = format!("attention {batch}/{share}, {tokens}x{keys}, {heads} heads of {d}");
        check(&what, &named, &["q", "k", "v"], |g, t| {
            g.attention(t[0], t[1], t[2], heads, 2.5, false).unwrap()
        });
        check(&format!("{what}, keys alone"), &named, &["k"], |g, t| {
            g.attention(t[0], t[1], t[2], heads, 2.5, false).unwrap()
        });
    }
    check("causal attention of one tensor to itself", &[("x", &[2, 4, 6])], &["x"], |g, t| {
        g.attention(t[0], t[0], t[0], 2, 1.5, true).unwrap()
    });
}

#[test]
fn gates_and_guidance() {
    check("geglu", &[("x", &[2, 3, 10])], &["x"], |g, t| g.geglu(t[0]).unwrap());
    check("guidance", &[("x", &[4, 3, 5])], &["x"], |g, t| g.guidance(t[0], 1.5).unwrap());
}

#[test]
fn moving() {
    for axis in 0..3 {
        let mut other = [2, 3, 5];
        other[axis] = 1;
        let named: [(&str, &[usize]); 2] = [("a", &[2, 3, 5]), ("b", &other)];
        check(&format!("concat along {axis}"), &named, &["a", "b"], |g, t| {
            g.concat(&[t[0], t[1], t[0]], axis).unwrap()
        });
        check(&format!("concat along {axis}, one wanted"), &named, &["b"], |g, t| {
            g.concat(&[t[0], t[1]], axis).unwrap()
        });
        check(&format!("slice of {axis}"), &[("x", &[3, 4, 5])], &["x"], |g, t| {
            g.slice(t[0], axis, 1, 2).unwrap()
        });
    }
    check("reshape", &[("x", &[2, 3, 4])], &["x"], |g, t| {
        let y = g.reshape(t[0], [6, 4]).unwrap();
        let y = g.silu(y).unwrap();
        g.reshape(y, [4, 1, 6]).unwrap()
    });
}

/// Rows that are read several times, once or never, and indices beyond the table.
#[test]
fn rows_of_a_table() {
    let named: [(&str, &[usize]); 2] = [("table", &[5, 3]), ("ids", &[3, 4])];
    check("embedding", &named, &["table"], |g, t| g.embedding(t[0], t[1]).unwrap());
    for wanted in [&["table", "extra"][..], &["table"], &["extra"]] {
        let named: [(&str, &[usize]); 3] =
            [("table", &[3, 3]), ("extra", &[2, 3]), ("ids", &[3, 4])];
        check("embedding, continued", &named, wanted, |g, t| {
            g.embedding_continued(t[0], t[1], t[2]).unwrap()
        });
    }
}

#[test]
fn the_loss_of_tuning() {
    let shape: &[usize] = &[2, 3, 2, 4];
    let named = [("prediction", shape), ("target", shape), ("weights", shape)];
    check("weighted squared error", &named, &["prediction", "target"], |g, t| {
        g.weighted_squared_error(t[0], t[1], t[2]).unwrap()
    });
}

#[test]
fn division_by_the_greatest() {
    check("over the greatest", &[("x", &[2, 5])], &["x"], |g, t| {
        let y = g.activation(t[0], Function::Exp).unwrap();
        g.normalize_by_max(y).unwrap()
    });
}
