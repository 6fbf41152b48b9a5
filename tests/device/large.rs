//! Weights larger than one binding.

use std::ops::Range;
use std::sync::Arc;

use mixofshow::backend::{Precision, Program, Weights};
use mixofshow::graph::{Array, Graph, ParameterError, ParameterInfo, ParameterSource, StoredAs};

use super::engine::gpu;

const WIDTH: usize = 516;

/// A table whose element is its place, in numbers that f16 holds.
struct Places {
    rows: usize,
}

fn place(index: usize) -> f32 {
    (index / WIDTH % 1999 + index % WIDTH % 7) as f32
}

impl ParameterSource for Places {
    fn info(&self, _name: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: vec![self.rows, WIDTH], stored: StoredAs::F32 })
    }

    fn read(
        &self,
        _name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        into.iter_mut().zip(range).for_each(|(value, index)| *value = place(index));
        Ok(())
    }
}

/// CLIP's table of tokens in f32 is larger than the binding that every device allows.
#[test]
fn tables_larger_than_a_binding_are_read_in_pieces() {
    for (precision, bytes) in [(Precision::F32, 4), (Precision::F16, 2)] {
        let gpu = gpu();
        let piece = gpu.max_binding() as usize / (WIDTH * bytes) / 128 * 128;
        let rows = piece + 1000;
        if (rows * WIDTH * bytes) as u64 > gpu.limits().max_buffer_size {
            continue;
        }
        let ids = [0, 1, piece - 1, piece, piece + 1, rows - 1, rows, u32::MAX as usize];
        let mut g = Graph::new();
        let table = g.parameter("table", [rows, WIDTH]);
        let input = g.input_ids("ids", [ids.len()]);
        let y = g.embedding(table, input).unwrap();
        let program = Program::new(
            &Weights::new(&gpu.clone().into(), Arc::new(Places { rows }), precision),
            &g,
            &[y],
        )
        .unwrap();
        assert_eq!(program.commands(), 2);
        program.write("ids", &Array::u32([ids.len()], ids.map(|id| id as u32).to_vec())).unwrap();
        program.run();
        let found = program.output(0).unwrap();
        for (id, row) in ids.iter().zip(found.values().chunks_exact(WIDTH)) {
            let start = (*id).min(rows - 1) * WIDTH;
            assert!(
                row.iter().enumerate().all(|(i, &v)| v == place(start + i)),
                "row {id} of {rows} in {precision:?}"
            );
        }
    }
}
