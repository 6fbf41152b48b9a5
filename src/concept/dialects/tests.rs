use super::*;
use crate::concept::{Lora, Update, UpdateSet, Word};

fn open_quietly(file: &TensorFile) -> Result<(Concept, Vec<String>, Dialect)> {
    read_open(file, &mut unwatched_parts)
}

fn array<const N: usize>(shape: [usize; N], from: f32) -> Array {
    Array::f32(shape, (0..shape.iter().product()).map(|i| from + i as f32 * 0.25).collect())
}

/// What stands for a word in a textual inversion.
fn mean(vectors: &[&Word]) -> Array {
    inversion::tensors(vectors).remove(0).1
}

fn concept() -> Concept {
    let update = |from| Update::Lora(Lora { down: array([2, 6], from), up: array([5, 2], -from) });
    let window = Update::Lora(Lora { down: array([2, 3, 3, 3], 1.0), up: array([4, 2], 2.0) });
    Concept {
        name: "zorp".into(),
        words: vec![
            Word::new("<zorp1>", array([3, 6], 0.5)),
            Word::new("<zorp2>", array([1, 6], 1.5)),
        ],
        updates: [
            (
                Network::TextEncoder,
                UpdateSet::scaled(
                    0.5,
                    [("text_model.encoder.layers.0.self_attn.q_proj".to_string(), update(1.0))],
                ),
            ),
            (
                Network::UNet,
                UpdateSet::new([
                    ("mid_block.attentions.0.proj_in".to_string(), update(2.0)),
                    (
                        "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0".to_string(),
                        update(4.0),
                    ),
                    ("mid_block.resnets.1.conv1".to_string(), window),
                ]),
            ),
        ]
        .into(),
        ..Concept::default()
    }
}

/// The first number of an update's second factor.
fn number(set: &UpdateSet, layer: &str) -> f32 {
    set.layers[layer].arrays()[1].values()[0]
}

/// What a set does, whatever its scale is kept in.
fn products(set: &UpdateSet) -> Vec<(String, Array, Array)> {
    let of = |(layer, update): (&String, &Update)| match update.scaled(set.scale) {
        Update::Lora(Lora { down, up }) => (layer.clone(), down, up),
        other => panic!("{}", other.kind()),
    };
    set.layers.iter().map(of).collect()
}

#[test]
fn every_dialect_brings_back_what_it_can_hold() {
    let folder = tempfile::tempdir().unwrap();
    let original = concept();
    for dialect in Dialect::WRITTEN {
        let path = folder.path().join(format!("{dialect}.safetensors"));
        let written = write(&original, dialect, false, &path).unwrap();
        let (read, _, found) = read_file(&path).unwrap();
        assert_eq!(found, dialect);
        assert_eq!(
            products(read.updates.of(Network::TextEncoder)),
            products(original.updates.of(Network::TextEncoder)),
            "{dialect}"
        );
        assert_eq!(
            products(read.updates.of(Network::UNet)),
            products(original.updates.of(Network::UNet)),
            "{dialect}"
        );
        let mean = |word: &Word| Word::new(&*word.text, mean(&[word]));
        match dialect {
            Dialect::Mos => assert_eq!(read, original),
            Dialect::MixOfShow => assert_eq!(read.words, original.words),
            // diffusers refuses a file that has more than the LoRA.
            _ => assert!(read.words.is_empty()),
        }
        if matches!(dialect, Dialect::Kohya | Dialect::Peft) {
            assert_eq!(written.notes.len(), 1);
            let beside: Vec<Word> = written.files[1..]
                .iter()
                .flat_map(|path| super::read(path).unwrap().0.words)
                .collect();
            assert_eq!(beside, original.words.iter().map(mean).collect::<Vec<_>>());
        }
        let bytes = std::fs::read(&path).unwrap();
        write(&original, dialect, false, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "the same bytes again");
    }
    // Web UIs find the words in the file itself, where that is asked for.
    let bundled = folder.path().join("bundled.safetensors");
    write(&original, Dialect::Kohya, true, &bundled).unwrap();
    let means: Vec<Word> =
        original.words.iter().map(|word| Word::new(&*word.text, mean(&[word]))).collect();
    assert_eq!(read(&bundled).unwrap().0.words, means);
    assert_eq!(mean(&[&original.words[0]]).values()[0], 0.5 + 6.0 * 0.25);
    let words = Concept { words: original.words, ..Concept::default() };
    for dialect in [Dialect::Peft, Dialect::Kohya] {
        let error =
            write(&words, dialect, false, &folder.path().join("x")).unwrap_err().to_string();
        assert!(error.contains("words alone"), "{error}");
    }
}

#[test]
fn kohya_readers_find_alpha_and_windows() {
    let tensors = kohya::tensors(&concept(), true, false).unwrap();
    let get = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, a)| a.clone()).unwrap();
    let te = "lora_te_text_model_encoder_layers_0_self_attn_q_proj";
    assert_eq!(get(&format!("{te}.alpha")), Array::f32(&[][..], vec![1.0]), "0.5 x rank 2");
    assert_eq!(get(&format!("{te}.lora_down.weight")).shape[..], [2, 6]);
    assert_eq!(
        get("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight").shape[..],
        [2, 6, 1, 1]
    );
    assert_eq!(get("lora_unet_mid_block_resnets_1_conv1.lora_up.weight").shape[..], [4, 2, 1, 1]);
    let linear = kohya::tensors(&concept(), false, false).unwrap();
    let shape = |name: &str| linear.iter().find(|(n, _)| n == name).map(|(_, a)| a.shape.to_vec());
    assert_eq!(
        shape("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"),
        Some(vec![2, 6])
    );
}

fn file(tensors: &[(&str, Array)], metadata: &[(&str, &str)]) -> TensorFile {
    let path = Path::new("a.safetensors");
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, array)| tensors::view(path, name.to_string(), array).unwrap())
        .collect();
    let metadata =
        metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    TensorFile::from_bytes(path, checkpoint::to_bytes(path, &views, &metadata).unwrap()).unwrap()
}

#[test]
fn scales_come_from_wherever_they_are_kept() {
    let (down, up) = (array([2, 3], 1.0), array([4, 2], 1.0));
    let read_with = |names: [&str; 2], more: &[(&str, Array)], metadata: &[(&str, &str)]| {
        let mut tensors = vec![(names[0], down.clone()), (names[1], up.clone())];
        tensors.extend_from_slice(more);
        let (concept, notes, _) = open_quietly(&file(&tensors, metadata)).unwrap();
        assert_eq!(concept.updates.of(Network::UNet).layers.len(), 1);
        (concept.updates.of(Network::UNet).scale, notes)
    };
    let scale = |names, more: &[(&str, Array)], metadata: &[(&str, &str)]| {
        read_with(names, more, metadata).0
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
    assert_eq!(
        scale(peft, &[], &settings(r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"b": 1}}"#)),
        0.5
    );
    let stabilised =
        scale(peft, &[], &settings(r#"{"unet.lora_alpha": 8, "unet.use_rslora": true}"#));
    assert!((stabilised - 8.0 / 2f32.sqrt()).abs() < 1e-6);
    // What is said of it.
    let told = |metadata: &[(&str, &str)]| read_with(peft, &[], metadata).1.join("; ");
    assert!(
        told(&[]).contains("no alpha was found") && told(&[]).contains("factor 1"),
        "{}",
        told(&[])
    );
    let by = told(&settings(r#"{"unet.lora_alpha": 8, "unet.r": 2}"#));
    assert_eq!(by, "alpha is 8, by the metadata `lora_adapter_metadata`");
    let ranks = told(&settings(r#"{"unet.lora_alpha": 8, "unet.r": 16}"#));
    assert!(ranks.contains("rank 16 of `a.b`") && ranks.contains("rank 2"), "{ranks}");
    assert_eq!(read_with(kohya, &[("lora_unet_conv_in.alpha", one(1.0))], &[]).1, [""; 0]);
    // kohya's own metadata, where a file has lost its alphas.
    let trained = [("ss_network_alpha", "1.0"), ("ss_network_dim", "2")];
    assert_eq!(scale(kohya, &[], &trained), 0.5);
    assert_eq!(
        scale(kohya, &[("lora_unet_conv_in.alpha", one(6.0))], &trained),
        3.0,
        "the file's own comes first"
    );
    assert_eq!(scale(kohya, &[], &[("ss_network_alpha", "None")]), 1.0);
    assert_eq!(scale(["a.lora.down.weight", "a.lora.up.weight"], &[], &[]), 1.0);
    assert_eq!(
        scale(["a.processor.to_q_lora.down.weight", "a.processor.to_q_lora.up.weight"], &[], &[]),
        1.0
    );
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
    let concept = open_quietly(&two).unwrap().0;
    let unet = concept.updates.of(Network::UNet);
    assert_eq!((unet.scale, number(unet, "conv_in"), number(unet, "conv_out")), (1.0, 0.5, 1.0));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let error = |tensors: &[(&str, Array)]| {
        let error = open_quietly(&file(tensors, &[])).unwrap_err().to_string();
        assert!(error.starts_with("a.safetensors: "), "{error}");
        error
    };
    let matrix = |rows, columns| array([rows, columns], 1.0);
    assert!(
        error(&[("a.weight", matrix(2, 2)), ("b.weight", matrix(2, 2))])
            .contains("neither a concept nor a LoRA")
    );
    let loha =
        error(&[("lora_unet_a.hada_w1_a", matrix(2, 2)), ("lora_unet_a.hada_w1_b", matrix(2, 2))]);
    assert!(loha.contains("`lora_unet_a.hada_w1_a`: `hada_w2_a`, which goes with it"), "{loha}");
    let lokr = error(&[("lora_unet_a.lokr_w1", matrix(2, 2))]);
    assert!(lokr.contains("`lora_unet_a.lokr_w1`: `lokr_w2_a`, which goes with it"), "{lokr}");
    let dora = error(&[("lora_unet_a.dora_scale", matrix(2, 2))]);
    assert!(dora.contains("`lora_unet_a.dora_scale`: it belongs to an update"), "{dora}");
    let both = error(&[
        ("lora_unet_a.diff", matrix(2, 2)),
        ("lora_unet_a.lora_down.weight", matrix(2, 2)),
        ("lora_unet_a.lora_up.weight", matrix(2, 2)),
    ]);
    assert!(both.contains("`lora_unet_a.diff`: it is part of a full difference"), "{both}");
    let halves = error(&[
        ("lora_unet_a.hada_w1_a", matrix(4, 2)),
        ("lora_unet_a.hada_w1_b", matrix(2, 3)),
        ("lora_unet_a.hada_w2_a", matrix(4, 2)),
        ("lora_unet_a.hada_w2_b", matrix(2, 5)),
    ]);
    assert!(halves.contains("[4, 3]") && halves.contains("[4, 5]"), "{halves}");
    let lengths = error(&[
        ("lora_unet_a.lora_down.weight", matrix(2, 3)),
        ("lora_unet_a.lora_up.weight", matrix(4, 2)),
        ("lora_unet_a.dora_scale", matrix(4, 3)),
    ]);
    assert!(lengths.contains("`lora_unet_a.dora_scale`: shape [4, 3]"), "{lengths}");
    let side = error(&[("lora_unet_a.weight", matrix(1, 3))]);
    assert!(side.contains("`lora_unet_a.weight`: `on_input` beside it is missing"), "{side}");
    let second = error(&[("lora_te2_a.lora_down.weight", matrix(2, 2))]);
    assert!(second.contains("`lora_te2_a.lora_down.weight`: the other half"), "{second}");
    let alone = error(&[("lora_unet_a.lora_down.weight", matrix(2, 2))]);
    assert!(alone.contains("`lora_unet_a.lora_down.weight`: the other half"), "{alone}");
    assert!(error(&[("lora_unet_a.alpha", matrix(1, 1))]).contains("an update that is not there"));
    let ranks =
        error(&[("unet.a.lora_A.weight", matrix(2, 3)), ("unet.a.lora_B.weight", matrix(4, 5))]);
    assert!(
        ranks.contains("rank 2")
            && ranks.contains("rank 5")
            && ranks.contains("`unet.a.lora_B.weight`"),
        "{ranks}"
    );
    let shape = error(&[
        ("unet.a.lora_A.weight", array([2, 3, 1], 0.0)),
        ("unet.a.lora_B.weight", matrix(4, 2)),
    ]);
    assert!(shape.contains("[2, 3, 1]"), "{shape}");
    let nan = error(&[
        ("unet.a.lora_A.weight", Array::f32([1, 1], vec![f32::NAN])),
        ("unet.a.lora_B.weight", matrix(4, 1)),
    ]);
    assert!(nan.contains("no numbers"), "{nan}");
    let alpha = [
        ("lora_unet_a.lora_down.weight", matrix(2, 3)),
        ("lora_unet_a.lora_up.weight", matrix(3, 2)),
        ("lora_unet_a.alpha", matrix(2, 1)),
    ];
    assert!(error(&alpha).contains("one number"));
    for (name, kind) in [
        ("unet.a.b.oft_blocks", "an OFT"),
        ("base_model.model.a.b.vera_lambda_b", "a VeRA"),
        ("diffusion_model.a.b.boft_blocks", "a BOFT"),
        ("lycoris_a.oft_blocks", "an OFT"),
    ] {
        let found = error(&[(name, matrix(2, 2))]);
        assert!(found.contains(&format!("`{name}`: the change is {kind}")), "{found}");
    }
    let twice = [
        ("lora_unet_conv_in.lora_down.weight", matrix(2, 3)),
        ("lora_unet_input_blocks_0_0.lora_down.weight", matrix(2, 3)),
    ];
    let found = error(&twice);
    assert!(
        found.contains("`lora_unet_input_blocks_0_0.lora_down.weight`: it means the same as"),
        "{found}"
    );
    let nowhere = error(&[("lora_unet_input_blocks_20_0_op.lora_down.weight", matrix(2, 3))]);
    assert!(
        nowhere.contains("`lora_unet_input_blocks_20_0_op.lora_down.weight`")
            && nowhere.contains("no place"),
        "{nowhere}"
    );
    let vectors = error(&[("clip_l", matrix(1, 768)), ("clip_g", matrix(2, 1280))]);
    assert!(vectors.contains("`clip_g`: 2 vectors"), "{vectors}");
    let other = error(&[("text_encoders.t5xxl.a.lora_down.weight", matrix(2, 2))]);
    assert!(other.contains("XL has"), "{other}");
    assert!(error(&[("transformer.a.lora_A.weight", matrix(2, 2))]).contains("does not have"));
    let strange = [
        ("a.b.lora_down.weight", matrix(2, 3)),
        ("a.b.lora_up.weight", matrix(3, 2)),
        ("x", matrix(1, 1)),
    ];
    assert!(error(&strange).contains("`x`: it has no meaning"));
    let vast = [
        ("lora_unet_a.lora_down.weight", matrix(1, 20_000)),
        ("lora_unet_a.lora_mid.weight", array([20_000, 1, 1, 1], 0.0)),
        ("lora_unet_a.lora_up.weight", matrix(1, 20_000)),
    ];
    assert!(error(&vast).contains("does not follow"));
}

/// The only layers of a LoRA, by the name that a program gives to their tensors.
fn layers_of(name: &str, [down, up]: [&str; 2]) -> [Vec<String>; 2] {
    let tensors = [format!("{name}{down}"), format!("{name}{up}")];
    let (concept, ..) = open_quietly(&file(
        &[(&tensors[0], array([2, 3], 1.0)), (&tensors[1], array([4, 2], 1.0))],
        &[],
    ))
    .unwrap();
    [Network::TextEncoder, Network::UNet]
        .map(|network| concept.updates.of(network).layers.keys().cloned().collect())
}

#[test]
fn layers_are_found_under_every_programs_names() {
    const KOHYA: [&str; 2] = [".lora_down.weight", ".lora_up.weight"];
    const PEFT: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];
    let q = "text_model.encoder.layers.0.self_attn.q_proj";
    let to_q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    for (name, endings) in [
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("lora_te_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("lora_te1_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("lora_te_text_encoder_text_model_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("lycoris_te_text_model_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("lycoris_text_model_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("lycoris_encoder_layers_0_self_attn_q_proj", KOHYA),
        ("text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj", KOHYA),
        ("base_model.model.encoder.layers.0.self_attn.q_proj", PEFT),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", PEFT),
    ] {
        assert_eq!(layers_of(name, endings), [vec![q.to_string()], vec![]], "{name}");
    }
    for (name, endings) in [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", KOHYA),
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", KOHYA),
        ("lycoris_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", KOHYA),
        ("lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", KOHYA),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q", KOHYA),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q", PEFT),
        ("model.diffusion_model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", KOHYA),
        ("unet.input_blocks.1.1.transformer_blocks.0.attn1.to_q", PEFT),
    ] {
        assert_eq!(layers_of(name, endings), [vec![], vec![to_q.to_string()]], "{name}");
    }
    let alpha = [
        ("diffusion_model.input_blocks.0.0.lora_down.weight", array([2, 3], 1.0)),
        ("diffusion_model.input_blocks.0.0.lora_up.weight", array([4, 2], 1.0)),
        ("diffusion_model.input_blocks.0.0.alpha", array([1], 1.0)),
    ];
    let (concept, notes, dialect) = open_quietly(&file(&alpha, &[])).unwrap();
    assert_eq!(
        (concept.updates.of(Network::UNet).scale, notes.len(), dialect),
        (0.5, 0, Dialect::ComfyUi)
    );
}

/// A file of one UNet layer as PEFT writes it, with rank 2.
fn write_peft(path: &Path, layer: &str) {
    let names = ["A", "B"].map(|half| format!("base_model.model.{layer}.lora_{half}.weight"));
    let tensors = [(names[0].clone(), array([2, 3], 1.0)), (names[1].clone(), array([4, 2], 1.0))];
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    write_tensors(path, &tensors, &metadata, &mut unwatched_parts).unwrap();
}

#[test]
fn pefts_settings_lie_beside_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (file, config) =
        (at.join("zorp/adapter_model.safetensors"), at.join("zorp/adapter_config.json"));
    write_peft(&file, "down_blocks.0.attn1.to_q");
    let scale = |settings: &str| {
        std::fs::write(&config, settings).unwrap();
        let (concept, notes) = super::read(&file).unwrap();
        (concept.updates.of(Network::UNet).scale, notes.join("; "))
    };
    let (four, told) = scale(
        r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 8, "use_rslora": false, "alpha_pattern": {}}"#,
    );
    assert_eq!((four, told.as_str()), (4.0, "alpha is 8, by adapter_config.json"));
    assert!(
        (scale(r#"{"r": 2, "lora_alpha": 8, "use_rslora": true}"#).0 - 8.0 / 2f32.sqrt()).abs()
            < 1e-6
    );
    assert_eq!(scale(r#"{"lora_alpha": 8, "alpha_pattern": {"attn\\d.to_(q|k)": 1}}"#).0, 0.5);
    assert_eq!(
        scale(r#"{"r": 8, "rank_pattern": {"to_q": 2}, "lora_alpha": 2}"#),
        (1.0, "alpha is 2, by adapter_config.json".into())
    );
    assert!(scale(r#"{"lora_alpha": 2, "init_lora_weights": "pissa"}"#).1.contains("pissa"));
    // As PEFT fills in what its settings leave out.
    let usual = "adapter_config.json names no alpha: PEFT's own, 8, is taken";
    assert_eq!(scale(r#"{"peft_type": "LORA", "r": 2}"#), (4.0, usual.into()));
    let (usual, told) = scale(r#"{"r": 2, "alpha_pattern": {"to_k": 3}, "use_rslora": true}"#);
    assert!((usual - 8.0 / 2f32.sqrt()).abs() < 1e-6 && told.contains("PEFT's own"), "{told}");
    let error = |settings: &str| {
        std::fs::write(&config, settings).unwrap();
        super::read(&file).unwrap_err().to_string()
    };
    assert!(error(r#"{"peft_type": "OFT"}"#).contains("OFT"));
    assert!(error("{").contains("adapter_config.json"));
    assert!(error(r#"{"lora_alpha": "much"}"#).contains("much"));
    std::fs::remove_file(&config).unwrap();
    let (concept, notes) = super::read(&file).unwrap();
    assert!(
        concept.updates.of(Network::UNet).scale == 1.0 && notes[0].contains("no alpha was found"),
        "{notes:?}"
    );

    // The folder itself, one in which each network has its own, and one of Hugging Face's cache.
    assert_eq!(super::read(&at.join("zorp")).unwrap().0.name, "zorp");
    write_peft(&at.join("both/unet/adapter_model.safetensors"), "conv_in");
    write_peft(
        &at.join("both/text_encoder/adapter_model.safetensors"),
        "text_model.encoder.layers.0.mlp.fc1",
    );
    std::fs::write(at.join("both/unet/adapter_config.json"), r#"{"lora_alpha": 4}"#).unwrap();
    let (concept, notes) = super::read(&at.join("both")).unwrap();
    assert_eq!(
        (
            concept.name.as_str(),
            concept.updates.of(Network::TextEncoder).layers.len(),
            concept.updates.of(Network::UNet).layers.len()
        ),
        ("both", 1, 1)
    );
    assert_eq!(
        (concept.updates.of(Network::TextEncoder).scale, concept.updates.of(Network::UNet).scale),
        (1.0, 2.0)
    );
    assert!(
        notes[0].starts_with("text_encoder: no alpha") && notes[1].starts_with("unet: alpha is 4"),
        "{notes:?}"
    );
    let cached = at.join("models--owner--ink");
    write_peft(&cached.join("snapshots/0123/adapter_model.safetensors"), "conv_in");
    assert_eq!(super::read(&cached).unwrap().0.name, "ink");
}

/// What the first LoRA program's order of layers is: found by walking diffusers' and transformers'
/// modules as it does.
#[test]
fn updates_without_names_are_told_by_their_order() {
    let dims = [8, 8, 16, 16, 24, 24, 24, 24, 24, 16, 16, 16, 8, 8, 8, 32];
    let attention =
        |dim: usize, context: usize| [[dim, dim], [dim, context], [dim, context], [dim, dim]];
    let mut older: Vec<[usize; 2]> = Vec::new();
    let mut newer: Vec<[usize; 2]> = Vec::new();
    for dim in dims {
        let (first, second, gate) = (attention(dim, dim), attention(dim, 5), [8 * dim, dim]);
        older.extend(first.iter().chain([&gate]).chain(&second));
        newer.extend(first.iter().chain(&second).chain([&gate]));
    }
    // Each update is told by its number.
    let pair = |number: usize, [rows, columns]: [usize; 2]| {
        [array([rows, 1], number as f32), array([1, columns], 0.0)]
    };
    let safe = |network: &str, shapes: &[[usize; 2]]| -> Vec<(String, Array)> {
        let named = |(number, shape): (usize, &[usize; 2])| {
            let [up, down] = pair(number, *shape);
            [(format!("{network}:{number}:up"), up), (format!("{network}:{number}:down"), down)]
        };
        shapes.iter().enumerate().flat_map(named).collect()
    };
    let read = |tensors: &[(String, Array)], metadata: &[(&str, &str)]| {
        let tensors: Vec<_> =
            tensors.iter().map(|(name, array)| (name.as_str(), array.clone())).collect();
        open_quietly(&file(&tensors, metadata))
    };
    let block = |block: &str, layer: &str| format!("{block}.transformer_blocks.0.{layer}");
    for (shapes, gate, second) in [(&older, 4.0, 5.0), (&newer, 8.0, 4.0)] {
        let mut all = safe("unet", shapes);
        all.extend(safe("text_encoder", &[[12, 12]; 8]));
        all.push(("<s1>".to_string(), array([12], 1.0)));
        let (concept, notes, dialect) = read(&all, &[("unet", "[]"), ("<s1>", "<embed>")]).unwrap();
        assert_eq!((dialect, concept.words.len(), notes.len()), (Dialect::CloneOfSimo, 1, 1));
        assert_eq!(
            (
                concept.updates.of(Network::UNet).layers.len(),
                concept.updates.of(Network::UNet).scale,
                concept.updates.of(Network::TextEncoder).layers.len()
            ),
            (144, 1.0, 8)
        );
        let unet = |name: &str, layer: &str| {
            number(concept.updates.of(Network::UNet), &block(name, layer))
        };
        assert_eq!(unet("down_blocks.0.attentions.0", "attn1.to_q"), 0.0);
        assert_eq!(unet("down_blocks.0.attentions.0", "ff.net.0.proj"), gate);
        assert_eq!(unet("down_blocks.0.attentions.0", "attn2.to_k"), second + 1.0);
        assert_eq!(unet("up_blocks.1.attentions.0", "attn1.to_out.0"), 6.0 * 9.0 + 3.0);
        assert_eq!(unet("mid_block.attentions.0", "attn1.to_q"), 15.0 * 9.0);
        assert_eq!(
            number(
                concept.updates.of(Network::TextEncoder),
                "text_model.encoder.layers.1.self_attn.k_proj"
            ),
            4.0
        );
        assert_eq!(
            number(
                concept.updates.of(Network::TextEncoder),
                "text_model.encoder.layers.0.self_attn.q_proj"
            ),
            2.0
        );
    }
    // Attentions alone, and a pickle's list of one network.
    let bare: Vec<[usize; 2]> =
        dims.iter().flat_map(|dim| [attention(*dim, *dim), attention(*dim, 5)].concat()).collect();
    let list = |shapes: &[[usize; 2]]| -> Vec<(String, Array)> {
        let named = |(number, shape): (usize, &[usize; 2])| {
            let [up, down] = pair(number, *shape);
            [((2 * number).to_string(), up), ((2 * number + 1).to_string(), down)]
        };
        shapes.iter().enumerate().flat_map(named).collect()
    };
    let concept = read(&list(&bare), &[]).unwrap().0;
    let unet = concept.updates.of(Network::UNet);
    assert_eq!(
        (unet.layers.len(), number(unet, &block("down_blocks.0.attentions.1", "attn2.to_v"))),
        (128, 14.0)
    );
    let text = read(&list(&[[12, 12]; 48]), &[]).unwrap().0;
    assert_eq!(text.updates.of(Network::TextEncoder).layers.len(), 48);
    let error = |tensors: &[(String, Array)]| read(tensors, &[]).unwrap_err().to_string();
    assert!(error(&list(&older[1..])).contains("143 updates have no names"));
    assert!(error(&safe("unet", &bare[..8])).contains("UNet"));
    let gap: Vec<_> =
        safe("unet", &older).into_iter().filter(|(name, _)| !name.contains(":7:")).collect();
    assert!(error(&gap).contains("number 7 is missing"));
    let half: Vec<_> =
        safe("unet", &older).into_iter().filter(|(name, _)| name != "unet:7:up").collect();
    assert!(read(&half, &[]).is_err());
}

/// Their tensors are named after text encoders.
#[test]
fn words_of_two_text_encoders_keep_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let first = Word::new("<zorp1>", array([1, 64], 0.5));
    let mut rows = first.rows.clone();
    rows.insert(Network::TextEncoder2, array([1, 128], 1.5));
    let lora = Lora { down: array([1, 8], 1.0), up: array([8, 1], 2.0) };
    let set = UpdateSet::new([("mid_block.attentions.0.proj_in".to_string(), lora.into())]);
    let concept = Concept {
        name: "zorp".into(),
        words: vec![Word { rows, ..first }],
        updates: [(Network::UNet, set)].into(),
        ..Concept::default()
    };
    for dialect in [Dialect::Kohya, Dialect::Peft] {
        let path = folder.path().join(format!("x-{dialect}.safetensors"));
        let written = write(&concept, dialect, false, &path).unwrap();
        let beside = super::read(&written.files[1]).unwrap().0;
        assert_eq!(beside.words, concept.words, "{dialect}");
        let named = format!("like its file: x-{dialect}.zorp1");
        let told = written.notes.iter().any(|note| note.ends_with(&named));
        assert_eq!(told, dialect == Dialect::Kohya, "{:?}", written.notes);
    }
}
