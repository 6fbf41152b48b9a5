//! `mos kernel`: files, options, exit codes. What it finds is tested in `tests/workbench`.
use std::path::Path;

use super::{fixture, mos, ran, run};

/// Without a device: the interpreter is all that is needed.
const ALONE: &str = "--adapter cpu";

#[test]
fn a_right_kernel_ends_with_0_and_a_wrong_one_with_1() {
    let folder = fixture("tests/workbench");
    let right = run(&folder, &format!("kernel check @/right/softmax.wgsl {ALONE}")).ok();
    assert!(right.stdout.contains("softmax.wgsl: right at"), "{}", right.stdout);
    assert!(right.stdout.contains("on no device"), "{}", right.stdout);
    let line = format!("kernel check @/wrong/barrier_after_peak.wgsl {ALONE}");
    let wrong = run(&folder, &line).failed(1, &["1 fault in"]);
    assert!(
        wrong.stdout.contains("barrier_after_peak.wgsl:28: missing barrier: "),
        "{}",
        wrong.stdout
    );
    let line = format!("kernel check @/wrong/padding.wgsl --only ragged --json {ALONE}");
    let json = run(&folder, &line).failed(1, &[]).json();
    assert_eq!(json[0]["faults"][0]["kind"], "out-of-bounds-write");
    assert_eq!(json[0]["faults"][0]["line"], 37);
    assert_eq!(json[0]["shapes"].as_array().unwrap().len(), 1);
}

#[test]
fn what_a_kernel_computes_may_stand_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put(
        "scaled.wgsl",
        "//% dispatch [ceil(count / 64)]
struct Sizes { count: u32, factor: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < sizes.count) { y[id.x] = sizes.factor * x[id.x]; }
}
",
    );
    put(
        "scaled.toml",
        "sizes = [\"count\"]\nshapes = [[100], [64]]\nnumbers = { factor = 0.5 }\n[inputs]\n\
         x = [\"count\"]\n[outputs.y]\nshape = [\"count\"]\nindices = [\"i\"]\n\
         value = \"factor * x[i]\"\n",
    );
    let check = |like: &str| {
        run(folder.path(), &format!("kernel check @/scaled.wgsl --like @/{like} {ALONE}"))
    };
    check("scaled.toml").ok();
    put(
        "by_kernel.toml",
        "sizes = [\"count\"]\nshapes = [[100]]\nnumbers = { factor = 0.5 }\n\
         reference = \"scaled.wgsl\"\n[inputs]\nx = [\"count\"]\n\
         [outputs.y]\nshape = [\"count\"]\n",
    );
    check("by_kernel.toml").ok();
    let text = std::fs::read_to_string(folder.path().join("scaled.toml")).unwrap();
    put("other.toml", &text.replace("factor * x", "2 * x"));
    let other = check("other.toml").failed(1, &["scaled.wgsl"]);
    assert!(other.stdout.contains("wrong values"), "{}", other.stdout);
    put("broken.toml", &text.replace("x[i]", "z[i]"));
    check("broken.toml").failed(2, &["broken.toml", "unknown name `z`"]);
}

#[test]
fn wrong_usage_says_what_is_right() {
    let folder = fixture("tests/workbench");
    for (line, code, says) in [
        ("kernel check", 2, &["<FILE>"][..]),
        ("kernel check @/timing/chain.wgsl", 2, &["--as", "matmul", "//% kind"]),
        ("kernel check @/right/softmax.wgsl --as softmaxx", 2, &["softmaxx", "softmax"]),
        ("kernel check @/right/softmax.wgsl --set tile=8", 2, &["unknown parameter `tile`"]),
        ("kernel check @/right/softmax.wgsl --set tile", 2, &["NAME=VALUE"]),
        (
            "kernel check @/right/softmax.wgsl --as matmul",
            2,
            &["softmax.wgsl:", "binding `x`", "a, b, y"],
        ),
        ("kernel check @/none.wgsl", 2, &["none.wgsl"]),
        ("kernel check matmull", 2, &["unknown kernel `matmull`; did you mean `matmul`?"]),
        (
            "kernel check @/right/softmax.wgsl --only nosuch",
            2,
            &["shape of softmax `nosuch`", "a NaN"],
        ),
        ("kernel check @/right/softmax.wgsl --only large", 0, &[]),
        ("kernel check layer_norm --only ragged", 2, &["--only", "layer_norm is checked as"]),
        ("kernel show layer_norm --set tile=8", 2, &["--set", "--variant"]),
        ("kernel check layer_norm --set tile=8", 2, &["--set", "layer_norm is checked as"]),
        ("kernel show @/right/softmax.wgsl --statistics", 2, &["--adapter", "mos devices"]),
        ("kernel show @/right/softmax.wgsl --msl --hlsl", 2, &["--hlsl"]),
        ("kernel bench @/right/softmax.wgsl", 2, &["graphics adapters"]),
        ("kernel bench layer_norm", 2, &["layer_norm", "mos bench kernels"]),
    ] {
        let ended = run(&folder, &format!("{line} {ALONE}"));
        if code == 0 {
            ended.ok();
        } else {
            ended.failed(code, says);
        }
    }
    let tuned = "kernel check @/examples/kernels/6-tuned.wgsl --set depth=81";
    run(&fixture(""), &format!("{tuned} {ALONE}"))
        .failed(2, &["unknown value of depth `81`", "there are 64, 80"]);
}

/// 0 nothing found, 1 something found, 2 not looked at: the same for all of them.
#[test]
fn exit_codes_tell_a_verdict_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let softmax = std::fs::read_to_string(fixture("tests/workbench/right/softmax.wgsl")).unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("right.wgsl", &softmax);
    put("wrong.wgsl", &softmax.replace("let total = parts[0];", "let total = parts[1];"));
    put("broken.wgsl", &softmax.replace("let total = parts[0];", "let total = parts[0]"));
    put("header.wgsl", &softmax.replace("//% dispatch", "//% dispach"));
    put("kind.wgsl", &softmax.replace("//% kind softmax", "//% kind softmaxx"));
    for (command, files) in [
        ("check", [("right", 0), ("wrong", 1), ("broken", 2), ("header", 2), ("kind", 2)]),
        (
            "watch --times 1",
            [("right", 0), ("wrong", 1), ("broken", 2), ("header", 2), ("kind", 2)],
        ),
        ("show", [("right", 0), ("wrong", 0), ("broken", 2), ("header", 2), ("kind", 0)]),
        ("bench", [("right", 2), ("wrong", 2), ("broken", 2), ("header", 2), ("kind", 2)]),
        ("tune", [("right", 2), ("wrong", 2), ("broken", 2), ("header", 2), ("kind", 2)]),
    ] {
        for (file, code) in files {
            let ended = run(folder.path(), &format!("kernel {command} @/{file}.wgsl {ALONE}"));
            match code {
                0 => drop(ended.ok()),
                code => drop(ended.failed(code, &[])),
            }
        }
    }
    // One that could not be looked at outweighs what was found in others.
    let both = format!("kernel check @/wrong.wgsl @/broken.wgsl {ALONE}");
    run(folder.path(), &both).failed(2, &["wrong.wgsl", "broken.wgsl:34: expected `;`"]);
}

/// What is found where kernels are measured is a verdict, too.
#[test]
fn wrong_results_and_dangerous_kernels_are_verdicts() {
    let adapters = ran(mos().args(["devices", "--json"])).ok().json();
    let all = adapters.as_array().unwrap();
    let Some(adapter) = all.iter().find(|a| a["kind"] == "cpu") else { return };
    let folder = tempfile::tempdir().unwrap();
    let softmax = std::fs::read_to_string(fixture("tests/workbench/right/softmax.wgsl")).unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("wrong.wgsl", &softmax.replace("let total = parts[0];", "let total = parts[0] * 2.0;"));
    let beyond = softmax.replace("let total = parts[0];", "let total = parts[0] + x[1 << 24];");
    put("beyond.wgsl", &beyond.replace("//% kind", "//% tune tile in [1, 2]\n//% kind"));
    let ended = |line: &str| {
        let mut command = mos();
        command.args(["--adapter", adapter["name"].as_str().unwrap()]);
        command.args(line.split(' ')).current_dir(folder.path());
        ran(&mut command)
    };
    ended("kernel bench wrong.wgsl --shapes 8x64 --rounds 1")
        .failed(1, &["wrong results: wrong.wgsl at rows 8"]);
    ended("kernel tune nosuch").failed(2, &["nosuch: no such file", "lora_down"]);
    for command in ["bench beyond.wgsl --rounds 1", "tune beyond.wgsl --dry-run"] {
        ended(&format!("kernel {command} --shapes 8x64"))
            .failed(1, &["it is not run", "out-of-bounds read", "`//% needs columns % 4 == 0`"]);
    }
}

#[test]
fn what_a_device_gets_is_shown() {
    let file = "@/examples/kernels/6-tuned.wgsl";
    let root = fixture("");
    for (language, says) in [
        ("", "let a0_60 = a[start0 + 15u];"),
        ("--wgsl --set rows_each=2", "let row1 = min(first + 1u, end - 1u);"),
        ("--spirv", "OpEntryPoint"),
        ("--msl", "kernel void"),
        ("--hlsl", "[numthreads(8, 1, 1)]"),
    ] {
        let shown = run(&root, &format!("kernel show {file} {language}")).ok();
        assert!(shown.stdout.contains(says), "{language}: {}", shown.stdout);
    }
    // By matrices, too, whatever is there.
    run(&root, "kernel show matmul_matrices").ok();
    let adapters = ran(mos().args(["devices", "--json"])).ok().json();
    if let Some(adapter) = adapters.as_array().unwrap().iter().find(|a| a["kind"] == "cpu") {
        let name = adapter["name"].as_str().unwrap();
        let mut show = mos();
        show.args(["kernel", "show", "layer_norm", "--statistics", "--adapter", name]);
        // Software drivers tell nothing, and that is said.
        let found = ran(&mut show);
        assert!(found.stdout.contains("subgroup") || found.stderr.contains("tells nothing"));
    }
    let own = run(&root, "kernel show layer_norm --variant 2").ok();
    assert!(
        own.stdout.contains("inverseSqrt") && own.stderr.contains("variant 2 of"),
        "{}",
        own.stderr
    );
    run(&root, "kernel show layer_norm --variant 99")
        .failed(2, &["--variant 99", "layer_norm has"]);
}

/// Errors in a template name its line; a kernel that is looked at again tells what changed.
#[test]
fn a_kernel_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("softmax.wgsl");
    let text = std::fs::read_to_string(fixture("tests/workbench/right/softmax.wgsl")).unwrap();
    std::fs::write(&path, &text).unwrap();
    let watch = format!("kernel watch @/softmax.wgsl --times 1 {ALONE}");
    let first = run(folder.path(), &watch).ok();
    assert!(first.stdout.contains("right at"), "{}", first.stdout);
    std::fs::write(&path, text.replace("let total = parts[0];", "let total = parts[0]")).unwrap();
    let broken = run(folder.path(), &watch).failed(2, &[]);
    assert!(broken.stderr.contains("softmax.wgsl:34: expected `;`"), "{}", broken.stderr);
}

/// The kernel that the help shows is one.
#[test]
fn the_help_shows_a_kernel_that_is_right() {
    let help = ran(mos().args(["kernel", "--help"])).ok().stdout;
    let start = help.find("  //% kind softmax").unwrap();
    let kernel: Vec<&str> = help[start..].lines().take_while(|line| !line.is_empty()).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("help.wgsl"), kernel.join("\n")).unwrap();
    let ok = run(folder.path(), &format!("kernel check @/help.wgsl {ALONE}")).ok();
    assert!(ok.stdout.contains("right at 14 shapes"), "{}", ok.stdout);
    assert!(help.contains("Exit codes of all of them: 0 nothing"), "{help}");
}

/// What editors leave for a moment is no reason to end.
#[test]
fn a_file_that_is_empty_for_a_moment_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.wgsl");
    let text = std::fs::read_to_string(fixture("tests/workbench/right/softmax.wgsl")).unwrap();
    std::fs::write(&path, "").unwrap();
    let mut watch = mos();
    watch.args(["kernel", "watch", "--times", "3", "--adapter", "cpu"]).arg(&path);
    let watching = std::thread::spawn(move || ran(&mut watch));
    // Longer than the patience with an empty one.
    std::thread::sleep(std::time::Duration::from_secs(4));
    let bare = text.replace("//% kind softmax", "// no kind");
    std::fs::write(&path, bare).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(3));
    std::fs::write(&path, &text).unwrap();
    let watched = watching.join().unwrap().ok();
    assert!(watched.stderr.contains("it.wgsl: it is empty"), "{}", watched.stderr);
    assert!(watched.stderr.contains("what does it compute?"), "{}", watched.stderr);
    assert!(watched.stdout.contains("right at"), "{}", watched.stdout);
}

#[test]
fn own_kernels_are_checked_by_name_and_from_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let own = run(folder.path(), "kernel check layer_norm kernels_none --json");
    own.failed(2, &["unknown kernel `kernels_none`"]);
    let ok = run(folder.path(), "kernel check layer_norm").ok();
    assert!(ok.stdout.contains("layer_norm: right at"), "{}", ok.stdout);
    let text = std::fs::read_to_string(fixture("kernels/geglu.wgsl")).unwrap();
    let spoilt = text.replace("if (i >= sizes.rows * sizes.channels) { return; }", "");
    std::fs::write(folder.path().join("geglu.wgsl"), spoilt).unwrap();
    let wrong = run(folder.path(), "kernel check @/geglu.wgsl").failed(1, &["in"]);
    assert!(wrong.stdout.contains("out-of-bounds"), "{}", wrong.stdout);
}

/// Sizes of the user's own are used, told, and can be ignored.
#[test]
fn measured_sizes_are_told() {
    let adapters = ran(mos().args(["devices", "--json"])).ok().json();
    let all = adapters.as_array().unwrap();
    let Some(adapter) = all.iter().find(|a| a["kind"] == "cpu") else { return };
    let name = adapter["name"].as_str().unwrap();
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let parts: Vec<&str> = plain.split('-').filter(|part| !part.is_empty()).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("{}.toml", parts.join("-")));
    let told = |tuned: &Path| {
        let json = ran(mos().args(["devices", "--json"]).env("MOS_TUNED", tuned)).ok().json();
        let all = json.as_array().unwrap().clone();
        let found = all.iter().find(|a| a["name"] == name).unwrap()["sizes"].clone();
        found.as_str().unwrap().to_string()
    };
    std::fs::write(&file, "[matmul]\nrows = 8\n").unwrap();
    assert!(told(folder.path()).contains("measured here"), "{}", told(folder.path()));
    assert!(told(Path::new("off")).contains("MOS_TUNED is off"));
    std::fs::write(&file, "[matmul]\nrows = 800\n").unwrap();
    assert!(told(folder.path()).contains("matmul.rows is 800"));
}

/// Nothing passes unseen: an empty file that is called as a kernel of this program, or one that
/// cannot take its place.
#[test]
fn files_that_are_called_as_own_kernels_must_be_such() {
    let folder = tempfile::tempdir().unwrap();
    let softmax = std::fs::read_to_string(fixture("tests/workbench/right/softmax.wgsl")).unwrap();
    let bare: Vec<&str> = softmax.lines().filter(|line| !line.starts_with("//%")).collect();
    for (name, text) in [("copy.wgsl", ""), ("layer_norm.wgsl", &bare.join("\n"))] {
        std::fs::write(folder.path().join(name), text).unwrap();
        for more in ["", " --json"] {
            run(folder.path(), &format!("kernel check @/{name}{more} {ALONE}"))
                .failed(2, &["cannot be executed in its place", "//% kind KIND"]);
        }
    }
}

/// One file that cannot be looked at hides none of the others, in JSON neither; a byte order mark
/// hides no line.
#[test]
fn files_are_checked_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let softmax = std::fs::read_to_string(fixture("tests/workbench/right/softmax.wgsl")).unwrap();
    let start = softmax.find("//% kind").unwrap();
    put("marked.wgsl", &format!("\u{feff}{}", &softmax[start..].replace('\n', "\r\n")));
    put("broken.wgsl", "//% kind softmax\nfn main( {}\n");
    put("empty.wgsl", "//% kind softmax\n");
    let line = format!("kernel check @/broken.wgsl @/marked.wgsl @/empty.wgsl {ALONE}");
    let told = run(folder.path(), &line)
        .failed(2, &["broken.wgsl:2: ", "empty.wgsl: expected one @compute entry point"]);
    assert!(told.stdout.contains("marked.wgsl: right at"), "{}", told.stdout);
    let json = run(folder.path(), &format!("{line} --json")).failed(2, &[]).json();
    assert!(json[0]["error"].as_str().unwrap().contains("broken.wgsl:2: "), "{json}");
    assert!(json[1]["error"].is_null() && !json[1]["shapes"].as_array().unwrap().is_empty());
    run(folder.path(), &format!("kernel show @/empty.wgsl {ALONE}")).failed(2, &["entry point"]);
}

/// No result takes the place of a kernel, nor of anybody's notes.
#[test]
fn inputs_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let softmax = fixture("tests/workbench/right/softmax.wgsl");
    std::fs::copy(softmax, folder.path().join("it.wgsl")).unwrap();
    std::fs::write(folder.path().join("notes"), "[my notes\n").unwrap();
    for (line, says) in [
        ("kernel tune @/it.wgsl -o @/it.wgsl", &["it.wgsl would be replaced"][..]),
        ("kernel tune @/it.wgsl -o @/notes", &["notes: it is there already", "table of values"]),
        ("kernel bench @/it.wgsl --html @/it.wgsl", &["it.wgsl would be replaced"]),
        ("kernel bench @/it.wgsl --html @/notes", &["notes: it is there already", "a page"]),
        ("kernel tune @/it.wgsl --rounds 8", &["--rounds", "9"]),
    ] {
        run(folder.path(), &format!("{line} {ALONE}")).failed(2, says);
    }
}
