//! What a checker must neither overlook nor accuse, in kernels that differ by a line or two.

use mixofshow::workbench::{
    BenchOptions, CheckOptions, CheckReport, Clock, Contender, Settings, Source, Spec, bench, check,
};

use super::{folder, gpu};

/// A right matmul, an element to an invocation.
const MATMUL: &str = "//% kind matmul
//% dispatch [ceil(columns / 8), ceil(rows / 8)]
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.y >= sizes.rows || id.x >= sizes.columns) { return; }
  var sum = 0.0;
  for (var k = 0u; k < sizes.inner; k++) {
    sum += f32(a[id.y * sizes.inner + k]) * f32(b[k * sizes.columns + id.x]);
  }
  y[id.y * sizes.columns + id.x] = sum;
}
";

/// A softmax in f16, whose maximum can be left out.
const SOFTMAX: &str = "enable f16;
//% kind softmax
//% dispatch [ceil(rows / 32)]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f16>;
@group(0) @binding(2) var<storage, read_write> y: array<f16>;
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.rows) { return; }
  let start = id.x * sizes.columns;
  var peak = -6e4h;
  for (var c = 0u; c < sizes.columns; c++) { peak = max(peak, x[start + c]); }
  var sum = 0.0;
  for (var c = 0u; c < sizes.columns; c++) { sum += f32(exp(x[start + c] - peak)); }
  for (var c = 0u; c < sizes.columns; c++) {
    y[start + c] = f16(f32(exp(x[start + c] - peak)) / sum);
  }
}
";

/// `text` with each first string, which must be in it, replaced by the second.
fn with(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

fn halves(text: &str) -> String {
    let text = with(text, &[("array<f32>", "array<f16>"), ("= sum;", "= f16(sum);")]);
    format!("enable f16;\n{text}")
}

fn checked(text: &str) -> CheckReport {
    let source = Source::new("it.wgsl", text).unwrap();
    let spec = Spec::kind(source.kind.as_deref().unwrap()).unwrap();
    check(&source, &spec, &CheckOptions::default()).unwrap()
}

fn told(report: &CheckReport) -> String {
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    format!("{}\n{:#?}", faults.join("\n"), report.notes)
}

/// The first fault of that name.
fn fault(report: &CheckReport, name: &str) -> String {
    let found = report.faults.iter().find(|fault| fault.kind.name() == name);
    found.unwrap_or_else(|| panic!("no {name} in {}", told(report))).to_string()
}

fn is_right(text: &str) {
    let report = checked(text);
    assert!(report.passed() && report.shapes.len() >= 10, "{}", told(&report));
}

#[test]
fn f16_and_vectors_are_checked_at_ragged_shapes() {
    is_right(&halves(MATMUL));
    let no_guard = with(&halves(MATMUL), &[(" || id.x >= sizes.columns", "")]);
    fault(&checked(&no_guard), "out-of-bounds read");
    let vectors = with(
        MATMUL,
        &[
            ("ceil(columns / 8)", "ceil(columns / 32)"),
            ("b: array<f32>", "b: array<vec4<f32>>"),
            ("y: array<f32>", "y: array<vec4<f32>>"),
            ("id.x >= sizes.columns", "id.x >= sizes.columns / 4u"),
            ("var sum = 0.0", "var sum = vec4<f32>()"),
            ("f32(b[k * sizes.columns + id.x])", "b[k * (sizes.columns / 4u) + id.x]"),
            ("y[id.y * sizes.columns + id.x]", "y[id.y * (sizes.columns / 4u) + id.x]"),
        ],
    );
    let report = checked(&vectors);
    assert!(report.shapes.iter().any(|shape| shape.label == "ragged"), "{}", told(&report));
    fault(&report, "output not written");
    is_right(&with(&vectors, &[("//% kind", "//% needs columns % 4 == 0\n//% kind")]));
}

#[test]
fn f16_that_overflows_is_found_where_results_are_f16() {
    is_right(SOFTMAX);
    fault(&checked(&with(SOFTMAX, &[(" - peak)", ")")])), "f16 overflow");
    let sums = with(
        &halves(MATMUL),
        &[("var sum = 0.0", "var sum = 0.0h"), ("f32(a[", "(a["), ("f32(b[", "(b[")],
    );
    fault(&checked(&sums), "f16 overflow");
}

/// Statements count for each loop, not for all workgroups together.
#[test]
fn slow_kernels_are_not_endless() {
    let one = with(
        MATMUL,
        &[("[ceil(columns / 8), ceil(rows / 8)]", "[columns, rows]"), ("size(8, 8)", "size(1)")],
    );
    is_right(&one);
}

#[test]
fn an_endless_loop_is_told_once_with_its_line() {
    let report = checked(&with(MATMUL, &[("k++", "k += 0u")]));
    assert_eq!(report.faults.len(), 1, "{}", told(&report));
    assert!(
        fault(&report, "endless loop").starts_with("it.wgsl:12: endless loop: still running after")
    );
}

#[test]
fn private_variables_are_executed() {
    let private = with(
        MATMUL,
        &[
            ("@compute", "var<private> sums: array<f32, 2>;\n@compute"),
            ("= sum;", "= sum + sums[1];"),
        ],
    );
    is_right(&private);
    is_right(&with(&private, &[("var sum = 0.0", "sums[0] = f32(id.x); var sum = 0.0")]));
    let wrong = with(&private, &[("var sum = 0.0", "sums[1] = f32(id.x); var sum = 0.0")]);
    assert!(!checked(&wrong).passed());
    let beyond = with(&private, &[(" || id.x >= sizes.columns", "")]);
    fault(&checked(&beyond), "out-of-bounds read");
    fault(&checked(&with(&private, &[("sums[1]", "sums[id.x + 1u]")])), "out-of-bounds read");
}

#[test]
fn more_than_devices_have_is_a_fault() {
    let wide = with(MATMUL, &[("size(8, 8)", "size(64, 64)"), ("/ 8)", "/ 64)")]);
    assert!(fault(&checked(&wide), "more than devices have").contains("4096 invocations"));
    let many = with(MATMUL, &[("ceil(columns / 8)", "columns * 1000000")]);
    assert!(fault(&checked(&many), "more than devices have").contains("workgroups"));
    let long = with(MATMUL, &[("ceil(columns / 8)", "columns * 500"), ("rows / 8", "rows * 500")]);
    let source = Source::new("it.wgsl", &long).unwrap();
    let options = CheckOptions { only: Some("ordinary".into()), ..CheckOptions::default() };
    let said = check(&source, &Spec::kind("matmul").unwrap(), &options).unwrap_err().to_string();
    assert!(said.contains("too long"), "{said}");
}

#[test]
fn hints_name_what_is_meant() {
    let transposed = with(MATMUL, &[("k * sizes.columns + id.x", "id.x * sizes.inner + k")]);
    let said = fault(&checked(&transposed), "wrong stride");
    assert!(said.contains("right if `b` lay transposed"), "{said}");
    let path = folder("wrong").join("uninitialised.wgsl");
    let report = checked(&std::fs::read_to_string(path).unwrap());
    let said = fault(&report, "uninitialised workgroup memory");
    assert!(said.contains("]` is read") && said.contains("WGSL promises zeros"), "{said}");
    let pairs = with(
        MATMUL,
        &[("b: array<f32>", "b: array<u32>"), ("f32(b[k * sizes.columns + id.x])", "1.0")],
    );
    assert!(checked(&pairs).notes.iter().any(|note| note.contains("`b` holds u32: two f16")));
    let unbound = MATMUL.lines().filter(|line| !line.contains("binding(2)"));
    let unbound = unbound.collect::<Vec<_>>().join("\n");
    let report = checked(&with(&unbound, &[("f32(b[k * sizes.columns + id.x])", "1.0")]));
    assert!(report.notes.iter().any(|note| note.contains("nothing is bound")), "{}", told(&report));
}

/// What keeps a kernel from being looked at is told with the line that is to blame, and with the
/// name that may be meant.
#[test]
fn what_cannot_be_looked_at_is_told_with_its_line() {
    for (from, to, says) in [
        ("b", "w", "it.wgsl:6: binding `w` is none of those of matmul: a, b, y"),
        ("(3)", "(2)", "it.wgsl:7: `b` and `y` are both bound to @group(0) @binding(2)"),
        ("@group(0) @binding(3)", "@group(1) @binding(3)", "it.wgsl:7: binding `y` is in group 1"),
        ("<storage, read_write>", "<storage, read>", "it.wgsl:15: `y` is written and is bound as"),
        ("a: array<f32>", "a: array<i32>", "it.wgsl:5: `a` holds i32, expected f32"),
        (
            "columns: u32 }",
            "columns: u32,\n  depht: u32 }",
            "it.wgsl:4: uniform `depht` is no size or number that is known; there are rows",
        ),
        (
            "columns: u32 }",
            "columns: u32,\n  more: vec2<u32> }",
            "it.wgsl:4: uniform `more` is no single number",
        ),
        ("//% dispatch", "// dispatch", "it.wgsl:1: the header does not say how many workgroups"),
        ("ceil(columns", "ceil(cols", "it.wgsl:2: `ceil(cols / 8)`: unknown name `cols`; did you"),
        ("ceil(columns", "ciel(columns", "unknown function `ciel`; did you mean `ceil`?"),
        ("//% kind matmul", "//% kind matmull", "it.wgsl:1: unknown kind of kernel `matmull`; did"),
        ("//% dispatch", "//% dispach", "it.wgsl:2: unknown statement `dispach`; did you mean"),
        ("y[id.y", "yy[id.y", "it.wgsl:15: nothing is called `yy` here"),
    ] {
        let text = match from {
            // The binding, where it stands and where it is read.
            "b" => with(MATMUL, &[("> b:", "> w:"), ("f32(b[", "f32(w[")]),
            _ => with(MATMUL, &[(from, to)]),
        };
        let said = Source::new("it.wgsl", &text)
            .and_then(|source| {
                let kind = Spec::kind(source.kind.as_deref().unwrap());
                let spec = kind.map_err(|error| source.unknown_kind(&error))?;
                check(&source, &spec, &CheckOptions::default())
            })
            .map(|report| told(&report))
            .expect_err(to)
            .to_string();
        assert!(said.contains(says), "{to}: {said}");
        assert_eq!(said.matches("it.wgsl").count(), 1, "{said}");
    }
}

/// What is right only where two sizes are alike is no edge; what is wrong by chance alone has no
/// stride.
#[test]
fn no_name_says_more_than_is_proved() {
    let stride = with(MATMUL, &[("k * sizes.columns", "k * sizes.inner")]);
    let report = checked(&stride);
    assert!(!report.passed() && !told(&report).contains("wrong at the edge"), "{}", told(&report));
    let inner = with(MATMUL, &[("k < sizes.inner;", "k < sizes.inner / 16u * 16u;")]);
    let said = fault(&checked(&inner), "wrong at the edge");
    assert!(said.contains("; right at rows 64, inner 128, columns 192 (at ragged"), "{said}");
    let scaled = with(&halves(MATMUL), &[("f16(sum)", "f16(sum * 0.9)")]);
    let report = checked(&scaled);
    fault(&report, "wrong values");
    assert!(!told(&report).contains("wrong stride"), "{}", told(&report));
    for halves in [false, true] {
        let text = if halves { self::halves(MATMUL) } else { MATMUL.to_string() };
        let put = with(&text, &[("y[id.y * sizes.columns", "y[id.y * sizes.inner")]);
        let report = checked(&with(&put, &[("//% kind", "//% needs inner > columns\n//% kind")]));
        let told = told(&report);
        assert!(told.contains("right if rows lay"), "{told}");
    }
}

/// Where a kernel writes elsewhere, what its results look like says nothing of it.
#[test]
fn what_is_spoilt_has_no_name_of_its_own() {
    let beyond = with(MATMUL, &[(" || id.x >= sizes.columns", "")]);
    let report = checked(&beyond);
    fault(&report, "out-of-bounds write");
    fault(&report, "race");
    assert!(!told(&report).contains("wrong stride"), "{}", told(&report));
}

/// Another entry of a batch is no edge, nor is a number that is missing.
#[test]
fn what_is_no_edge_is_not_called_one() {
    let read = |name: &str| std::fs::read_to_string(folder("right").join(name)).unwrap();
    let attention = read("attention.wgsl");
    let report = checked(&with(&attention, &[("id.z * sizes.keys * channels + ", "")]));
    let said = fault(&report, "wrong stride");
    assert!(said.contains("first entry of the batch"), "{said}");
    let report = checked(&with(&read("layer_norm.wgsl"), &[(" + sizes.epsilon", "")]));
    assert!(!report.passed());
    assert!(!told(&report).contains("wrong at the edge"), "{}", told(&report));
}

#[test]
fn variances_are_tried_with_a_large_mean() {
    let text = std::fs::read_to_string(folder("right").join("layer_norm.wgsl")).unwrap();
    let naive = with(
        &text,
        &[
            ("let d = x[start + c] - mean;", "let d = x[start + c];"),
            (
                "total(lane, square) / f32(sizes.columns)",
                "total(lane, square) / f32(sizes.columns) - mean * mean",
            ),
        ],
    );
    let report = checked(&naive);
    let shape = report.shapes.iter().find(|shape| shape.label == "a large mean").unwrap();
    assert!(!shape.faults.is_empty(), "{}", told(&report));
}

/// A reference that gives nothing, and shapes beyond all memory.
#[test]
fn references_that_compare_nothing_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = with(
        MATMUL,
        &[
            ("a: array<f32>;\n@group(0) @binding(2) var<storage, read> b", "a"),
            ("f32(b[", "f32(a["),
        ],
    );
    let source = Source::new("it.wgsl", &kernel).unwrap();
    for (shape, value, says) in [
        ("[4, 4, 4]", "a[r, c] / 0", "nothing can be compared"),
        ("[800000000, 64, 64]", "a[r, c]", "the most that is tried"),
    ] {
        let text = format!(
            "sizes = [\"rows\", \"inner\", \"columns\"]\nshapes = [{shape}]\n[inputs]\n\
             a = [\"rows\", \"columns\"]\n[outputs.y]\nshape = [\"rows\", \"columns\"]\n\
             indices = [\"r\", \"c\"]\nvalue = \"{value}\"\n"
        );
        let path = folder.path().join("it.toml");
        std::fs::write(&path, text).unwrap();
        let said = Spec::like(&path)
            .and_then(|spec| check(&source, &spec, &CheckOptions::default()))
            .expect_err(value)
            .to_string();
        assert!(said.contains(says), "{value}: {said}");
    }
}

/// A kernel of which only a shape without elements could be looked at is not right.
#[test]
fn nothing_is_right_that_was_not_compared() {
    let unknown =
        with(MATMUL, &[("= sum;", "= sum * determinant(mat2x2<f32>(1.0, 0.0, 0.0, 1.0));")]);
    let source = Source::new("it.wgsl", &unknown).unwrap();
    let said = check(&source, &Spec::kind("matmul").unwrap(), &CheckOptions::default())
        .map(|report| told(&report))
        .unwrap_err()
        .to_string();
    assert!(said.contains("not interpreted: Determinant is not known to it"), "{said}");
}

/// What leaves its bindings is not run, least of all without bounds checks.
#[test]
fn nothing_dangerous_is_measured() {
    let Some(gpu) = gpu() else { return };
    let start = std::time::Instant::now();
    let now = || start.elapsed().as_secs_f64();
    let clock = Clock { name: "elapsed time", now: &now };
    let spec = Spec::kind("matmul").unwrap();
    let measure = |text: &str, sizes: [usize; 3]| {
        let source = Source::new("it.wgsl", text).unwrap();
        let contenders = [Contender { source, settings: Settings::new() }];
        let options = BenchOptions { rounds: 1, least: 0.0, ..BenchOptions::default() };
        bench(&gpu, &contenders, &spec, &[sizes.to_vec()], &options, &clock, &mut |_, _| true)
    };
    measure(MATMUL, [8, 8, 8]).unwrap();
    let beyond = with(MATMUL, &[(" || id.x >= sizes.columns", "")]);
    // Only where it was asked for: full tiles are all there is.
    measure(&beyond, [8, 8, 8]).unwrap();
    for (text, says) in [
        (beyond, "it is not run: it.wgsl:13: out-of-bounds read"),
        (with(MATMUL, &[("k++", "k += 0u")]), "it is not run: it.wgsl:12: endless"),
        (SOFTMAX.to_string(), "none of those of matmul"),
        // Right at all shapes of the kind.
        (kept_rows(), ": out-of-bounds"),
    ] {
        let said = measure(&text, [9, 7000, 9]).unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    let large = with(
        MATMUL,
        &[
            ("@compute", "var<workgroup> much: array<f32, 60000>;\n@compute"),
            ("  var sum = 0.0;", "  much[id.x] = 1.0;\n  var sum = 0.0;"),
        ],
    );
    let said = measure(&large, [8, 8, 8]).unwrap_err().to_string();
    assert!(said.contains("240000 bytes of workgroup memory"), "{said}");
}

/// A matmul whose rows of `a` go into a vector that holds 3000 numbers.
fn kept_rows() -> String {
    with(
        MATMUL,
        &[
            ("  var sum = 0.0;", "  var kept: array<f32, 3000>;\n  var sum = 0.0;"),
            ("k++) {\n", "k++) {\n    kept[k] = a[id.y * sizes.inner + k];\n"),
            ("f32(a[id.y * sizes.inner + k])", "kept[k]"),
        ],
    )
}

/// Shapes that are asked for are looked at beside the kind's own.
#[test]
fn asked_shapes_are_looked_at() {
    let source = Source::new("it.wgsl", &kept_rows()).unwrap();
    let spec = Spec::kind("matmul").unwrap();
    let look = |shapes| {
        let options = CheckOptions { shapes, ..CheckOptions::default() };
        check(&source, &spec, &options).unwrap()
    };
    let report = look(vec![vec![3, 2999, 5]]);
    assert!(report.passed(), "{}", told(&report));
    assert!(report.shapes.iter().any(|shape| shape.label == "asked for"));
    let report = look(vec![vec![300, 3001, 5]]);
    assert!(fault(&report, "out-of-bounds write").contains("rows 300, inner 3001"));
}

/// Exponents far from 0, and rows that are far from each other.
#[test]
fn whose_maximum_is_another_one() {
    let single = with(
        SOFTMAX,
        &[("enable f16;\n", ""), ("f16", "f32"), ("f32(f32(", "(("), ("-6e4h", "-3e38")],
    );
    is_right(&single);
    is_right(SOFTMAX);
    let from_zero = checked(&with(&single, &[("-3e38", "0.0")]));
    assert!(fault(&from_zero, "not finite").contains("rows far below 0"));
    let first = "peak = max(peak, x[start + c]);";
    let others = checked(&with(&single, &[(first, "peak = max(peak, x[c]);")]));
    assert!(fault(&others, "not finite").contains("rows far apart"));
}

/// Scores that f16 does not hold before they are scaled.
#[test]
fn scores_in_f16() {
    let attention = "enable f16;
//% kind attention
//% dispatch [ceil(tokens / 16), heads, batch]
//% needs depth <= 40
struct Sizes { batch: u32, tokens: u32, keys: u32, heads: u32, depth: u32, scale: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(16)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= s.tokens) { return; }
  let width = s.heads * s.depth;
  let at = (id.z * s.tokens + id.x) * width + id.y * s.depth;
  var sum: array<f32, 40>;
  var peak = -3e38;
  var total = 0.0;
  for (var j = 0u; j < s.keys; j++) {
    let key = (id.z * s.keys + j) * width + id.y * s.depth;
    var score = 0.0h;
    for (var i = 0u; i < s.depth; i++) { score += f16(q[at + i] * s.scale) * f16(k[key + i]); }
    let next = max(peak, f32(score));
    let old = exp(peak - next);
    let weight = exp(f32(score) - next);
    total = total * old + weight;
    for (var i = 0u; i < s.depth; i++) { sum[i] = sum[i] * old + weight * v[key + i]; }
    peak = next;
  }
  for (var i = 0u; i < s.depth; i++) { y[at + i] = sum[i] / total; }
}
";
    is_right(attention);
    let late = with(
        attention,
        &[
            ("q[at + i] * s.scale", "q[at + i]"),
            (
                "let next = max(peak, f32(score));",
                "let scaled = f32(score) * s.scale;\n    let next = max(peak, scaled);",
            ),
            ("exp(f32(score) - next)", "exp(scaled - next)"),
        ],
    );
    let report = checked(&late);
    assert!(fault(&report, "f16 overflow").contains("large scores"), "{}", told(&report));
    assert_eq!(report.faults[0].line, Some(22), "{}", told(&report));
}

/// f16 that only values without a variable have; a fault that f16's rounding must not hide.
#[test]
fn how_far_f16_may_be_off() {
    let single = "enable f16;
//% kind softmax
//% dispatch [rows]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
  let start = id.x * sizes.columns;
  var peak = -3e38;
  for (var c = 0u; c < sizes.columns; c++) { peak = max(peak, x[start + c]); }
  var sum = 0.0;
  for (var c = 0u; c < sizes.columns; c++) {
    let weight: f16 = exp(f16(x[start + c] - peak));
    sum += f32(weight);
  }
  for (var c = 0u; c < sizes.columns; c++) { y[start + c] = exp(x[start + c] - peak) / sum; }
}
";
    is_right(single);
    let stored = with(
        single,
        &[
            ("y: array<f32>", "y: array<f16>"),
            (
                "let weight: f16 = exp(f16(x[start + c] - peak));",
                "let weight = exp(x[start + c] - peak);",
            ),
            ("= exp(x[start + c] - peak) / sum;", "= f16(exp(x[start + c] - peak) / sum);"),
        ],
    );
    is_right(&stored);
    let off = checked(&with(&stored, &[("/ sum)", "/ sum * 1.004)")]));
    fault(&off, "wrong values");
}

/// Elements that nobody writes at large shapes alone are found there, without any device.
#[test]
fn what_is_left_out_of_large_results_is_found() {
    let single = with(
        SOFTMAX,
        &[("enable f16;\n", ""), ("f16", "f32"), ("f32(f32(", "(("), ("-6e4h", "-3e38")],
    );
    let report = checked(&with(
        &single,
        &[("if (id.x >= sizes.rows)", "if (id.x >= min(600u, sizes.rows))")],
    ));
    assert!(fault(&report, "output not written").contains("huge"), "{}", told(&report));
    // An epsilon of a tenth shows where the variance is small.
    let norm = "//% kind layer_norm
//% dispatch [rows]
struct Sizes { rows: u32, columns: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> s: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) id: vec3<u32>) {
  let start = id.x * s.columns;
  var mean = 0.0;
  for (var c = 0u; c < s.columns; c++) { mean += x[start + c]; }
  mean /= f32(s.columns);
  var sum = 0.0;
  for (var c = 0u; c < s.columns; c++) { let d = x[start + c] - mean; sum += d * d; }
  let factor = inverseSqrt(sum / f32(s.columns) + s.epsilon);
  for (var c = 0u; c < s.columns; c++) {
    y[start + c] = (x[start + c] - mean) * factor * weight[c] + bias[c];
  }
}
";
    is_right(norm);
    let off = checked(&with(norm, &[("+ s.epsilon)", "+ 0.1 * s.epsilon)")]));
    let seen = off.shapes.iter().find(|shape| shape.label == "little variance").unwrap();
    assert!(!seen.faults.is_empty(), "{}", told(&off));
}

/// Workgroups whose size an `override` says run in another order as others do.
#[test]
fn sizes_of_workgroups_may_be_overridden() {
    let Some(gpu) = gpu() else { return };
    let text = with(
        MATMUL,
        &[(
            "@compute @workgroup_size(8, 8)",
            "override side: u32 = 8;\n@compute @workgroup_size(side, side)",
        )],
    );
    let source = Source::new("it.wgsl", &text).unwrap();
    let options = CheckOptions { device: Some(gpu), ..CheckOptions::default() };
    let report = check(&source, &Spec::kind("matmul").unwrap(), &options).unwrap();
    assert!(report.passed(), "{}", told(&report));
}
