//! Random damage to valid files must give an error or a readable file, never a panic.
use super::*;
use crate::checkpoint::{Checkpoint, TensorFile, single};
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};

/// A small generator (xorshift64*), so that a failure can be repeated.
pub(super) struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }
}

/// Looks at everything in a file.
fn walk(bytes: Vec<u8>) -> bool {
    let Ok(file) = TensorFile::from_bytes(Path::new("fuzz"), bytes) else {
        return false;
    };
    for name in file.names() {
        let view = file.tensor(name).unwrap();
        assert_eq!(view.to_f32(0..view.len()).len(), view.shape().iter().product::<usize>());
    }
    let _ = crate::checkpoint::inspect::describe_file(&file);
    if let Ok(model) = single::open(file) {
        let _ = UNetConfig::from_json(&model.unet.config, &model.path);
        let _ = VaeConfig::from_json(&model.vae.config, &model.path);
        let _ = ClipTextConfig::from_json(&model.text_encoder.config, &model.path);
    }
    true
}

fn damage(bytes: &mut Vec<u8>, header: usize, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(header.min(bytes.len()).max(1));
        match random.below(6) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
            // Digits and punctuation make other valid headers far more often than any byte does.
            2 | 3 => {
                let new = b"0123456789{}[]\",:.-eFI "[random.below(23)];
                bytes.iter_mut().skip(at).take(1).for_each(|b| *b = new);
            }
            4 => drop(bytes.drain(at.min(bytes.len())..(at + random.below(9)).min(bytes.len()))),
            _ => bytes.extend(std::iter::repeat_n(0, random.below(9))),
        }
    }
}

#[test]
fn damaged_small_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let all: Owned =
        [DType::F16, DType::BF16, DType::F32, DType::F64, DType::I64, DType::U8, DType::F8E4M3]
            .iter()
            .enumerate()
            .map(|(i, &t)| (format!("t{i}.weight"), counting(t, &[i, 3])))
            .collect();
    write(&path, &all, &BTreeMap::from([("k".into(), "v".into())])).unwrap();
    let valid = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*valid.first_chunk().unwrap()) as usize;
    assert!(walk(valid.clone()));
    let mut random = Random(1);
    let mut opened = 0;
    for _ in 0..20_000 {
        let mut bytes = valid.clone();
        damage(&mut bytes, header, &mut random);
        opened += usize::from(walk(bytes));
    }
    // Damage to names and metadata leaves a readable file: both outcomes must have been tried.
    assert!((100..19_900).contains(&opened), "{opened}");
}

#[test]
fn damaged_models_never_panic() {
    for name in ["sd1.safetensors", "sd2.safetensors"] {
        // Tensors cut down to a few rows keep this fast; the loaders look at names and shapes, not
        // at values.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let small: Owned = tensors(&fixture(name))
            .into_iter()
            .map(|(n, v)| {
                let shape: Vec<usize> = v.shape().iter().map(|&d| d.min(2)).collect();
                (n, counting(v.dtype(), &shape))
            })
            .collect();
        write(&path, &small, &BTreeMap::new()).unwrap();
        let valid = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(*valid.first_chunk().unwrap()) as usize;
        let mut random = Random(7);
        let mut opened = 0;
        for _ in 0..400 {
            let mut bytes = valid.clone();
            damage(&mut bytes, header, &mut random);
            opened += usize::from(walk(bytes));
        }
        assert!(opened > 10, "{opened}");
    }
}

#[test]
fn names_of_any_kind_never_panic() {
    let parts = [
        "model.diffusion_model",
        "first_stage_model",
        "cond_stage_model",
        "transformer",
        "model",
        "input_blocks",
        "middle_block",
        "output_blocks",
        "0",
        "1",
        "99999999999999999999",
        "18446744073709551615",
        "in_layers",
        "op",
        "conv",
        "decoder",
        "encoder",
        "up",
        "down",
        "block",
        "attn",
        "attn_1",
        "mid",
        "resblocks",
        "in_proj_weight",
        "weight",
        "",
        "é",
        "lora_down",
        "alpha",
        "lora_unet_a",
        "hada_w1_a",
        "unet",
        "lora_A",
        "processor",
        "text_model",
        "down_blocks",
        "attentions",
        "query",
        "attn2.to_k",
    ];
    let mut random = Random(3);
    for _ in 0..3000 {
        let mut all = Owned::new();
        for i in 0..=random.below(6) {
            let name: Vec<_> =
                (0..=random.below(8)).map(|_| parts[random.below(parts.len())]).collect();
            let shape: Vec<usize> = (0..random.below(5)).map(|_| random.below(4)).collect();
            let name =
                if i < 3 { format!("{}.{}", parts[i], name.join(".")) } else { name.join(".") };
            if all.iter().all(|(n, _)| *n != name) {
                all.push((name, counting(DType::F16, &shape)));
            }
        }
        walk(super::to_bytes(&all));
    }
}

#[test]
fn damaged_folders_never_panic() {
    let copy = folder_copy();
    let mut random = Random(5);
    for name in [
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "vae/diffusion_pytorch_model.safetensors.index.fp16.json",
    ] {
        let path = copy.path().join(name);
        let valid = std::fs::read(&path).unwrap();
        for _ in 0..150 {
            let mut bytes = valid.clone();
            damage(&mut bytes, valid.len(), &mut random);
            std::fs::write(&path, bytes).unwrap();
            if let Ok(model) = Checkpoint::open(copy.path()) {
                let _ = UNetConfig::from_json(&model.unet.config, &model.path);
                let _ = VaeConfig::from_json(&model.vae.config, &model.path);
                let _ = ClipTextConfig::from_json(&model.text_encoder.config, &model.path);
            }
        }
        std::fs::write(&path, valid).unwrap();
    }
}
