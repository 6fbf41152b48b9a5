//! Every command of every plan keeps to its kernel's interface and to WebGPU's rules.

use std::collections::HashMap;
use std::sync::Arc;

use mixofshow::backend::wgpu::{Access, Command, Scalar, Slice, Uniform, reflect, render};

use super::{RUNS, Run};

/// What a kernel declares.
struct Declared {
    bindings: Vec<(String, Access, Scalar)>,
    uniforms: Vec<(String, Scalar)>,
}

fn declared(kernel: &str, params: &mixofshow::backend::wgpu::Params) -> Declared {
    let (_, interface) = reflect(kernel, &render(kernel, params).unwrap()).unwrap();
    let storage = interface.bindings.into_iter().filter(|b| b.access != Access::Uniform);
    Declared {
        bindings: storage.map(|b| (b.name, b.access, b.scalar)).collect(),
        uniforms: interface.uniforms.into_iter().map(|m| (m.name, m.scalar)).collect(),
    }
}

#[test]
fn every_dispatch_gives_its_kernel_what_it_declares() {
    let mut kernels: HashMap<String, Declared> = HashMap::new();
    for run in RUNS.iter() {
        for command in &run.lowered.commands {
            let Command::Dispatch { kernel, params, bindings, uniforms, grid, label, .. } = command
            else {
                continue;
            };
            let name = format!("{}: {label} by {kernel}", run.name());
            let declared = kernels
                .entry(format!("{kernel} {params:?}"))
                .or_insert_with(|| declared(kernel, params));
            let mut expected: Vec<_> =
                declared.bindings.iter().map(|(name, _, scalar)| (name, *scalar)).collect();
            let mut given: Vec<_> =
                bindings.iter().map(|(name, _, scalar)| (name, *scalar)).collect();
            expected.sort_by_key(|(name, _)| *name);
            given.sort_by_key(|(name, _)| *name);
            assert_eq!(given, expected, "{name}");
            let scalar =
                |u: &Uniform| if matches!(u, Uniform::U32(_)) { Scalar::U32 } else { Scalar::F32 };
            let mut given: Vec<_> =
                uniforms.iter().map(|(name, value)| (name.to_string(), scalar(value))).collect();
            given.sort_by(|a, b| a.0.cmp(&b.0));
            let mut expected = declared.uniforms.clone();
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(given, expected, "{name}");
            assert!(grid.iter().all(|n| (1..=65535).contains(n)), "{name}: {grid:?} workgroups");
            check_buffers(&name, run, declared, bindings);
        }
    }
}

/// Bindings lie within their buffers, at WebGPU's alignment, and nothing is written that the same
/// dispatch reads.
fn check_buffers(name: &str, run: &Run, declared: &Declared, bindings: &[(String, Slice, Scalar)]) {
    let writes = |binding: &str| {
        declared.bindings.iter().any(|(n, access, _)| n == binding && *access == Access::ReadWrite)
    };
    for (binding, slice, _) in bindings {
        assert_eq!(slice.offset % 256, 0, "{name}: `{binding}`");
        assert!(
            slice.size > 0 && slice.size.is_multiple_of(4),
            "{name}: `{binding}` of {} bytes",
            slice.size
        );
        assert!(
            slice.offset + slice.size <= run.lowered.bytes[&(Arc::as_ptr(&slice.buffer) as usize)],
            "{name}: `{binding}`"
        );
        let shared = |other: &(String, Slice, Scalar)| {
            other.0 != *binding && Arc::ptr_eq(&other.1.buffer, &slice.buffer)
        };
        assert!(
            !writes(binding) || !bindings.iter().any(shared),
            "{name} reads the buffer that it writes as `{binding}`"
        );
    }
}

/// Copies are between different buffers, as WebGPU wants it.
#[test]
fn every_copy_is_between_two_buffers() {
    let mut copies = 0;
    for run in RUNS.iter() {
        for command in &run.lowered.commands {
            let Command::Copy { from, to } = command else { continue };
            assert!(
                !Arc::ptr_eq(&from.buffer, &to.buffer) && from.size == to.size,
                "{}",
                run.name()
            );
            copies += 1;
        }
    }
    assert!(copies > 0);
}
