use mixofshow::{checkpoint::Checkpoint, diffusion::pipeline::*, gpu::*, graph::Precision};
fn main() {
    let gpu = Gpu::open(&Options::default()).unwrap();
    println!("{} {}", gpu.name(), gpu.info().driver_info);
    let c = Checkpoint::open(std::path::Path::new("models/tiny")).unwrap();
    let t = std::time::Instant::now();
    let mut p = Pipeline::load(&gpu, &c, Precision::AsStored).unwrap();
    println!("load {:?}", t.elapsed());
    for _ in 0..2 {
        let r = Request { prompt: "a red cat in the snow".into(), steps: 4, ..Request::default() };
        let g = p.generate(&r, &mut |_| ()).unwrap();
        println!("{:?} peak {} planned {:?}", g.stages, g.peak_device_bytes >> 20, g.planned);
    }
    p.profile();
}
