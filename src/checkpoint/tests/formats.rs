//! Models as other programs store them: pickles of trainers and of diffusers, GGUF, 8-bit weights
//! with scales; and the files that this program makes of them.
use super::fuzz::Random;
use super::*;
use crate::checkpoint::file::Storage;
use crate::checkpoint::{
    Checkpoint, Component, ModelFormat, TensorFile, TokenizerFiles, export, pickle, single,
};
use crate::watch::unwatched;
use std::io::Write;

fn files(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files").join(name)
}

fn values(component: &Component, name: &str) -> Vec<f32> {
    let view = component.tensor(name).unwrap();
    view.to_f32(0..view.len())
}

#[test]
fn a_trainers_checkpoint_is_its_model() {
    let model = Checkpoint::open(&files("sd1.ckpt")).unwrap();
    let expected = Checkpoint::open(&fixture("sd1.safetensors")).unwrap();
    assert_eq!(model.base_hash(), expected.base_hash());
    assert_eq!(model.unet.len(), expected.unet.len());
    assert_eq!(model.vae.len(), expected.vae.len());
    let report = crate::checkpoint::inspect::inspect(&files("sd1.ckpt")).unwrap();
    assert_eq!(report.what, crate::checkpoint::inspect::What::SingleFileSd1);
    assert_eq!(report.components.len(), 3);
}

/// The tensors stay in the mapped file, but for the one that lies the other way around.
#[test]
fn tensors_of_pickles_are_not_copied() {
    let bytes = std::fs::read(files("sd1.ckpt")).unwrap();
    let file = TensorFile::open_any(&files("sd1.ckpt")).unwrap();
    let copied: Vec<&str> =
        file.names().filter(|name| file.entries()[*name].range.start >= bytes.len()).collect();
    let turned =
        "state_dict.cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight";
    assert_eq!(copied, [turned]);
    let (a, b) =
        (file.tensor("state_dict.shared").unwrap(), "text_model.embeddings.token_embedding");
    let b = file.tensor(&format!("state_dict.cond_stage_model.transformer.{b}.weight")).unwrap();
    assert_eq!(a.bytes().as_ptr(), b.bytes().as_ptr(), "one storage");
}

#[test]
fn folders_with_pickles_are_read() {
    let copy = folder_copy();
    let expected = Checkpoint::open(&fixture("folder")).unwrap().hash();
    for (from, network, old, new) in [
        ("unet.bin", "unet", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("text.bin", "text_encoder", "model.safetensors", "pytorch_model.bin"),
    ] {
        let inside = copy.path().join(network);
        std::fs::copy(files(from), inside.join(new)).unwrap();
        std::fs::remove_file(inside.join(old)).unwrap();
    }
    assert_eq!(Checkpoint::open(copy.path()).unwrap().hash(), expected);
    // Of another name, and damaged.
    let unet = copy.path().join("unet");
    let (bin, other) = (unet.join("diffusion_pytorch_model.bin"), unet.join("weights.pt"));
    std::fs::rename(&bin, &other).unwrap();
    assert_eq!(Checkpoint::open(copy.path()).unwrap().hash(), expected);
    let mut bytes = std::fs::read(&other).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&other, bytes).unwrap();
    let error = Checkpoint::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("weights.pt") && error.contains("checksum"), "{error}");
    std::fs::remove_file(&other).unwrap();
    let error = Checkpoint::open(copy.path()).unwrap_err().to_string();
    assert!(error.contains("unet") && error.contains("diffusion_pytorch_model"), "{error}");
}

#[test]
fn archives_that_were_packed_again_are_unpacked() {
    let plain = std::fs::read(files("unet.bin")).unwrap();
    let packed = repacked(&plain);
    assert!(packed.len() < plain.len());
    let (a, b) = (
        pickle::read(Path::new("a.bin"), &plain).unwrap(),
        pickle::read(Path::new("b.bin"), &packed).unwrap(),
    );
    assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
    for name in a.names() {
        assert_eq!(a.tensor(name).unwrap().bytes(), b.tensor(name).unwrap().bytes(), "{name}");
    }
    // One that claims to be more than it is.
    let mut bomb = packed;
    let at = bomb.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    bomb[at + 24..at + 28].copy_from_slice(&(1u32 << 30).to_le_bytes());
    let error = pickle::read(Path::new("b.bin"), &bomb).unwrap_err().to_string();
    assert!(error.contains("more than the file accounts for"), "{error}");
}

/// The same archive with its entries packed by deflate.
fn repacked(plain: &[u8]) -> Vec<u8> {
    let (mut out, mut directory, mut at, mut count) = (Vec::new(), Vec::new(), 0usize, 0u16);
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([plain[at], plain[at + 1]]));
    let u32_at = |at: usize| u32::from_le_bytes(plain[at..at + 4].try_into().unwrap());
    let end = plain.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let mut record = u32_at(end + 16) as usize;
    while plain[record..].starts_with(b"PK\x01\x02") {
        let (name, extra, comment) =
            (u16_at(record + 28), u16_at(record + 30), u16_at(record + 32));
        let header = u32_at(record + 42) as usize;
        let length = u32_at(record + 24) as usize;
        let start = header + 30 + u16_at(header + 26) + u16_at(header + 28);
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain[start..start + length]).unwrap();
        let data = encoder.finish().unwrap();
        let text = &plain[record + 46..record + 46 + name];
        let common = |signature: &[u8], bytes: &mut Vec<u8>| {
            bytes.extend(signature);
            bytes.extend(20u16.to_le_bytes());
            bytes.extend([0, 0]);
            bytes.extend(8u16.to_le_bytes());
            bytes.extend([0; 4]);
            bytes.extend(&plain[record + 16..record + 20]);
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend((length as u32).to_le_bytes());
            bytes.extend((name as u16).to_le_bytes());
        };
        common(b"PK\x03\x04", &mut out);
        out.extend([0, 0]);
        out.extend(text);
        out.extend(&data);
        directory.extend(b"");
        common(b"PK\x01\x02\x14\x00", &mut directory);
        directory.extend([0; 12]);
        directory.extend((at as u32).to_le_bytes());
        directory.extend(text);
        at = out.len();
        count += 1;
        record += 46 + name + extra + comment;
    }
    let place = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(place.to_le_bytes());
    out.extend([0, 0]);
    out
}

#[test]
fn a_gguf_model_means_what_the_gguf_package_says() {
    let expected = TensorFile::open(&files("blocks.safetensors")).unwrap();
    let file = TensorFile::open_any(&files("sd1.gguf")).unwrap();
    let mut quantised = 0;
    for name in file.names() {
        let view = file.tensor(name).unwrap();
        let Some(meant) = expected.tensor(&format!("gguf.{name}")) else {
            assert!(!view.dtype().is_quantised(), "{name}");
            continue;
        };
        assert_eq!(view.shape(), meant.shape(), "{name}");
        assert_eq!(view.to_f32(0..view.len()), meant.to_f32(0..meant.len()), "{name}");
        quantised += 1;
    }
    assert!(quantised > 20, "{quantised}");
    let model = Checkpoint::open(&files("sd1.gguf")).unwrap();
    let exact = Checkpoint::open(&fixture("sd1.safetensors")).unwrap();
    for (found, wanted) in [
        (&model.unet, &exact.unet),
        (&model.vae, &exact.vae),
        (&model.text_encoder, &exact.text_encoder),
    ] {
        assert_eq!(found.names().collect::<Vec<_>>(), wanted.names().collect::<Vec<_>>());
        assert_eq!(found.config, wanted.config);
        for name in found.names() {
            let (a, b) = (values(found, name), values(wanted, name));
            let most = b.iter().fold(0f32, |most, v| most.max(v.abs()));
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(worst <= 0.13 * most, "{name}: {worst} of {most}");
        }
    }
    assert!(model.notes.is_empty(), "{:?}", model.notes);
}

#[test]
fn models_are_written_as_one_file_that_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let model = Checkpoint::open(&fixture("folder")).unwrap();
    let write = |dtype, format, name: &str| {
        let path = place.path().join(name);
        let exported = export(&model, dtype, format, &path, &mut unwatched).unwrap();
        (exported, Checkpoint::open(&path).unwrap())
    };
    // f16 is what the model is stored in: nothing changes.
    for (format, name) in
        [(ModelFormat::Safetensors, "a.safetensors"), (ModelFormat::Gguf, "a.gguf")]
    {
        let (_, again) = write(DType::F16, format, name);
        assert_eq!(again.base_hash(), model.base_hash(), "{name}");
        assert_eq!((&again.scheduler, &again.unet.config), (&model.scheduler, &model.unet.config));
        assert!(matches!(&again.tokenizer, TokenizerFiles::Texts(texts) if texts.len() == 1));
        assert!(again.notes.is_empty(), "{:?}", again.notes);
        let bytes = std::fs::read(place.path().join(name)).unwrap();
        write(DType::F16, format, name);
        assert_eq!(std::fs::read(place.path().join(name)).unwrap(), bytes, "the same bytes");
    }
    let (exported, again) = write(DType::Q8_0, ModelFormat::Gguf, "q8.gguf");
    assert!(exported.types[&DType::Q8_0] > 10, "{:?}", exported.types);
    let wide = "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight";
    assert_eq!(again.unet.dtype(wide), Some(DType::Q8_0));
    assert_eq!(again.unet.dtype("time_embedding.linear_2.weight"), Some(DType::F16));
    assert_eq!(again.unet.dtype("conv_norm_out.weight"), Some(DType::F32));
    let (a, b) = (values(&again.unet, wide), values(&model.unet, wide));
    let most = b.iter().fold(0f32, |most, v| most.max(v.abs()));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 0.005 * most));
    // Its rows are too short for blocks of 256.
    let (exported, _) = write(DType::Q4K, ModelFormat::Gguf, "q4k.gguf");
    assert!(exported.notes[0].contains("Q4_K") && exported.notes[0].contains("Q5_0"));
    // One of blocks again: they are kept as they are.
    let q8 = Checkpoint::open(&place.path().join("q8.gguf")).unwrap();
    let path = place.path().join("again.gguf");
    export(&q8, DType::Q8_0, ModelFormat::Gguf, &path, &mut unwatched).unwrap();
    let once_more = Checkpoint::open(&path).unwrap();
    assert_eq!(once_more.base_hash(), q8.base_hash());
}

/// Names in a file's metadata are no places: none but those of a tokenizer's files count.
#[test]
fn a_files_metadata_name_no_other_files() {
    let all = tensors(&fixture("sd1.safetensors"));
    let metadata = BTreeMap::from([
        ("mixofshow.file.tokenizer/../../x".to_string(), "a".to_string()),
        ("mixofshow.file.tokenizer/merges.txt".to_string(), "b".to_string()),
    ]);
    let bytes = crate::checkpoint::to_bytes(Path::new("m"), &all, &metadata).unwrap();
    let model = single::open(TensorFile::from_bytes(Path::new("m"), bytes).unwrap()).unwrap();
    match &model.tokenizer {
        TokenizerFiles::Texts(texts) => {
            assert_eq!(texts.keys().collect::<Vec<_>>(), ["merges.txt"])
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_of_8_bits_have_scales() {
    let name = "model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.2";
    let open = |scale: &str, values: Vec<f32>, shape: Vec<usize>, more: &[(&str, &str)]| {
        let mut all = tensors(&fixture("sd1.safetensors"));
        all.retain(|(n, _)| *n != format!("{name}.weight"));
        let weight = TensorView::new(
            DType::I8,
            vec![16, 64],
            (0..1024).map(|i| (i % 251) as u8).collect::<Vec<_>>(),
        );
        all.push((format!("{name}.weight"), weight.unwrap()));
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = TensorView::new(DType::F32, shape, bytes).unwrap();
        all.push((format!("{name}.{scale}"), view));
        for (ending, text) in more {
            let view = TensorView::new(DType::U8, vec![text.len()], text.as_bytes().to_vec());
            all.push((format!("{name}.{ending}"), view.unwrap()));
        }
        let file = TensorFile::from_bytes(Path::new("m"), to_bytes(&all)).unwrap();
        single::open(file).map_err(|e| e.to_string())
    };
    let canonical = "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight";
    let number = |i: usize| f32::from((i % 251) as u8 as i8);
    let whole = open("weight_scale", vec![0.5], vec![1], &[]).unwrap();
    let found = values(&whole.unet, canonical);
    assert_eq!(found, (0..1024).map(|i| number(i) * 0.5).collect::<Vec<_>>());
    let rows: Vec<f32> = (0..16).map(|i| 0.25 + i as f32).collect();
    let of_rows = |i: usize| rows[i / 64];
    for (scale, shape) in [("weight_scale", vec![16, 1]), ("scale_weight", vec![16])] {
        let format = [("comfy_quant", r#"{"format": "int8_tensorwise"}"#)];
        let model = open(scale, rows.clone(), shape, &format).unwrap();
        let found = values(&model.unet, canonical);
        assert_eq!(found, (0..1024).map(|i| number(i) * of_rows(i)).collect::<Vec<_>>());
    }
    let model = open("SCB", rows.clone(), vec![16], &[("weight_format", "0")]).unwrap();
    let found = values(&model.unet, canonical);
    let expected = (0..1024).map(|i| number(i) * (of_rows(i) / 127.0));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let error = |result: Result<Checkpoint, String>| result.err().unwrap();
    let wrong = error(open("weight_scale", vec![1.0; 8], vec![8], &[]));
    assert!(wrong.contains(&format!("`{name}.weight_scale`")) && wrong.contains("[8]"), "{wrong}");
    let rotated = r#"{"format": "int8_tensorwise", "convrot": true}"#;
    let wrong = error(open("weight_scale", vec![1.0], vec![1], &[("comfy_quant", rotated)]));
    assert!(wrong.contains("rotated"), "{wrong}");
    let wrong = error(open("weight_scale", vec![1.0], vec![1], &[("comfy_quant", "{}")]));
    assert!(wrong.contains("are not read"), "{wrong}");
}

fn gguf(bytes: Vec<u8>) -> Result<TensorFile, String> {
    TensorFile::gguf(Path::new("a.gguf"), Storage::Owned(bytes)).map_err(|e| e.to_string())
}

/// A GGUF file with one tensor.
fn small(version: u32, kind: u32, dims: &[u64], place: u64, data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(3u64.to_le_bytes());
    bytes.extend(b"a.b");
    bytes.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(place.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

#[test]
fn broken_gguf_files_are_refused_by_name() {
    assert_eq!(gguf(small(3, 8, &[32, 2], 0, 68)).unwrap().tensor("a.b").unwrap().shape(), [2, 32]);
    assert!(gguf(small(2, 0, &[3], 0, 12)).is_ok());
    for (bytes, says) in [
        (small(1, 0, &[3], 0, 12), "version 1"),
        (small(3u32.swap_bytes(), 0, &[3], 0, 12), "big-endian"),
        (small(3, 8, &[31, 2], 0, 68), "rows of 31"),
        (small(3, 10, &[256], 0, 84), "Q2_K is not supported"),
        (small(3, 99, &[256], 0, 84), "number 99"),
        (small(3, 0, &[3], 0, 8), "`a.b`: its bytes end at 12, but there are 8"),
        (small(3, 0, &[3], 8, 40), "multiple of 32"),
        (small(3, 0, &[u64::MAX, 8], 0, 40), "impossibly large"),
        (small(3, 0, &[1, 1, 1, 1, 1], 0, 40), "5 dimensions"),
        (small(3, 0, &[3], u64::MAX - 31, 40), "`a.b`: its bytes end at"),
    ] {
        let error = gguf(bytes).unwrap_err();
        assert!(error.starts_with("a.gguf: ") && error.contains(says), "{error}");
    }
    let whole = small(3, 0, &[3], 0, 12);
    for length in 0..whole.len() {
        let error = gguf(whole[..length].to_vec()).unwrap_err();
        assert!(error.starts_with("a.gguf: "), "{error}");
    }
}

/// Whatever the damage: an error that names the file, or something that can be read; no more memory
/// than the file accounts for.
#[test]
fn damaged_files_of_other_formats_never_panic() {
    type Open = fn(Vec<u8>) -> Result<TensorFile, String>;
    let pickled: Open = |bytes| {
        pickle::read(Path::new("a.ckpt"), &bytes).map_err(|e| {
            let text = e.to_string();
            assert!(text.starts_with("a.ckpt: "), "{text}");
            text
        })
    };
    let read = |name: &str| std::fs::read(files(name)).unwrap();
    for (valid, open, header) in [
        (read("sd1.gguf"), gguf as Open, 40_000),
        (read("sd1.ckpt"), pickled, 0),
        (read("text.bin"), pickled, 3_000),
        (repacked(&read("unet.bin")), pickled, 0),
    ] {
        let mut random = Random(11);
        let (mut opened, runs) = (0, 150);
        for _ in 0..runs {
            let mut bytes = valid.clone();
            for _ in 0..=random.below(3) {
                // At the beginning, where the claims stand, and at the end, where a directory is.
                let near = match (header, random.below(2)) {
                    (0, 0) => random.below(3_000),
                    (0, _) => bytes.len().saturating_sub(1 + random.below(20_000)),
                    (header, _) => random.below(header),
                };
                let at = near.min(bytes.len().saturating_sub(1));
                match random.below(5) {
                    0 => bytes.truncate(random.below(bytes.len().max(1))),
                    1 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
                    2 => bytes.iter_mut().skip(at).take(8).for_each(|b| *b = 0xff),
                    _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
                }
            }
            let Ok(file) = open(bytes) else { continue };
            opened += 1;
            for name in file.names() {
                let view = file.tensor(name).unwrap();
                assert_eq!(view.to_f32(0..view.len()).len(), view.len());
            }
            let _ = single::open(file);
        }
        assert!(opened < runs, "{opened}");
    }
}
