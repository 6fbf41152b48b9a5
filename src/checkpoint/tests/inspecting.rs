//! What files are taken for.
use super::*;
use crate::checkpoint::inspect::{Report, What, describe_file, inspect};
use crate::checkpoint::{Dialect, Family, Form, TensorFile};

fn describe(entries: &[(&str, &[usize])]) -> Report {
    let all: Owned =
        entries.iter().map(|(n, s)| (n.to_string(), counting(DType::F16, s))).collect();
    describe_file(&TensorFile::from_bytes(Path::new("f"), super::to_bytes(&all)).unwrap())
}

#[test]
fn whole_models_are_described_part_by_part() {
    let folder = inspect(&fixture("folder")).unwrap();
    let single = inspect(&fixture("sd1.safetensors")).unwrap();
    assert_eq!((folder.what, single.what), (What::DiffusersFolder, What::SingleFileSd1));
    assert_eq!(inspect(&fixture("sd2.safetensors")).unwrap().what, What::SingleFileSd2);
    let names: Vec<_> = folder.components.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae"]);
    for (a, b) in folder.components.iter().zip(&single.components) {
        assert_eq!(
            (a.parameters, a.bytes, &a.dtypes, &a.tensors),
            (b.parameters, b.bytes, &b.dtypes, &b.tensors)
        );
        assert_eq!(a.bytes, 2 * a.parameters);
        assert_eq!(a.dtypes.values().sum::<usize>(), a.tensors.len());
    }
    assert_eq!(folder.parameters(), single.parameters());
    assert_eq!(folder.components[1].config["cross_attention_dim"], 8);
    assert!(single.notes.iter().any(|n| n.contains("inferred")));
    let json = serde_json::to_value(&folder).unwrap();
    assert_eq!(
        (&json["what"], &json["components"][1]["dtypes"]),
        (
            &"diffusers-folder".into(),
            &serde_json::json!({"F16": folder.components[1].tensors.len()})
        )
    );
}

#[test]
fn parts_of_a_model_are_recognised_alone() {
    assert_eq!(inspect(&fixture("folder/unet")).unwrap().what, What::Unet);
    assert_eq!(inspect(&fixture("folder/vae")).unwrap().what, What::Vae);
    assert_eq!(inspect(&fixture("folder/text_encoder")).unwrap().what, What::TextEncoder);
    let file = inspect(&fixture("folder/unet/diffusion_pytorch_model.safetensors")).unwrap();
    assert_eq!(file.what, What::Unet);
    assert_eq!(
        inspect(&fixture("folder/text_encoder/model.safetensors")).unwrap().what,
        What::TextEncoder
    );
}

#[test]
fn networks_in_files_of_their_own_are_told_whoever_named_them() {
    let ldm = [("input_blocks.0.0.weight", &[8, 4, 3, 3][..]), ("time_embed.0.weight", &[8, 8])];
    assert_eq!(describe(&ldm).what, What::Unet);
    let xl = [ldm[0], ldm[1], ("label_emb.0.0.weight", &[8, 8])];
    assert_eq!(describe(&xl).what, What::UnetSdxl);
    for outer in ["module.", "_orig_mod.", "unet."] {
        let names = ["down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"]
            .map(|name| format!("{outer}{name}"));
        let found = describe(&[(&names[0], &[8, 8, 3, 3]), (&names[1], &[8, 8])]);
        assert_eq!(found.what, What::Unet, "{outer}");
        assert!(found.used.contains("none by itself"));
        // A LoRA stays one.
        let lora = format!("{outer}down_blocks.0.attentions.0.proj_in.lora_A.weight");
        let found = describe(&[(&names[1], &[8, 8]), (&lora, &[4, 8])]);
        assert_eq!(found.what, What::Lora, "{outer}");
    }
}

#[test]
fn changes_that_are_not_read_are_named() {
    let layer = "lora_unet_down_blocks_0_attentions_0_proj_in";
    for (name, called) in [
        (format!("{layer}.oft_blocks"), "an OFT"),
        ("base_model.model.a.boft_R".to_string(), "a BOFT"),
        ("base_model.model.a.vera_lambda_b".to_string(), "a VeRA"),
        (format!("{layer}.a1.weight"), "a GLoRA"),
        (format!("{layer}.set_weight"), "whole weights"),
    ] {
        let found = describe(&[(&name, &[4, 4])]);
        assert_eq!(found.what, What::OtherChange, "{name}");
        assert!(found.used.starts_with(&format!("none; it is {called}, and LoRA")), "{found:?}");
    }
    for up in [format!("{layer}.lora_up.weight"), "unet.a.lora_B.weight".to_string()] {
        let found = describe(&[(&up, &[4, 4])]);
        assert_eq!(found.what, What::Lora);
        assert!(found.used.contains("without the first (down)"), "{found:?}");
    }
}

#[test]
fn lora_dialects_are_told_apart() {
    let kohya = describe(&[
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", &[8, 320, 1, 1]),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", &[320, 8, 1, 1]),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", &[4, 768]),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_up.weight", &[768, 4]),
    ]);
    assert_eq!(kohya.what, What::Lora);
    let lora = kohya.lora.unwrap();
    assert_eq!(lora.dialect, Dialect::Kohya);
    assert_eq!(lora.ranks, BTreeMap::from([(4, 1), (8, 1)]));
    assert_eq!(lora.layers, BTreeMap::from([("unet".into(), 1), ("text_encoder".into(), 1)]));
    assert!(lora.alphas.is_empty());

    let dialect = |name: &str| describe(&[(name, &[4, 16])]).lora.unwrap().dialect;
    assert_eq!(
        dialect("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"),
        Dialect::Diffusers
    );
    assert_eq!(
        dialect(
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"
        ),
        Dialect::Diffusers
    );
    assert_eq!(
        dialect(
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight"
        ),
        Dialect::Diffusers
    );
    assert_eq!(dialect("unet.mid_block.attentions.0.proj_in.lora.down.weight"), Dialect::Diffusers);
    assert_eq!(
        dialect("base_model.model.mid_block.attentions.0.proj_in.lora_A.weight"),
        Dialect::Peft
    );
    assert_eq!(
        dialect("mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_down.weight"),
        Dialect::MixOfShow
    );
}

#[test]
fn alphas_forms_and_words_are_reported() {
    let all: Owned = vec![
        (
            "lora_unet_a.alpha".into(),
            TensorView::new(DType::F32, vec![], 2f32.to_le_bytes().to_vec()).unwrap(),
        ),
        ("lora_unet_a.hada_w1_a".into(), counting(DType::F16, &[32, 6])),
        ("lora_unet_a.hada_w1_b".into(), counting(DType::F16, &[6, 32])),
        ("lora_unet_b.lokr_w1".into(), counting(DType::F16, &[4, 4])),
        ("lora_unet_b.lokr_w2_a".into(), counting(DType::F16, &[8, 3])),
        ("lora_unet_b.lokr_w2_b".into(), counting(DType::F16, &[3, 8])),
    ];
    let file = TensorFile::from_bytes(Path::new("f"), super::to_bytes(&all)).unwrap();
    let lora = describe_file(&file).lora.unwrap();
    assert_eq!(lora.forms.into_iter().collect::<Vec<_>>(), [Form::Loha, Form::Lokr]);
    assert_eq!(lora.ranks, BTreeMap::from([(3, 1), (6, 1)]));
    assert_eq!(lora.alphas, BTreeMap::from([("2".into(), 1)]));

    let mix = describe(&[
        ("new_concept_embedding.<potter1>", &[16, 768]),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_down.weight", &[4, 768]),
    ]);
    let lora = mix.lora.unwrap();
    assert_eq!(lora.words, BTreeMap::from([("<potter1>".into(), vec![16, 768])]));
    assert_eq!((lora.dialect, lora.layers["text_encoder"]), (Dialect::MixOfShow, 1));
}

#[test]
fn what_a_lora_is_for_is_told_by_its_layers() {
    let to_k = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k";
    let down = format!("{to_k}.lora_down.weight");
    let family = |entries: &[(&str, &[usize])]| describe(entries).lora.unwrap().made_for;
    for (width, expected) in [
        (768, Some(Family::Sd1)),
        (1024, Some(Family::Sd2)),
        (2048, Some(Family::Sdxl)),
        (40, None),
    ] {
        assert_eq!(family(&[(&down, &[4, width])]), expected);
    }
    let peft = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight";
    assert_eq!(family(&[(peft, &[4, 2048])]), Some(Family::Sdxl));
    let second = "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight";
    assert_eq!(family(&[(second, &[4, 1280])]), Some(Family::Sdxl));
    let flux = "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight";
    assert_eq!(family(&[(flux, &[4, 3072])]), Some(Family::Other));
    assert!(describe(&[(flux, &[4, 3072])]).used.starts_with("none; "));
    assert!(describe(&[(&down, &[4, 768])]).used.contains("--lora"));
}

#[test]
fn the_state_of_a_run_is_no_lora() {
    let tensors = [("state.lora.unet".to_string(), counting(DType::F32, &[4]))];
    let about = [(crate::checkpoint::STATE_KEY.to_string(), "{}".to_string())];
    let bytes = crate::checkpoint::to_bytes(Path::new("f"), &tensors, &about.into()).unwrap();
    let report = describe_file(&TensorFile::from_bytes(Path::new("f"), bytes).unwrap());
    assert!(report.what == What::TrainingState && report.used.contains("mos train"));
}

#[test]
fn configurations_in_the_metadata_are_told_apart_from_inferred_ones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let single = fixture("sd1.safetensors");
    let model = crate::checkpoint::Checkpoint::open(&single).unwrap();
    let key = |part: &str| format!("{}{part}", crate::checkpoint::CONFIG_METADATA);
    let mut metadata = BTreeMap::from([(key("unet"), model.unet.config.to_string())]);
    let note = |metadata: &BTreeMap<String, String>| {
        write(&path, &tensors(&single), metadata).unwrap();
        inspect(&path).unwrap().notes.pop().unwrap()
    };
    let told = note(&metadata);
    assert!(told.ends_with("the configuration of text_encoder, vae"), "{told}");
    metadata.insert(key("vae"), model.vae.config.to_string());
    metadata.insert(key("text_encoder"), model.text_encoder.config.to_string());
    assert!(note(&metadata).contains("those in the file's metadata"));
}

#[test]
fn other_kinds_are_recognised_by_their_names() {
    let what = |entries: &[(&str, &[usize])]| describe(entries).what;
    let inversion = describe(&[("<cat-toy>", &[4, 768])]);
    assert_eq!(
        (inversion.what, inversion.words[0].vectors, inversion.words[0].width),
        (What::TextualInversion, 4, 768)
    );
    assert_eq!(what(&[("emb_params", &[768])]), What::TextualInversion);
    assert_eq!(what(&[("sks-toy", &[2, 768])]), What::TextualInversion);
    assert_eq!(what(&[("alphas_cumprod", &[1000])]), What::Unknown);
    assert_eq!(what(&[("latents", &[1, 4, 64, 64])]), What::Unknown);
    assert_eq!(what(&[("control_model.input_hint_block.0.weight", &[1])]), What::ControlNet);
    assert_eq!(
        what(&[
            ("controlnet_cond_embedding.conv_in.weight", &[1]),
            ("down_blocks.0.x", &[1]),
            ("time_embedding.x", &[1])
        ]),
        What::ControlNet
    );
    assert_eq!(what(&[("body.0.block1.weight", &[1]), ("conv_in.weight", &[1])]), What::T2iAdapter);
    assert_eq!(what(&[("adapter.body.0.resnets.0.block1.weight", &[1])]), What::T2iAdapter);
    assert_eq!(
        what(&[("encoder.conv_in.weight", &[1]), ("decoder.conv_in.weight", &[1])]),
        What::Vae
    );
    let any: &[usize] = &[1];
    for (names, expected) in [
        // A ControlNet as its authors name it, with and without what stands before it.
        (&["control_model.zero_convs.0.0.weight"][..], What::ControlNet),
        (&["input_hint_block.0.weight", "input_blocks.0.0.weight"], What::ControlNet),
        (&["input_hint_block.0.weight", "label_emb.0.0.weight"], What::ControlNetSdxl),
        (
            &["controlnet_cond_embedding.conv_in.weight", "add_embedding.linear_1.weight"],
            What::ControlNetSdxl,
        ),
        // One for many kinds of pictures.
        (&["controlnet_cond_embedding.conv_in.weight", "task_embedding"], What::ControlNetOther),
        (&["controlnet_x_embedder.weight", "double_blocks.0.x"], What::ControlNetOther),
        (&["lora_controlnet", "input_hint_block.0.weight"], What::ControlLora),
        (&["input_hint_block.0.weight", "time_embed.0.down", "time_embed.0.up"], What::ControlLora),
        (&["lllite_unet_input_blocks_1_1.down.0.weight"], What::ControlLllite),
        (&["image_proj.proj.weight", "ip_adapter.1.to_k_lora.down.weight"], What::IpAdapter),
        (&["down_blocks.0.motion_modules.0.temporal_transformer.norm.bias"], What::MotionModule),
        // A light T2I-Adapter has no convolution before its stages.
        (&["body.0.in_conv.weight", "body.0.body.0.block1.weight"], What::T2iAdapter),
        // Upscalers of several programs.
        (&["conv_first.weight", "body.0.rdb1.conv1.weight"], What::Upscaler),
        (&["params_ema.conv_first.weight", "params_ema.body.0.rdb1.conv1.weight"], What::Upscaler),
        (&["model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"], What::Upscaler),
        (&["params.body.0.weight", "params.body.1.weight", "params.body.2.bias"], What::Upscaler),
        (&["conv_first.weight", "layers.0.residual_group.x", "upsample.0.bias"], What::Upscaler),
        // Other families.
        (&["model.diffusion_model.label_emb.0.0.weight"], What::UnetSdxl),
        (&["down_blocks.0.x", "time_embedding.x", "add_embedding.linear_1.weight"], What::UnetSdxl),
        (&["model.diffusion_model.joint_blocks.0.x_block.x"], What::OtherModel),
        (&["double_blocks.0.img_attn.qkv.weight"], What::OtherModel),
    ] {
        let entries: Vec<_> = names.iter().map(|name| (*name, any)).collect();
        let report = describe(&entries);
        assert_eq!(report.what, expected, "{names:?}");
        let used = matches!(expected, What::ControlNet | What::ControlNetSdxl | What::T2iAdapter);
        assert_eq!(report.used.starts_with("--control"), used, "{}", report.used);
        assert_eq!(report.used.starts_with("none"), !used, "{}", report.used);
    }
    let difference = describe(&[("difference", any), ("input_hint_block.0.weight", any)]);
    assert!(difference.notes[0].contains("differences"), "{:?}", difference.notes);
    assert_eq!(what(&[("vision_model.x", &[1])]), What::VisionEncoder);
    assert_eq!(what(&[("conditioner.embedders.0.x", &[1])]), What::SingleFileSdxl);
    assert_eq!(what(&[("conditioner.embedders.0.model.x", &[1])]), What::Refiner);
    assert_eq!(what(&[("a.b", &[2, 2]), ("c", &[2])]), What::Unknown);
}
