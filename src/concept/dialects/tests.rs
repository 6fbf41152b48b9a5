use super::*;
use crate::concept::{LowRankSet, Update, Word};

fn array<const N: usize>(shape: [usize; N], from: f32) -> Array {
    Array::f32(shape, (0..shape.iter().product()).map(|i| from + i as f32 * 0.25).collect())
}

fn concept() -> Concept {
    let update = |from| Update { down: array([2, 6], from), up: array([5, 2], -from) };
    let window = Update { down: array([2, 3, 3, 3], 1.0), up: array([4, 2], 2.0) };
    Concept {
        name: "zorp".into(),
        words: vec![
            Word { text: "<zorp1>".into(), initializer: None, rows: array([3, 6], 0.5) },
            Word { text: "<zorp2>".into(), initializer: None, rows: array([1, 6], 1.5) },
        ],
        text: LowRankSet {
            scale: 0.5,
            layers: [("text_model.encoder.layers.0.self_attn.q_proj".to_string(), update(1.0))].into(),
        },
        unet: LowRankSet {
            scale: 1.0,
            layers: [
                ("mid_block.attentions.0.proj_in".to_string(), update(2.0)),
                ("mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0".to_string(), update(4.0)),
                ("mid_block.resnets.1.conv1".to_string(), window),
            ]
            .into(),
        },
        ..Concept::default()
    }
}

/// What a set does, whatever its scale is kept in.
fn products(set: &LowRankSet) -> Vec<(String, Array, Array)> {
    let of = |(layer, update): (&String, &Update)| (layer.clone(), update.down.clone(), gather::scaled(&update.up, set.scale));
    set.layers.iter().map(of).collect()
}

#[test]
fn every_dialect_brings_back_what_it_can_hold() {
    let folder = tempfile::tempdir().unwrap();
    let original = concept();
    for dialect in Dialect::WRITTEN {
        let path = folder.path().join(format!("{dialect}.safetensors"));
        let written = write(&original, dialect, &path).unwrap();
        let (read, _, found) = read_file(&path).unwrap();
        assert_eq!(found, dialect);
        assert_eq!(products(&read.text), products(&original.text), "{dialect}");
        assert_eq!(products(&read.unet), products(&original.unet), "{dialect}");
        let mean = |word: &Word| Word { rows: inversion::mean(word), ..word.clone() };
        match dialect {
            Dialect::Mos => assert_eq!(read, original),
            Dialect::MixOfShow => assert_eq!(read.words, original.words),
            Dialect::Kohya => assert_eq!(read.words, original.words.iter().map(mean).collect::<Vec<_>>()),
            Dialect::Peft | Dialect::TextualInversion => assert!(read.words.is_empty()),
        }
        if matches!(dialect, Dialect::Kohya | Dialect::Peft) {
            assert_eq!(written.notes.len(), 1);
            let beside: Vec<Word> = written.files[1..].iter().flat_map(|path| super::read(path).unwrap().0.words).collect();
            assert_eq!(beside, original.words.iter().map(mean).collect::<Vec<_>>());
        }
        let bytes = std::fs::read(&path).unwrap();
        write(&original, dialect, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same bytes again");
    }
    assert_eq!(inversion::mean(&original.words[0]).values()[0], 0.5 + 6.0 * 0.25);
    let words = Concept { words: original.words, ..Concept::default() };
    assert!(write(&words, Dialect::Peft, &folder.path().join("x")).unwrap_err().to_string().contains("words alone"));
}

#[test]
fn kohya_readers_find_alpha_and_windows() {
    let tensors = kohya::tensors(&concept(), true);
    let get = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone()).unwrap();
    let te = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
    assert_eq!(get(&format!("{te}.alpha")), Array::f32(&[][..], vec![1.0]), "0.5 x rank 2");
    assert_eq!(get(&format!("{te}.lora_down.weight")).shape[..], [2, 6]);
    assert_eq!(get("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight").shape[..], [2, 6, 1, 1]);
    assert_eq!(get("lora_unet_mid_block_resnets_1_conv1.lora_up.weight").shape[..], [4, 2, 1, 1]);
    let linear = kohya::tensors(&concept(), false);
    let shape = |name: &str| linear.iter().find(|(n, _)| n == name).map(|(_, a)| a.shape.to_vec());
    assert_eq!(shape("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"), Some(vec![2, 6]));
}

fn file(tensors: &[(&str, Array)], metadata: &[(&str, &str)]) -> TensorFile {
    let path = Path::new("a.safetensors");
    let views: Vec<_> = tensors.iter().map(|(name, array)| file::view(path, name.to_string(), array).unwrap()).collect();
    let metadata = metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    TensorFile::from_bytes(path, checkpoint::to_bytes(path, &views, &metadata).unwrap()).unwrap()
}

#[test]
fn scales_come_from_wherever_they_are_kept() {
    let (down, up) = (array([2, 3], 1.0), array([4, 2], 1.0));
    let scale = |names: [&str; 2], more: &[(&str, Array)], metadata: &[(&str, &str)]| {
        let mut tensors = vec![(names[0], down.clone()), (names[1], up.clone())];
        tensors.extend_from_slice(more);
        let concept = read_open(&file(&tensors, metadata)).unwrap().0;
        assert_eq!(concept.unet.layers.len(), 1);
        concept.unet.scale
    };
    let one = |value: f32| Array::f32([1], vec![value]);
    let kohya = ["lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_up.weight"];
    assert_eq!(scale(kohya, &[], &[]), 1.0);
    assert_eq!(scale(kohya, &[("lora_unet_conv_in.alpha", one(1.0))], &[]), 0.5);
    let peft = ["unet.a.b.lora_A.weight", "unet.a.b.lora_B.weight"];
    assert_eq!(scale(peft, &[], &[]), 1.0);
    assert_eq!(scale(peft, &[("unet.a.b.alpha", one(6.0))], &[]), 3.0);
    let settings = |text| [("lora_adapter_metadata", text)];
    assert_eq!(scale(peft, &[], &settings(r#"{"unet.lora_alpha": 8, "unet.r": 2}"#)), 4.0);
    assert_eq!(scale(peft, &[], &settings(r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"b": 1}}"#)), 0.5);
    let stabilised = scale(peft, &[], &settings(r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#));
    assert!((stabilised - 8.0 / 2f32.sqrt()).abs() < 1e-6);
    assert_eq!(scale(["a.lora.down.weight", "a.lora.up.weight"], &[], &[]), 1.0);
    assert_eq!(scale(["a.processor.to_q_lora.down.weight", "a.processor.to_q_lora.up.weight"], &[], &[]), 1.0);
    // Layers of different scales have them in their matrices.
    let two = file(
        &[
            (kohya[0], down.clone()),
            (kohya[1], up.clone()),
            ("lora_unet_conv_in.alpha", one(1.0)),
            ("lora_unet_conv_out.lora_down.weight", down.clone()),
            ("lora_unet_conv_out.lora_up.weight", up.clone()),
        ],
        &[],
    );
    let unet = read_open(&two).unwrap().0.unet;
    assert_eq!((unet.scale, unet.layers["conv_in"].up.values()[0], unet.layers["conv_out"].up.values()[0]), (1.0, 0.5, 1.0));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let error = |tensors: &[(&str, Array)]| {
        let error = read_open(&file(tensors, &[])).unwrap_err().to_string();
        assert!(error.starts_with("a.safetensors: "), "{error}");
        error
    };
    let matrix = |rows, columns| array([rows, columns], 1.0);
    assert!(error(&[("a.weight", matrix(2, 2)), ("b.weight", matrix(2, 2))]).contains("neither a concept nor a LoRA"));
    let loha = error(&[("lora_unet_a.hada_w1_a", matrix(2, 2)), ("lora_unet_a.hada_w1_b", matrix(2, 2))]);
    assert!(loha.contains("LoHa") && loha.contains("`lora_unet_a.hada_w1_a`"), "{loha}");
    assert!(error(&[("lora_unet_a.lokr_w1", matrix(2, 2))]).contains("LoKr"));
    assert!(error(&[("lora_unet_a.dora_scale", matrix(2, 2))]).contains("DoRA"));
    assert!(error(&[("lora_te2_a.lora_down.weight", matrix(2, 2))]).contains("XL"));
    let alone = error(&[("lora_unet_a.lora_down.weight", matrix(2, 2))]);
    assert!(alone.contains("`lora_unet_a.lora_down.weight`: the other half"), "{alone}");
    assert!(error(&[("lora_unet_a.alpha", matrix(1, 1))]).contains("an update that is not there"));
    let ranks = error(&[("unet.a.lora_A.weight", matrix(2, 3)), ("unet.a.lora_B.weight", matrix(4, 5))]);
    assert!(ranks.contains("rank 2") && ranks.contains("rank 5") && ranks.contains("`unet.a.lora_B.weight`"), "{ranks}");
    let shape = error(&[("unet.a.lora_A.weight", array([2, 3, 1], 0.0)), ("unet.a.lora_B.weight", matrix(4, 2))]);
    assert!(shape.contains("[2, 3, 1]"), "{shape}");
    let nan = error(&[("unet.a.lora_A.weight", Array::f32([1, 1], vec![f32::NAN])), ("unet.a.lora_B.weight", matrix(4, 1))]);
    assert!(nan.contains("no numbers"), "{nan}");
    let alpha = [
        ("lora_unet_a.lora_down.weight", matrix(2, 3)),
        ("lora_unet_a.lora_up.weight", matrix(3, 2)),
        ("lora_unet_a.alpha", matrix(2, 1)),
    ];
    assert!(error(&alpha).contains("one number"));
    assert!(error(&[("transformer.a.lora_A.weight", matrix(2, 2))]).contains("does not have"));
    let strange = [("a.b.lora_down.weight", matrix(2, 3)), ("a.b.lora_up.weight", matrix(3, 2)), ("x", matrix(1, 1))];
    assert!(error(&strange).contains("`x`: it has no meaning"));
    let vast = [
        ("lora_unet_a.lora_down.weight", matrix(1, 20_000)),
        ("lora_unet_a.lora_mid.weight", array([20_000, 1, 1, 1], 0.0)),
        ("lora_unet_a.lora_up.weight", matrix(1, 20_000)),
    ];
    assert!(error(&vast).contains("does not follow"));
}
