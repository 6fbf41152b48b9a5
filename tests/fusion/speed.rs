//! The direct solver on problems that `tools/reference/fusion_speed.py` made and solved by L-BFGS:
//! how long, and how well. Run with
//! `MOS_FUSION_PROBLEMS=FOLDER cargo test --release --test fusion -- --ignored speed --nocapture`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use faer::Mat;
use mixofshow::checkpoint::TensorFile;
use mixofshow::fusion::Result;
use mixofshow::fusion::Statistics;
use mixofshow::fusion::solve::{
    Exact, Factors, Group, Layer, Measures, Solver, Towards, choose, solve,
};
use mixofshow::unwatched;

struct Problem {
    name: String,
    width: usize,
    layers: Vec<Layer>,
    weights: Vec<f64>,
    grams: Vec<Statistics>,
    changes: Vec<Vec<Factors>>,
}

fn matrix(file: &TensorFile, name: &str) -> Mat<f64> {
    let view = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let columns = view.shape()[1];
    let values: Vec<f64> =
        view.bytes().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    Mat::from_fn(view.shape()[0], columns, |i, j| values[i * columns + j])
}

impl Problem {
    fn open(path: &Path) -> Problem {
        let file = TensorFile::open(path).unwrap();
        let concepts = (0..).take_while(|i| file.contains(&format!("gram.{i}"))).count();
        let layers = (0..).take_while(|l| file.contains(&format!("layer.{l}.up.0"))).count();
        let grams: Vec<Statistics> = (0..concepts)
            .map(|i| {
                let gram = matrix(&file, &format!("gram.{i}"));
                let n = gram.nrows();
                let high = |i: usize, j: usize| gram[(i, j)] as f32;
                let planes = (0..n * n).map(|at| high(at / n, at % n));
                let low = (0..n * n)
                    .map(|at| (gram[(at / n, at % n)] - f64::from(high(at / n, at % n))) as f32);
                let mut statistics = Statistics::new(n);
                statistics.push_planes(&planes.chain(low).collect::<Vec<_>>(), 1);
                statistics
            })
            .collect();
        let changes: Vec<Vec<Factors>> = (0..concepts)
            .map(|i| {
                let factors = |l: usize| Factors {
                    up: matrix(&file, &format!("layer.{l}.up.{i}")),
                    down: matrix(&file, &format!("layer.{l}.down.{i}")),
                };
                (0..layers).map(factors).collect()
            })
            .collect();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let layer = |l: usize| Layer { name: format!("{name}.{l}"), out: changes[0][l].up.nrows() };
        let layers = (0..layers).map(layer).collect();
        Problem {
            width: grams[0].width(),
            layers,
            weights: vec![1.0; concepts],
            grams,
            changes,
            name,
        }
    }
}

impl Group for Problem {
    fn name(&self) -> &str {
        &self.name
    }

    fn width(&self) -> usize {
        self.width
    }

    fn layers(&self) -> &[Layer] {
        &self.layers
    }

    fn weights(&self) -> &[f64] {
        &self.weights
    }

    fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>> {
        Ok(Cow::Borrowed(&self.grams[index]))
    }

    fn change(&self, index: usize, layer: usize) -> Option<Factors> {
        Some(self.changes[index][layer].clone())
    }

    fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]> {
        Ok([None, None])
    }
}

#[test]
#[ignore = "needs problems made by tools/reference/fusion_speed.py"]
fn speed() {
    let folder = PathBuf::from(std::env::var("MOS_FUSION_PROBLEMS").expect("a folder of problems"));
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    paths.sort();
    for path in paths {
        let problem = Problem::open(&path);
        let start = Instant::now();
        let solver = Solver::Exact(Exact { ridge: Some(1e-6), ..Exact::default() });
        let solution = solve(&problem, solver, (1e-6, Towards::Base), &mut unwatched).unwrap();
        let solved = start.elapsed().as_secs_f64();
        let start = Instant::now();
        choose(&[&problem], Exact::default(), &mut unwatched).unwrap();
        let chosen = start.elapsed().as_secs_f64();
        let measures = Measures::of(&problem, &solution.changes).unwrap();
        for layer in &measures.layers {
            let [left, before] =
                layer.energies.iter().fold([0.0, 0.0], |[a, b], [x, y]| [a + x, b + y]);
            println!("{}: residual {:.6e}", layer.layer, left / before);
        }
        println!(
            "{}: solved in {solved:.3} s, ridge chosen in {chosen:.3} s; {:?}",
            problem.name, solution.conditioning
        );
    }
}
