//! Every kernel variant that a plan can ask for: valid, within WebGPU's floor, and translated to
//! every language.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mixofshow::backend::wgpu::{Access, kernel_names, ordered, reflect, render, written};
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use super::{all_dispatches, dry, of_matrices, of_more_than_the_floor, variant};

/// The text of every variant, by kernel and parameters.
fn variants() -> BTreeMap<String, String> {
    let mut variants = BTreeMap::new();
    for (kernel, params) in all_dispatches() {
        let rendered = || render(kernel, params).unwrap_or_else(|e| panic!("{kernel}: {e}"));
        variants.entry(variant(kernel, params)).or_insert_with(rendered);
    }
    variants
}

fn validate(name: &str, source: &str) -> (naga::Module, ModuleInfo) {
    let (module, _) = reflect(name, source).unwrap_or_else(|e| panic!("{e}"));
    // `unpack2x16float` is part of WebGPU's floor; naga counts it among the capabilities for old
    // OpenGL's sake.
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    if of_more_than_the_floor(name) {
        capabilities |= Capabilities::SHADER_FLOAT16
            | Capabilities::SUBGROUP
            | Capabilities::COOPERATIVE_MATRIX;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities).validate(&module);
    (module, info.unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(source))))
}

#[test]
fn every_variant_is_valid_and_keeps_to_the_floor_of_webgpu() {
    let limits = wgpu::Limits::default();
    for (name, source) in variants() {
        let enables = source.lines().any(|line| line.trim_start().starts_with("enable "));
        assert!(!enables || of_more_than_the_floor(&name), "{name} enables an extension");
        let (module, _) = validate(&name, &source);
        let (_, interface) = reflect(&name, &source).unwrap();
        let storage = interface.bindings.iter().filter(|b| b.access != Access::Uniform).count();
        assert!(
            storage <= limits.max_storage_buffers_per_shader_stage as usize,
            "{name} binds {storage} buffers"
        );
        let [x, y, z] = interface.workgroup_size;
        assert!(
            x * y * z <= limits.max_compute_invocations_per_workgroup,
            "{name}: a workgroup of {x}x{y}x{z}"
        );
        let [most_x, most_y, most_z] = [
            limits.max_compute_workgroup_size_x,
            limits.max_compute_workgroup_size_y,
            limits.max_compute_workgroup_size_z,
        ];
        assert!(x <= most_x && y <= most_y && z <= most_z, "{name}: a workgroup of {x}x{y}x{z}");
        let shared = module
            .global_variables
            .iter()
            .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup);
        let bytes: u32 = shared
            .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()).next_multiple_of(16))
            .sum();
        let most = if of_matrices(&name) { 48 << 10 } else { 16 << 10 };
        assert!(bytes <= most, "{name}: {bytes} bytes of workgroup memory");
    }
}

/// A device with nothing but WebGPU's limits makes a pipeline of every variant.
#[test]
fn every_variant_becomes_a_pipeline() {
    for (kernel, params) in all_dispatches()
        .filter(|(kernel, params)| !of_more_than_the_floor(&variant(kernel, params)))
    {
        dry::floor().kernel(kernel, params).unwrap_or_else(|e| panic!("{e}"));
    }
    let count = variants().keys().filter(|name| !of_more_than_the_floor(name)).count();
    println!("{count} variants");
    assert_eq!(dry::floor().kernels(), count);
    // Of all models, passes and the schedules of the floor together; a picture takes some thirty.
    assert!(count <= 400, "{count} variants: kernels are no longer few and shared");
}

#[test]
fn every_variant_translates_to_every_language() {
    let checked = BoundsCheckPolicies {
        index: BoundsCheckPolicy::Restrict,
        buffer: BoundsCheckPolicy::Restrict,
        ..Default::default()
    };
    let validator = spirv_validator().is_some();
    for (name, source) in variants() {
        let (module, info) = validate(&name, &source);
        for policies in [BoundsCheckPolicies::default(), checked] {
            let lang_version = if of_matrices(&name) { (1, 3) } else { (1, 0) };
            let options = spv::Options {
                bounds_check_policies: policies,
                lang_version,
                ..Default::default()
            };
            let words = spv::write_vec(&module, &info, &options, None)
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            match validator && !of_matrices(&name) {
                true => check_spirv(&name, "vulkan1.1", &words),
                // Validators of some years ago don't know cooperative matrices.
                false => assert_eq!(words.first(), Some(&0x0723_0203), "{name}: not SPIR-V"),
            }
            let lang_version =
                if of_matrices(&name) { (2, 3) } else { msl::Options::default().lang_version };
            let options = msl::Options {
                fake_missing_bindings: true,
                bounds_check_policies: policies,
                lang_version,
                ..Default::default()
            };
            let (text, _) = msl::write_string(&module, &info, &options, &Default::default())
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(text.contains("kernel void"), "{name}: no kernel in MSL");
        }
        // HLSL knows no cooperative matrices as naga writes it: no DirectX adapter offers them.
        if of_matrices(&name) {
            continue;
        }
        let options = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &Default::default())
            .write(&module, &info, None)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(text.contains("[numthreads("), "{name}: no kernel in HLSL");
    }
}

/// The year of the `spirv-val` that is there (Debian and Ubuntu: package spirv-tools).
fn spirv_validator() -> Option<u32> {
    let found = Command::new("spirv-val").arg("--version").output().ok();
    let said = found
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if said.is_none() {
        println!("spirv-val is not installed: SPIR-V is written, not validated");
    }
    said?.split_once(" v")?.1.split('.').next()?.parse().ok()
}

fn check_spirv(name: &str, environment: &str, words: &[u32]) {
    let mut child = Command::new("spirv-val")
        .args(["--target-env", environment, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spirv-val");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(bytemuck::cast_slice(words))
        .expect("spirv-val reads");
    let output = child.wait_with_output().expect("spirv-val ends");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    // naga gives arrays in workgroup memory strides, which validators since 2025 mind; no driver is
    // known to.
    let known = environment == "vulkan1.1" && said.contains("VUID-StandaloneSpirv-None-10684");
    assert!(output.status.success() || known, "{name}: {said}");
}

/// SPIR-V of every kernel with cooperative matrices says what Vulkan's memory model asks for; that
/// of naga alone doesn't, which is why it is completed.
#[test]
fn matrices_keep_to_the_memory_model_of_vulkan() {
    // Validators of 2023 and before don't know cooperative matrices.
    let validator = spirv_validator().is_some_and(|year| year > 2023);
    let mut count = 0;
    for (name, source) in variants().into_iter().filter(|(name, _)| of_matrices(name)) {
        let (module, info) = validate(&name, &source);
        let (_, interface) = reflect(&name, &source).unwrap();
        let slots: Vec<u32> = interface.bindings.iter().map(|binding| binding.slot).collect();
        for checked in [false, true] {
            let words = written(&module, &slots, checked).unwrap();
            let [accesses, barriers, lacking] = private_accesses(&words);
            assert!(accesses > 0 && barriers > 0, "{name}: nothing to look at");
            assert_eq!(lacking, 0, "{name}: of {accesses} accesses and {barriers} barriers");
            assert_eq!(ordered(&words).unwrap(), words, "{name}: completed again");
            if validator {
                check_spirv(&name, "vulkan1.3", &words);
            }
        }
        let options = spv::Options { lang_version: (1, 3), ..Default::default() };
        let words = spv::write_vec(&module, &info, &options, None).unwrap();
        let [accesses, barriers, lacking] = private_accesses(&words);
        assert_eq!(lacking, accesses + barriers, "{name}: naga orders accesses by itself now");
        count += 1;
    }
    assert!(count > 10, "{count} variants");
}

/// Accesses to workgroup memory in a module; its barriers; and how many of both leave what is
/// stored to the invocation that stored it.
fn private_accesses(words: &[u32]) -> [usize; 3] {
    const WORKGROUP: u32 = 4;
    const AVAILABLE: u32 = 0x8;
    const VISIBLE: u32 = 0x10;
    const NON_PRIVATE: u32 = 0x20;
    // Acquire and release, of workgroup memory, making available and visible.
    const ORDERED: u32 = 0x8 | 0x100 | 0x2000 | 0x4000;
    let mut instructions = Vec::new();
    let mut rest = &words[5..];
    while let [first, ..] = rest {
        let (instruction, later) = rest.split_at((first >> 16) as usize);
        instructions.push((first & 0xffff, &instruction[1..]));
        rest = later;
    }
    let (mut shared, mut constants) = (BTreeSet::new(), BTreeMap::new());
    let mut counts = [0; 3];
    for (op, operands) in instructions {
        // Pointers, and where the operands of memory begin.
        let (pointer, at, access) = match (op, operands) {
            // OpTypePointer, and OpVariable, OpAccessChain of such a type.
            (32, [id, WORKGROUP, _]) => {
                shared.insert(*id);
                continue;
            }
            (59 | 65, [ty, id, ..]) => {
                if shared.contains(ty) {
                    shared.insert(*id);
                }
                continue;
            }
            (43, [_, id, value]) => {
                constants.insert(*id, *value);
                continue;
            }
            // OpControlBarrier
            (224, [_, scope, semantics]) => {
                counts[1] += 1;
                let right = constants[scope] == 2 && constants[semantics] == ORDERED;
                counts[2] += usize::from(!right);
                continue;
            }
            // OpLoad, OpStore, OpCooperativeMatrixLoadKHR, OpCooperativeMatrixStoreKHR
            (61, [_, _, pointer, ..]) => (pointer, 3, VISIBLE),
            (62, [pointer, ..]) => (pointer, 2, AVAILABLE),
            (4457, [_, _, pointer, ..]) => (pointer, 5, VISIBLE),
            (4458, [pointer, ..]) => (pointer, 4, AVAILABLE),
            _ => continue,
        };
        if shared.contains(pointer) {
            counts[0] += 1;
            let right = match operands[at..] {
                [mask, scope] => mask == access | NON_PRIVATE && constants[&scope] == 2,
                _ => false,
            };
            counts[2] += usize::from(!right);
        }
    }
    counts
}

/// No kernel is left over, and each says in its first line what it does.
#[test]
fn every_kernel_file_is_used_and_explained() {
    let used: BTreeSet<&str> = all_dispatches().map(|(kernel, _)| kernel).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let mut imported = BTreeSet::new();
    for name in kernel_names() {
        assert!(used.contains(name.as_str()), "nobody asks for kernels/{name}.wgsl");
        let text = std::fs::read_to_string(folder.join(format!("{name}.wgsl"))).unwrap();
        assert!(text.starts_with("// "), "kernels/{name}.wgsl has no header comment");
        let imports = text
            .lines()
            .filter_map(|line| line.strip_prefix("//% import \"shared/")?.split('"').next());
        imported.extend(imports.map(String::from));
    }
    for file in std::fs::read_dir(folder.join("shared")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(imported.contains(name), "nobody imports kernels/shared/{name}.wgsl");
        assert!(
            std::fs::read_to_string(&path).unwrap().starts_with("//# "),
            "kernels/shared/{name}.wgsl has no header comment"
        );
    }
}
