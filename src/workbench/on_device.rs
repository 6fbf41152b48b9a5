//! A kernel at one shape on a device: twice for the same bytes, with workgroups in another order,
//! between guards.

use std::sync::Arc;

use naga::Module;

use super::device::{Content, Pipeline};
use super::fault::FaultKind;
use super::hints::in_a_line;
use super::interface::{Interface, overrides};
use super::rewritten::shuffled;
use super::spec::Spec;
use super::trial::{Trial, interpreter};
use crate::backend::wgpu::Gpu;

/// How it ended.
pub(super) enum Ran {
    /// The device cannot have that many workgroups, or there are none.
    Not,
    /// The device does not take the kernel.
    Refused,
    /// With these bytes of each output.
    Left(Vec<Vec<u8>>),
}

/// What came of a kernel at a shape.
pub(super) struct OnDevice {
    pub faults: Vec<(FaultKind, String)>,
    /// What was left out.
    pub notes: Vec<String>,
    pub end: Ran,
}

/// What one run left.
struct Run {
    outputs: Vec<Vec<u8>>,
    faults: Vec<(FaultKind, String)>,
}

/// Runs a kernel twice as it is and once with shuffled workgroups.
pub(super) fn on_device(
    gpu: &Arc<Gpu>,
    name: &str,
    module: &Module,
    interface: &Interface,
    spec: &Spec,
    trial: &Trial,
) -> OnDevice {
    let (mut faults, mut notes) = (Vec::new(), Vec::new());
    let most = gpu.limits().max_compute_workgroups_per_dimension;
    if trial.grid.contains(&0) {
        return OnDevice { faults, notes, end: Ran::Not };
    }
    if trial.grid.iter().any(|&count| count > most) {
        notes.push(format!("more workgroups than the device's {most}"));
        return OnDevice { faults, notes, end: Ran::Not };
    }
    let run = |module: &Module, times| runs(gpu, name, module, interface, spec, trial, times);
    let mut first = match run(module, 2) {
        Ok(runs) => runs,
        Err(message) => {
            let what = format!("{}: {}", gpu.name(), in_a_line(&message));
            faults.push((FaultKind::Refused, what));
            return OnDevice { faults, notes, end: Ran::Refused };
        }
    };
    for run in &mut first {
        faults.append(&mut run.faults);
    }
    if let [a, b] = &first[..]
        && a.outputs != b.outputs
    {
        let what = "two runs on the device leave other bytes".to_string();
        faults.push((FaultKind::NotReproducible, what));
    }
    let left = first.swap_remove(0).outputs;
    let groups: u64 = trial.grid.iter().map(|&count| u64::from(count)).product();
    match shuffled(module, &overrides(&trial.numbers), trial.grid) {
        _ if groups < 2 => {}
        None => notes.push(
            "not run in another order: workgroups are told their number in a struct".to_string(),
        ),
        Some(other) => match run(&other, 1) {
            Ok(runs) if runs.first().is_some_and(|run| run.outputs != left) => {
                let what =
                    "workgroups in another order leave other bytes on the device".to_string();
                faults.push((FaultKind::DependsOnOrder, what));
            }
            Ok(_) => {}
            Err(message) => {
                notes.push(format!("not run in another order: {}", in_a_line(&message)));
            }
        },
    }
    OnDevice { faults, notes, end: Ran::Left(left) }
}

/// So many runs, each from the same contents.
fn runs(
    gpu: &Arc<Gpu>,
    name: &str,
    module: &Module,
    interface: &Interface,
    spec: &Spec,
    trial: &Trial,
    times: usize,
) -> Result<Vec<Run>, String> {
    let constants = overrides(&trial.numbers);
    let pipeline = Pipeline::new(gpu, name, module, interface, &constants, true)?;
    let contents = contents(interface, spec, trial)?;
    let bound = pipeline.bind(interface, &contents)?;
    let mut runs = Vec::new();
    for time in 0..times {
        if time > 0 {
            pipeline.refill(&bound, &contents);
        }
        pipeline.submit(&bound, trial.grid, 1, None);
        let mut run = Run { outputs: Vec::new(), faults: Vec::new() };
        for tensor in &spec.tensors {
            let Some(content) = contents.iter().find(|own| own.name == tensor.name) else {
                continue;
            };
            let (bytes, intact) = pipeline.read(&bound, &tensor.name)?;
            if !intact {
                let what = format!("the bytes around `{}` are overwritten", tensor.name);
                run.faults.push((FaultKind::OutOfBoundsWrite, what));
            }
            match tensor.output {
                true => run.outputs.push(bytes),
                false if bytes != content.bytes => {
                    let what = format!("`{}` holds something else afterwards", tensor.name);
                    run.faults.push((FaultKind::WritesInput, what));
                }
                false => {}
            }
        }
        runs.push(run);
    }
    Ok(runs)
}

/// The tensors and uniforms that a kernel binds, outputs filled with what is no number.
pub(super) fn contents(
    interface: &Interface,
    spec: &Spec,
    trial: &Trial,
) -> Result<Vec<Content>, String> {
    let mut contents = Vec::new();
    for (index, tensor) in spec.inputs().enumerate() {
        if interface.find(&tensor.name).is_some() {
            let bytes = trial.bytes(interface, spec, index);
            contents.push(Content { name: tensor.name.clone(), bytes, uniform: false });
        }
    }
    for tensor in spec.outputs() {
        if let Some(bound) = interface.find(&tensor.name) {
            let size = bound.bytes(spec.elements(tensor, &trial.sizes), tensor.element);
            let bytes = vec![0xff; size];
            contents.push(Content { name: tensor.name.clone(), bytes, uniform: false });
        }
    }
    for uniforms in &interface.uniforms {
        let bytes = uniforms.packed(&trial.numbers)?;
        contents.push(Content { name: uniforms.name.clone(), bytes, uniform: true });
    }
    Ok(contents)
}

/// Why a device does not have the workgroup memory that a kernel takes; none where it has.
pub(super) fn too_much_memory(gpu: &Gpu, wgsl: &str, trial: &Trial) -> Option<String> {
    let bytes = interpreter(wgsl, &trial.numbers).ok()?.workgroup_bytes();
    let most = gpu.limits().max_compute_workgroup_storage_size;
    (bytes > u64::from(most))
        .then(|| format!("{bytes} bytes of workgroup memory, {} has {most}", gpu.name()))
}
