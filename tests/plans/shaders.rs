//! Every kernel variant that a plan can ask for: valid, within WebGPU's floor, and translated to
//! every language.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mixofshow::backend::wgpu::{Access, kernel_names, reflect, render};
use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use super::{all_dispatches, dry, of_matrices, variant};

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
    if of_matrices(name) {
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
        assert!(!enables || of_matrices(&name), "{name} enables an extension");
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
    for (kernel, params) in
        all_dispatches().filter(|(kernel, params)| !of_matrices(&variant(kernel, params)))
    {
        dry::floor().kernel(kernel, params).unwrap_or_else(|e| panic!("{e}"));
    }
    let count = variants().keys().filter(|name| !of_matrices(name)).count();
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
    let validator = spirv_validator();
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
                true => check_spirv(&name, &words),
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

/// Whether `spirv-val` is there (Debian and Ubuntu: package spirv-tools).
fn spirv_validator() -> bool {
    let found = Command::new("spirv-val")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        println!("spirv-val is not installed: SPIR-V is written, not validated");
    }
    found
}

fn check_spirv(name: &str, words: &[u32]) {
    let mut child = Command::new("spirv-val")
        .args(["--target-env", "vulkan1.1", "-"])
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
    assert!(output.status.success(), "{name}: {said}");
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
