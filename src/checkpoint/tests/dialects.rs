//! Every dialect gives the same tensors under the same names.
use super::*;
use crate::checkpoint::{Checkpoint, Component, Kind, TensorFile, TokenizerFiles};
use crate::models::config::{Activation, ClipTextConfig, UNetConfig, VaeConfig};
use half::{bf16, f16};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn assert_same(a: &Component, b: &Component) {
    assert_eq!(a.names().collect::<Vec<_>>(), b.names().collect::<Vec<_>>());
    for name in a.names() {
        let (x, y) = (a.tensor(name).unwrap(), b.tensor(name).unwrap());
        assert_eq!((x.dtype(), x.shape(), x.bytes()), (y.dtype(), y.shape(), y.bytes()), "{name}");
    }
    assert_eq!(a.hash(), b.hash());
}

#[test]
fn a_single_file_equals_the_folder_it_was_made_from() {
    let folder = Checkpoint::open(&fixture("folder")).unwrap();
    let single = Checkpoint::open(&fixture("sd1.safetensors")).unwrap();
    assert_eq!((folder.kind, single.kind), (Kind::DiffusersFolder, Kind::SingleFile));
    assert_same(&folder.unet, &single.unet);
    assert_same(&folder.vae, &single.vae);
    assert_same(&folder.text_encoder, &single.text_encoder);
    assert_eq!(folder.hash(), single.hash());
    assert!(folder.unet.len() > 100 && folder.vae.len() > 50 && folder.text_encoder.len() > 30);
    // The inferred configurations mean the same, too.
    let unet = |c: &Checkpoint| UNetConfig::from_json(&c.unet.config, &c.unet.config_path).unwrap();
    let vae = |c: &Checkpoint| VaeConfig::from_json(&c.vae.config, &c.vae.config_path).unwrap();
    let text = |c: &Checkpoint| {
        ClipTextConfig::from_json(&c.text_encoder.config, &c.text_encoder.config_path).unwrap()
    };
    assert_eq!(unet(&folder), unet(&single));
    assert_eq!(vae(&folder), vae(&single));
    // Which token pads is the tokenizer's business and in no weight.
    assert_eq!(ClipTextConfig { pad_token_id: None, ..text(&folder) }, text(&single));
    for key in [
        "_class_name",
        "prediction_type",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "steps_offset",
        "num_train_timesteps",
        "skip_prk_steps",
    ] {
        assert_eq!(folder.scheduler[key], single.scheduler[key], "{key}");
    }
    assert_eq!(
        single.text_encoder.ignored(),
        ["cond_stage_model.transformer.text_model.embeddings.position_ids"]
    );
    let TokenizerFiles::Folder(tokenizer) = &folder.tokenizer else { panic!("no tokenizer") };
    assert!(
        tokenizer.read("vocab.json").unwrap().is_some()
            && tokenizer.read("none").unwrap().is_none()
    );
    assert!(matches!(single.tokenizer, TokenizerFiles::Standard { pad: "<|endoftext|>" }));
    assert_eq!((single.notes.len(), folder.notes.len()), (0, 0));
}

#[test]
fn an_sd2_file_gives_what_diffusers_converts_it_to() {
    let model = Checkpoint::open(&fixture("sd2.safetensors")).unwrap();
    let expected: Value =
        serde_json::from_slice(&std::fs::read(fixture("sd2.json")).unwrap()).unwrap();
    for (part, component) in
        [("unet", &model.unet), ("vae", &model.vae), ("text_encoder", &model.text_encoder)]
    {
        let expected = expected[part].as_object().unwrap();
        assert_eq!(component.names().collect::<Vec<_>>(), {
            let mut names: Vec<_> = expected.keys().map(String::as_str).collect();
            names.sort();
            names
        });
        for (name, want) in expected {
            let view = component.tensor(name).unwrap();
            assert_eq!(json!(view.shape()), want[0], "{name}");
            let sha: String =
                Sha256::digest(view.bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect();
            assert_eq!(sha, want[1].as_str().unwrap(), "{name}");
        }
    }
    assert_eq!(model.scheduler["prediction_type"], "v_prediction");
    assert!(matches!(model.tokenizer, TokenizerFiles::Standard { pad: "!" }));
    let unet = UNetConfig::from_json(&model.unet.config, &model.unet.config_path).unwrap();
    assert!(unet.use_linear_projection);
    assert_eq!(
        unet.down.iter().map(|b| (b.channels, b.attention)).collect::<Vec<_>>(),
        [(8, true), (16, false)]
    );
    let text = ClipTextConfig::from_json(&model.text_encoder.config, &model.path).unwrap();
    assert_eq!((text.num_hidden_layers, text.hidden_act), (2, Activation::Gelu));
}

#[test]
fn what_an_sd2_model_predicts_is_guessed_aloud_when_the_file_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let mut all = tensors(&fixture("sd2.safetensors"));
    save(&path, &all);
    let model = Checkpoint::open(&path).unwrap();
    // The fixture's weights are spread by 0.1.
    let bias = model
        .unet
        .tensor("up_blocks.1.attentions.1.transformer_blocks.0.norm1.bias")
        .unwrap()
        .to_f32(0..8);
    let mean = bias.iter().sum::<f32>() / 8.0;
    let spread = (bias.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 8.0).sqrt();
    assert_eq!(model.scheduler["prediction_type"] == "v_prediction", spread > 0.09);
    assert!(model.notes[0].contains("does not say what its UNet predicts"), "{:?}", model.notes);
    // A marker tensor says it for certain.
    all.push(("v_pred".into(), counting(DType::F32, &[0])));
    all.push(("ztsnr".into(), counting(DType::F32, &[0])));
    save(&path, &all);
    let model = Checkpoint::open(&path).unwrap();
    assert_eq!(model.scheduler["prediction_type"], "v_prediction");
    assert_eq!(model.scheduler["rescale_betas_zero_snr"], true);
    assert!(model.notes.is_empty());
}

#[test]
fn a_24th_openclip_layer_is_left_out() {
    let names = |n| crate::checkpoint::openclip::names_of_2x(n);
    assert!(names("transformer.resblocks.23.ln_1.weight").is_empty());
    assert_eq!(
        names("transformer.resblocks.22.ln_1.weight")[0].0,
        "text_model.encoder.layers.22.layer_norm1.weight"
    );
}

#[test]
fn older_vae_attention_names_and_shapes_are_read() {
    let copy = folder_copy();
    let vae = copy.path().join("vae");
    let model = Checkpoint::open(&fixture("folder")).unwrap();
    let old = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
    let renamed: Owned = model
        .vae
        .names()
        .map(|name| {
            let view = model.vae.tensor(name).unwrap();
            let (mut new, mut shape) = (name.to_string(), view.shape().to_vec());
            if name.contains(".attentions.") {
                for (now, then) in old {
                    new = new.replace(now, then);
                }
                if shape.len() == 2 {
                    shape.extend([1, 1]);
                }
            }
            (new, TensorView::new(view.dtype(), shape, view.bytes().to_vec()).unwrap())
        })
        .collect();
    assert!(renamed.iter().any(
        |(n, v)| n == "encoder.mid_block.attentions.0.proj_attn.weight" && v.shape().len() == 4
    ));
    for entry in std::fs::read_dir(&vae).unwrap().flatten() {
        if entry.file_name() != "config.json" {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    save(&vae.join("diffusion_pytorch_model.safetensors"), &renamed);
    assert_same(&Checkpoint::open(copy.path()).unwrap().vae, &model.vae);
}

#[test]
fn the_text_prefix_may_be_there_or_not() {
    let copy = folder_copy();
    let path = copy.path().join("text_encoder/model.safetensors");
    let mut all = tensors(&path);
    assert!(
        all.iter().all(|(n, _)| !n.starts_with("text_model.")),
        "newer transformers leave it out"
    );
    for (name, _) in &mut all {
        *name = format!("text_model.{name}");
    }
    all.push(("text_model.embeddings.position_ids".into(), counting(DType::I64, &[1, 12])));
    save(&path, &all);
    let (old, new) =
        (Checkpoint::open(copy.path()).unwrap(), Checkpoint::open(&fixture("folder")).unwrap());
    assert_same(&old.text_encoder, &new.text_encoder);
    assert_eq!(old.text_encoder.ignored(), ["text_model.embeddings.position_ids"]);
}

#[test]
fn plain_weights_come_before_fp16_unless_asked() {
    let copy = folder_copy();
    let plain = copy.path().join("unet/diffusion_pytorch_model.safetensors");
    let half = copy.path().join("unet/diffusion_pytorch_model.fp16.safetensors");
    let all = tensors(&plain);
    let wide: Owned = all
        .iter()
        .map(|(n, v)| {
            let bytes: Vec<u8> =
                v.to_f32(0..v.len()).iter().flat_map(|x| x.to_le_bytes()).collect();
            (n.clone(), TensorView::new(DType::F32, v.shape().to_vec(), bytes).unwrap())
        })
        .collect();
    std::fs::rename(&plain, &half).unwrap();
    let dtype = |variant| {
        Checkpoint::open_variant(copy.path(), variant)
            .unwrap()
            .unet
            .dtype("conv_in.weight")
            .unwrap()
    };
    assert_eq!(dtype(None), DType::F16, "the only one there is");
    save(&plain, &wide);
    assert_eq!(dtype(None), DType::F32);
    assert_eq!(dtype(Some("fp16")), DType::F16);
}

#[test]
fn bf16_weights_are_read() {
    let copy = folder_copy();
    let path = copy.path().join("unet/diffusion_pytorch_model.safetensors");
    let mut all = tensors(&path);
    let mut values = Vec::new();
    for (name, view) in &mut all {
        let bytes: Vec<u8> = view
            .to_f32(0..view.len())
            .iter()
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
            .collect();
        if name == "conv_in.weight" {
            values = view.to_f32(0..view.len());
        }
        *view = TensorView::new(DType::BF16, view.shape().to_vec(), bytes).unwrap();
    }
    save(&path, &all);
    let model = Checkpoint::open(copy.path()).unwrap();
    let view = model.unet.require("conv_in.weight", &[8, 4, 3, 3], None).unwrap();
    assert_eq!(view.dtype(), DType::BF16);
    let expected: Vec<f32> = values.iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
    assert_eq!(view.to_f32(0..view.len()), expected);
}

#[test]
fn f16_conversion_matches_one_by_one_over_odd_ranges() {
    let values: Vec<f16> = (0..1501).map(|i| f16::from_f32(i as f32 * 0.37 - 200.0)).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(DType::F16, vec![1501], bytes).unwrap();
    for range in [0..1501, 1..258, 3..3, 1243..1501] {
        let expected: Vec<f32> = values[range.clone()].iter().map(|v| v.to_f32()).collect();
        assert_eq!(view.to_f32(range), expected);
    }
}

#[test]
fn a_file_can_bring_its_own_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let config = json!({ "attention_head_dim": 2, "block_out_channels": [8, 8, 16],
    "down_block_types": ["DownBlock2D"] });
    let metadata = BTreeMap::from([(
        format!("{}unet", crate::checkpoint::CONFIG_METADATA),
        config.to_string(),
    )]);
    write(&path, &tensors(&fixture("sd1.safetensors")), &metadata).unwrap();
    assert_eq!(Checkpoint::open(&path).unwrap().unet.config, config);
}

#[test]
fn the_embedded_layout_reads_like_a_folder() {
    static TINY: include_dir::Dir<'static> =
        include_dir::include_dir!("$CARGO_MANIFEST_DIR/tests/fixtures/checkpoint/folder");
    let inside = Checkpoint::embedded("built-in", &TINY).unwrap();
    let outside = Checkpoint::open(&fixture("folder")).unwrap();
    assert_eq!(inside.hash(), outside.hash());
    assert_eq!(inside.unet.config_path, Path::new("built-in/unet/config.json"));
    let TokenizerFiles::Folder(tokenizer) = &inside.tokenizer else { panic!("no tokenizer") };
    assert_eq!((tokenizer.names(), tokenizer.disk_path()), (vec!["vocab.json".to_string()], None));
    assert!(tokenizer.read("vocab.json").unwrap().is_some());
}

#[test]
fn the_shipped_model_opens() {
    let model =
        Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap();
    let unet = UNetConfig::from_json(&model.unet.config, &model.unet.config_path).unwrap();
    VaeConfig::from_json(&model.vae.config, &model.vae.config_path).unwrap();
    let text =
        ClipTextConfig::from_json(&model.text_encoder.config, &model.text_encoder.config_path)
            .unwrap();
    assert_eq!(unet.cross_attention_dim, text.hidden_size);
    let width = text.hidden_size;
    let shape = [text.vocab_size, width];
    model
        .text_encoder
        .require("text_model.embeddings.token_embedding.weight", &shape, Some("vocab_size"))
        .unwrap();
    let down = &unet.block_out_channels;
    model.unet.require("conv_in.weight", &[down[0], unet.in_channels, 3, 3], None).unwrap();
}

#[test]
fn a_vision_tower_brings_both_projections() {
    let copy = folder_copy();
    let tower = copy.path().join("clip_vision");
    std::fs::create_dir(&tower).unwrap();
    std::fs::write(tower.join("config.json"), r#"{"model_type": "clip_vision_model"}"#).unwrap();
    let all: Owned = [
        "embeddings.class_embedding",
        "vision_model.pre_layrnorm.bias",
        "visual_projection.weight",
        "text_projection.weight",
        "text_model.x",
        "embeddings.position_ids",
    ]
    .iter()
    .map(|n| (n.to_string(), counting(DType::F16, &[8])))
    .collect();
    save(&tower.join("model.safetensors"), &all);
    let vision = Checkpoint::open(copy.path()).unwrap().vision.unwrap();
    assert_eq!(
        vision.names().collect::<Vec<_>>(),
        [
            "text_projection.weight",
            "vision_model.embeddings.class_embedding",
            "vision_model.pre_layrnorm.bias",
            "visual_projection.weight"
        ]
    );
    assert_eq!(vision.ignored(), ["embeddings.position_ids", "text_model.x"]);
    let none = Checkpoint::open(&fixture("folder")).unwrap().vision;
    assert!(none.is_none());
}

#[test]
fn a_shard_may_hold_what_the_index_finds_elsewhere() {
    let copy = folder_copy();
    let shard = copy.path().join("vae/diffusion_pytorch_model.fp16-00002-of-00005.safetensors");
    let mut all = tensors(&shard);
    let stray = "encoder.conv_in.bias".to_string();
    assert!(all.iter().all(|(n, _)| *n != stray));
    all.push((stray.clone(), counting(DType::F16, &[8])));
    save(&shard, &all);
    let (changed, model) =
        (Checkpoint::open(copy.path()).unwrap(), Checkpoint::open(&fixture("folder")).unwrap());
    assert_same(&changed.vae, &model.vae);
    assert_eq!(changed.vae.ignored(), [stray]);
}

/// A single file as the fixture is, after a change.
fn changed(change: impl FnOnce(&mut Owned)) -> Result<Checkpoint, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut all = tensors(&fixture("sd1.safetensors"));
    change(&mut all);
    save(&path, &all);
    Checkpoint::open(&path).map_err(|e| e.to_string())
}

#[test]
fn attention_of_an_autoencoder_has_several_names() {
    let plain = changed(|_| {}).unwrap();
    for names in [
        ["group_norm", "to_q", "to_k", "to_v", "to_out.0"],
        ["group_norm", "query", "key", "value", "proj_attn"],
    ] {
        let renamed = changed(|all| {
            for (name, _) in all.iter_mut().filter(|(name, _)| name.contains(".attn_1.")) {
                let (before, inner) = name.split_once(".attn_1.").unwrap();
                let (layer, end) = inner.split_once('.').unwrap();
                let at = ["norm", "q", "k", "v", "proj_out"]
                    .iter()
                    .position(|known| *known == layer)
                    .unwrap();
                *name = format!("{before}.attn_1.{}.{end}", names[at]);
            }
        });
        assert_same(&plain.vae, &renamed.unwrap().vae);
    }
}

#[test]
fn weights_in_8_bits_have_their_scales() {
    const LAYER: &str = "model.diffusion_model.time_embed.0";
    let one =
        |value: f32| TensorView::new(DType::F32, vec![], value.to_le_bytes().to_vec()).unwrap();
    let narrow = |all: &mut Owned, names: [&str; 2], scale: TensorView<'static>| {
        let weight = all.iter_mut().find(|(name, _)| *name == format!("{LAYER}.weight")).unwrap();
        weight.1 = counting(DType::F8E4M3, weight.1.shape());
        all.push((format!("{LAYER}.{}", names[0]), scale));
        all.push((format!("{LAYER}.{}", names[1]), one(3.0)));
        all.push(("model.diffusion_model.scaled_fp8".into(), counting(DType::F8E4M3, &[2])));
    };
    let plain = changed(|_| {}).unwrap();
    for names in [["scale_weight", "scale_input"], ["weight_scale", "input_scale"]] {
        let model = changed(|all| narrow(all, names, one(0.25))).unwrap();
        assert_eq!(model.unet.names().collect::<Vec<_>>(), plain.unet.names().collect::<Vec<_>>());
        let weight = model.unet.tensor("time_embedding.linear_1.weight").unwrap();
        // 0x38 is 1.
        assert_eq!((weight.dtype(), weight.to_f32(0x38..0x39)), (DType::F8E4M3, vec![0.25]));
        let other = changed(|all| narrow(all, names, one(0.5))).unwrap();
        assert_ne!(model.unet.hash(), other.unet.hash());
        assert_ne!(model.base_hash(), other.base_hash());
        // What is written has the scale in its elements.
        let file =
            TensorFile::from_bytes(Path::new("x"), to_bytes(&[("a".to_string(), weight)])).unwrap();
        let again = file.tensor("a").unwrap();
        assert_eq!((again.dtype(), again.to_f32(0x38..0x39)), (DType::F16, vec![0.25]));
    }
    let error = |change: &dyn Fn(&mut Owned)| changed(|all| change(all)).unwrap_err();
    let names = ["scale_weight", "scale_input"];
    let rows = error(&|all| narrow(all, names, counting(DType::F32, &[31, 1])));
    assert!(
        rows.contains(&format!("`{LAYER}.scale_weight`")) && rows.contains("[31, 1]"),
        "{rows}"
    );
    let nan = error(&|all| narrow(all, names, one(f32::NAN)));
    assert!(nan.contains("scale_weight"), "{nan}");
    let wide = error(&|all| all.push((format!("{LAYER}.scale_weight"), one(2.0))));
    assert!(wide.contains("needs none"), "{wide}");
    let alone = error(&|all| {
        all.push(("model.diffusion_model.time_embed.9.scale_weight".into(), one(2.0)))
    });
    assert!(alone.contains("time_embed.9.scale_weight"), "{alone}");
    let said = br#"{"format": "nvfp4"}"#.to_vec();
    let quantised = TensorView::new(DType::U8, vec![said.len()], said).unwrap();
    let other = error(&|all| all.push((format!("{LAYER}.comfy_quant"), quantised.clone())));
    assert!(other.contains("nvfp4"), "{other}");
}
