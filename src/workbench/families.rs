//! This program's own kernels, whose sizes are a table: tried through the operations that use them.

use std::cell::RefCell;
use std::sync::Arc;

use super::bench::Clock;
use super::cases::MadeUp;
use super::error::{Error, Result};
use super::source::{Setting, Settings, Source};
use super::tune::{Form, Subject, TuneOptions, TuneReport, search};
use crate::backend::wgpu::{Gpu, Tuned};
use crate::backend::{Device, Precision, Program, Weights};
use crate::graph::{Array, Graph, Origin, Tensor};

/// A part of the table of sizes, and the operation that shows how good it is.
struct Family {
    name: &'static str,
    /// The kernel whose header says which values are tried.
    kernel: &'static str,
    sizes: &'static [&'static str],
    build: fn(&mut Graph, &[usize]) -> crate::graph::Result<Tensor>,
    small: &'static [&'static [usize]],
    sd15: &'static [&'static [usize]],
    sdxl: &'static [&'static [usize]],
}

const FAMILIES: [Family; 4] = [
    Family {
        name: "matmul",
        kernel: "matmul",
        sizes: &["rows", "inner", "columns"],
        build: |g, sizes| {
            let x = g.input("x", [1, sizes[0], sizes[1]]);
            let w = g.parameter("half.w", [sizes[2], sizes[1]]);
            g.linear(x, w)
        },
        // With what is no multiple of 4: pictures' channels, above all.
        small: &[
            &[256, 320, 320],
            &[64, 640, 640],
            &[77, 768, 320],
            &[1024, 128, 3],
            &[257, 66, 130],
        ],
        sd15: &[
            &[4096, 320, 320],
            &[1024, 640, 640],
            &[256, 1280, 1280],
            &[77, 768, 768],
            &[65536, 1152, 3],
            &[4096, 36, 322],
        ],
        sdxl: &[&[4096, 640, 640], &[1024, 1280, 1280], &[77, 2048, 1280], &[65536, 1152, 3]],
    },
    Family {
        name: "attention",
        kernel: "attention",
        sizes: &["tokens", "keys", "heads", "depth"],
        build: |g, sizes| {
            let channels = sizes[2] * sizes[3];
            let q = g.input("q", [1, sizes[0], channels]);
            let k = g.input("k", [1, sizes[1], channels]);
            let v = g.input("v", [1, sizes[1], channels]);
            g.attention(q, k, v, sizes[2], 1.0 / (sizes[3] as f32).sqrt(), false)
        },
        small: &[&[256, 256, 2, 40], &[256, 77, 2, 40], &[128, 128, 2, 80]],
        sd15: &[&[4096, 4096, 8, 40], &[1024, 1024, 8, 80], &[4096, 77, 8, 40]],
        sdxl: &[&[4096, 4096, 10, 64], &[1024, 1024, 20, 64], &[4096, 77, 10, 64]],
    },
    Family {
        name: "lora_down",
        kernel: "lora_down",
        sizes: &["rows", "inner", "rank"],
        build: |g, sizes| {
            let x = g.input("x", [1, sizes[0], sizes[1]]);
            let w = g.parameter("half.w", [sizes[2], sizes[1]]);
            g.lora_down(x, w)
        },
        small: &[&[256, 320, 4], &[256, 320, 16]],
        sd15: &[&[4096, 320, 4], &[1024, 640, 16], &[256, 1280, 4]],
        sdxl: &[&[4096, 640, 4], &[1024, 1280, 16]],
    },
    Family {
        name: "group_norm",
        kernel: "group_norm_partial",
        sizes: &["rows", "channels", "groups"],
        build: |g, sizes| {
            let x = g.input("x", [1, sizes[0], sizes[1]]);
            g.group_norm_statistics(x, sizes[2], 1e-5)
        },
        small: &[&[1024, 64, 32], &[256, 320, 32]],
        sd15: &[&[4096, 320, 32], &[1024, 640, 32], &[256, 1280, 32]],
        sdxl: &[&[16384, 320, 32], &[4096, 640, 32]],
    },
];

/// The parts of the table of sizes that can be tuned.
pub fn families() -> Vec<&'static str> {
    FAMILIES.iter().map(|family| family.name).collect()
}

fn family(name: &str) -> Result<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .ok_or_else(|| Error::unknown("part of the table of sizes", name, &families()))
}

/// Sizes in the order of their names, for each shape.
pub type Shapes = Vec<Vec<usize>>;

/// Names of a family's sizes, and its shapes of a set: small, sd15 or sdxl.
///
/// # Errors
/// No family of that name.
pub fn family_shapes(name: &str, set: &str) -> Result<(Vec<&'static str>, Option<Shapes>)> {
    let family = family(name)?;
    let shapes = match set {
        "small" => Some(family.small),
        "sd15" => Some(family.sd15),
        "sdxl" => Some(family.sdxl),
        _ => None,
    };
    let shapes = shapes.map(|all| all.iter().map(|sizes| sizes.to_vec()).collect());
    Ok((family.sizes.to_vec(), shapes))
}

/// Tries the sizes of a family on an adapter, which `open` opens with a table of sizes.
///
/// # Errors
/// No family of that name; a device that cannot be opened or failed; `tell` that says no.
pub fn tune_family(
    name: &str,
    now: Tuned,
    open: &dyn Fn(Tuned) -> Result<Arc<Gpu>>,
    shapes: &[Vec<usize>],
    options: &TuneOptions,
    clock: &Clock<'_>,
    tell: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<TuneReport> {
    let family = family(name)?;
    let adapter = open(now)?.name().to_string();
    let table = table_of(now)?;
    let mut parameters = Vec::new();
    for (parameter, mut values) in Source::own(family.kernel)?.tuned {
        let own = table.get(name).and_then(|sizes| sizes.get(&parameter)?.as_integer());
        let own = own.ok_or_else(|| Error::Kernel {
            kernel: family.kernel.into(),
            message: format!("its header tunes `{parameter}`, which the table does not have"),
        })?;
        let own = Setting::Number(own);
        values.retain(|value| *value != own);
        values.insert(0, own);
        parameters.push((parameter, values));
    }
    let expected = RefCell::new(None);
    let shipped = Shipped { family, now, open, clock, parameters, expected };
    search(&shipped, &adapter, shapes, options, tell)
}

fn table_of(tuned: Tuned) -> Result<toml::Table> {
    toml::Table::try_from(tuned).map_err(|error| Error::Kernel {
        kernel: "the table of sizes".into(),
        message: error.to_string(),
    })
}

/// A table of sizes with a family's values in the place of what it had.
///
/// # Errors
/// Sizes that kernels are not written for.
fn with(now: Tuned, family: &str, settings: &Settings) -> Result<Result<Tuned, String>> {
    let mut table = table_of(now)?;
    if let Some(toml::Value::Table(sizes)) = table.get_mut(family) {
        for (name, value) in settings {
            if let Setting::Number(number) = value {
                sizes.insert(name.clone(), toml::Value::Integer(*number));
            }
        }
    }
    let tuned: Result<Tuned, _> = table.try_into();
    let tuned = tuned.map_err(|error: toml::de::Error| error.message().to_string());
    Ok(tuned.and_then(|tuned| tuned.check().map(|()| tuned)))
}

struct Shipped<'a> {
    family: &'static Family,
    now: Tuned,
    open: &'a dyn Fn(Tuned) -> Result<Arc<Gpu>>,
    clock: &'a Clock<'a>,
    parameters: Vec<(String, Vec<Setting>)>,
    /// What the sizes that there are now give, at the last shape.
    expected: RefCell<Option<(Vec<usize>, Array)>>,
}

struct ShippedForm<'a> {
    program: Program,
    clock: &'a Clock<'a>,
    times: usize,
    /// What the sizes that there are now give.
    expected: Array,
}

impl Shipped<'_> {
    fn program(&self, tuned: Tuned, sizes: &[usize]) -> Result<Result<Program, String>> {
        let mut graph = Graph::new();
        let y = (self.family.build)(&mut graph, sizes)?;
        let device: Device = (self.open)(tuned)?.into();
        let source = Arc::new(MadeUp::of(&graph));
        let weights = Weights::new(&device, source, Precision::AsStored);
        let program = match Program::new(&weights, &graph, &[y]) {
            Ok(program) => program,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for node in graph.nodes() {
            if let Origin::Input { name } = &node.origin {
                let count = node.shape.elements();
                let values =
                    (0..count).map(|i| (2.0 * super::spec::noise(name, i)) as f32).collect();
                program.write(name, &Array::f32(node.shape.clone(), values))?;
            }
        }
        program.run();
        match program.wait() {
            Ok(()) => Ok(Ok(program)),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

impl Subject for Shipped<'_> {
    fn name(&self) -> String {
        self.family.name.into()
    }

    fn parameters(&self) -> Vec<(String, Vec<Setting>)> {
        self.parameters.clone()
    }

    fn told(&self, sizes: &[usize]) -> String {
        let each = self.family.sizes.iter().zip(sizes).map(|(name, size)| format!("{name} {size}"));
        each.collect::<Vec<_>>().join(", ")
    }

    fn form<'s>(
        &'s self,
        settings: &Settings,
        sizes: &[usize],
    ) -> Result<Result<Box<dyn Form + 's>, String>> {
        let tuned = match with(self.now, self.family.name, settings)? {
            Ok(tuned) => tuned,
            Err(why) => return Ok(Err(why)),
        };
        let program = match self.program(tuned, sizes)? {
            Ok(program) => program,
            Err(why) => return Ok(Err(why)),
        };
        let known = self.expected.borrow().clone().filter(|(known, _)| known == sizes);
        let expected = match known {
            Some((_, expected)) => expected,
            None => match self.program(self.now, sizes)? {
                Ok(program) => program.output(0)?,
                Err(why) => return Ok(Err(why)),
            },
        };
        *self.expected.borrow_mut() = Some((sizes.to_vec(), expected.clone()));
        let mut form = ShippedForm { program, clock: self.clock, times: 1, expected };
        form.time()?;
        let once = form.time()?;
        form.times = ((0.005 / once.max(1e-9)).ceil() as usize).clamp(1, 64);
        Ok(Ok(Box::new(form)))
    }
}

impl Form for ShippedForm<'_> {
    fn time(&mut self) -> Result<f64> {
        let start = (self.clock.now)();
        for _ in 0..self.times {
            self.program.run();
        }
        self.program.wait()?;
        Ok(((self.clock.now)() - start) / self.times as f64)
    }

    fn is_right(&mut self) -> Result<bool> {
        let found = self.program.output(0)?;
        let greatest = self.expected.values().iter().fold(1e-6f32, |most, v| most.max(v.abs()));
        let mut pairs = found.values().iter().zip(self.expected.values());
        Ok(pairs.all(|(a, b)| (a - b).abs() <= 1e-3 * greatest))
    }
}
