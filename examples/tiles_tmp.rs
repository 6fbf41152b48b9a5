use mixofshow::{checkpoint::Checkpoint, diffusion::pipeline::*, gpu::*, graph::Precision, picture::psnr};
fn main() {
    let gpu = Gpu::open(&Options::default()).unwrap();
    let c = Checkpoint::open(std::path::Path::new("models/tiny")).unwrap();
    let mut p = Pipeline::load(&gpu, &c, Precision::AsStored).unwrap();
    let r =
        Request { prompt: "a red cat in the snow".into(), steps: 6, width: Some(256), height: Some(256), ..Request::default() };
    let g = p.generate(&r, &mut |_| ()).unwrap();
    println!("{:?} peak {} planned {:?}", g.stages, g.peak_device_bytes >> 20, g.planned);
    g.pictures[0].save("/tmp/pics/whole256.png", None).unwrap();
    for tile in [192, 128, 96, 64] {
        let t = std::time::Instant::now();
        let q = p.decode(&g.latents, Some(tile)).unwrap();
        println!("tile {tile}: {:.1} dB {:?}", psnr(&q[0], &g.pictures[0]).unwrap(), t.elapsed());
        q[0].save(format!("/tmp/pics/tile{tile}.png"), None).unwrap();
    }
}
