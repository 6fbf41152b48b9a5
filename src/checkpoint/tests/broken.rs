//! Broken input: each kind gives its own clear error.
use super::*;
use crate::checkpoint::{Checkpoint, Control, Error, TensorFile};

/// The message for a file of these bytes, without the path before it.
fn message(bytes: Vec<u8>) -> String {
    let text = TensorFile::from_bytes(Path::new("f"), bytes).map(|_| ()).unwrap_err().to_string();
    text.strip_prefix("f: ").unwrap_or_else(|| panic!("no path: {text}")).to_string()
}

fn header_message(header: &str, data: usize) -> String {
    message(raw(header, data))
}

const INVALID: &str = "not a valid safetensors file: ";

#[test]
fn a_whole_header_must_be_there() {
    assert_eq!(message(vec![]), format!("{INVALID}the file is empty"));
    assert_eq!(
        message(vec![1; 7]),
        format!("{INVALID}only 7 bytes, but the format begins with an 8-byte header length")
    );
    let mut cut = raw("{}", 0);
    cut.pop();
    let text = "the header claims 2 bytes, but only 1 follow (an incomplete download or copy?)";
    assert_eq!(message(cut), format!("{INVALID}{text}"));
    assert_eq!(
        message(vec![0xff; 64]),
        format!(
            "{INVALID}its first 8 bytes are not the length of a header, so this is a file of some \
                other kind"
        )
    );
}

#[test]
fn the_header_must_be_json_of_the_right_kind() {
    let mut not_text = raw("{    }", 0);
    not_text[10] = 0xff;
    assert_eq!(message(not_text), format!("{INVALID}the header is not UTF-8 text (byte 2 of it)"));
    assert_eq!(header_message("[]", 0), format!("{INVALID}the header is not a JSON object"));
    assert!(
        header_message("{\"a\": ", 0)
            .starts_with(&format!("{INVALID}the header cannot be read: `a`: EOF"))
    );
    let text = header_message(r#"{"a": {"dtype": "F32", "shape": [1]}}"#, 4);
    assert!(text.contains("`a`: missing field `data_offsets`"), "{text}");
    let text =
        header_message(r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#, 4);
    assert!(text.contains("`a`: invalid value: integer `-1`"), "{text}");
    let text = header_message(r#"{"__metadata__": {"a": 1}}"#, 0);
    assert!(
        text.contains("`__metadata__`: invalid type: integer `1`, expected a string"),
        "{text}"
    );
    // Nesting as deep as the header is long must not exhaust the stack.
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    assert!(header_message(&deep, 0).starts_with(INVALID));
}

#[test]
fn a_name_may_come_only_once() {
    let entry = r#""a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}"#;
    let text = header_message(&format!("{{{entry}, {entry}}}"), 1);
    assert!(text.contains("tensor `a` appears twice"), "{text}");
}

#[test]
fn shapes_and_offsets_must_agree() {
    let one = |dtype: &str, shape: &str, offsets: &str, data| {
        header_message(
            &format!(
                r#"{{"a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}"#
            ),
            data,
        )
    };
    assert_eq!(one("F99", "[1]", "[0, 4]", 4), "tensor `a`: element type `F99` is not supported");
    assert_eq!(
        one("F32", "[1]", "[4, 0]", 4),
        "tensor `a`: its bytes end (0) before they begin (4)"
    );
    assert_eq!(
        one("F32", "[2, 3]", "[0, 20]", 20),
        "tensor `a`: shape [2, 3] of F32 needs 24 bytes, its offsets span 20"
    );
    let huge = "[4294967296, 4294967296, 4294967296]";
    assert_eq!(
        one("F32", huge, "[0, 4]", 4),
        "tensor `a`: its shape [4294967296, 4294967296, 4294967296] is impossibly large"
    );
    assert_eq!(
        one("F32", "[2]", "[0, 8]", 5),
        "the header describes 8 bytes of tensors, but 5 follow it (an incomplete download or copy?)"
    );
    assert_eq!(
        one("F32", "[1]", "[0, 4]", 9),
        "the header describes 4 bytes of tensors, but 9 follow it"
    );
    assert_eq!(
        one("F32", "[1]", "[4, 8]", 8),
        "tensor `a`: its bytes begin at 4, which leaves a hole after 0"
    );
}

#[test]
fn tensors_must_not_overlap() {
    let text = header_message(
        r#"{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}"#,
        6,
    );
    assert_eq!(text, "tensor `b`: its bytes begin at 2, inside those of `a`, which end at 4");
}

/// The message for opening a model, without the path before it.
fn model_message(path: &Path) -> String {
    let text = Checkpoint::open(path).map(|_| ()).unwrap_err().to_string();
    text.replace(&path.display().to_string(), "M")
}

#[test]
fn other_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let with = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        model_message(&path)
    };
    let mut torch = b"PK\x03\x04\0\0\x08\x08".to_vec();
    torch.resize(26, 0);
    torch.extend(b"\x10\0\0\0archive/data.pklFB");
    const PICKLE: &str = "M: a Python pickle that cannot be read: ";
    assert!(with(&torch).starts_with(&format!("{PICKLE}a zip archive without a readable")));
    assert!(with(b"PK\x03\x04\x14\0\x08\x08").starts_with(&format!("{PICKLE}a zip archive")));
    assert!(with(b"\x80\x02}q\x00.........").starts_with(PICKLE));
    assert!(with(b"GGUF\x03\0\0\0........").starts_with("M: not a GGUF file that can be read: "));
    let not =
        |bytes: &[u8], what: &str| assert_eq!(with(bytes), format!("M: {INVALID}this is {what}"));
    not(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG picture");
    not(b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a JPEG picture");
    not(b"not a model at all", "a text file");
    // Whoever opens such a file, whole models or any other tensors, says the same.
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").unwrap();
    let messages = [
        TensorFile::open(&path).map(|_| ()).unwrap_err().to_string(),
        TensorFile::open_any(&path).map(|_| ()).unwrap_err().to_string(),
        Control::open(&path).map(|_| ()).unwrap_err().to_string(),
    ];
    assert!(
        messages
            .iter()
            .all(|message| message.ends_with(&format!("{INVALID}this is a PNG picture"))),
        "{messages:?}"
    );
    assert!(
        with(b"version https://git-lfs.github.com/spec/v1\noid sha256:0").contains("git lfs pull")
    );
    not(b"<!DOCTYPE html><html>", "an HTML page (a failed download?)");
    assert!(with(b"").ends_with("the file is empty"));
    let none = folder.path().join("none");
    assert_eq!(model_message(&none), "cannot open M: No such file or directory (os error 2)");
}

#[test]
fn files_that_are_no_whole_model_say_what_they_lack() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let with = |keep: &dyn Fn(&str) -> bool| {
        let all: Owned =
            tensors(&fixture("sd1.safetensors")).into_iter().filter(|(n, _)| keep(n)).collect();
        save(&path, &all);
        model_message(&path)
    };
    assert_eq!(
        with(&|n| !n.starts_with("first_")),
        "M: not a whole model: it has no VAE (first_stage_model.*)"
    );
    assert!(
        with(&|n| n.starts_with("alphas"))
            .starts_with("M: not a Stable Diffusion model: it has neither")
    );
    let text = with(&|n| !n.ends_with("time_embed.0.weight"));
    assert!(text.starts_with("M: tensor `time_embedding.linear_1.weight` is missing"), "{text}");
    save(&path, &vec![("conditioner.embedders.0.x".into(), counting(DType::U8, &[1]))]);
    assert!(model_message(&path).contains("Stable Diffusion XL"));
}

#[test]
fn a_header_length_that_looks_like_another_format_is_no_reason_to_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    // 640 begins with the bytes of a pickle, 60 with those of HTML.
    for length in [640, 60] {
        std::fs::write(&path, raw(&format!("{:length$}", "{}"), 0)).unwrap();
        assert!(
            crate::checkpoint::inspect::inspect(&path).unwrap().components[0].tensors.is_empty()
        );
        assert!(model_message(&path).starts_with("M: not a Stable Diffusion model"));
    }
}

#[test]
fn another_kind_of_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, &vec![("lora_unet_x.lora_down.weight".into(), counting(DType::F16, &[4, 8]))]);
    assert_eq!(model_message(&path), "M: not a whole model; this is a LoRA");
    std::fs::copy(fixture("folder/unet/diffusion_pytorch_model.safetensors"), &path).unwrap();
    assert_eq!(model_message(&path), "M: not a whole model; this is a UNet");
}

#[test]
fn an_unknown_module_of_a_unet_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let mut all = tensors(&fixture("sd1.safetensors"));
    all.push((
        "model.diffusion_model.input_blocks.1.7.qkv.weight".into(),
        counting(DType::U8, &[1]),
    ));
    save(&path, &all);
    assert_eq!(
        model_message(&path),
        "M: `input_blocks.1.7` (with qkv) is not a module that Stable Diffusion's UNet has"
    );
}

#[test]
fn folders_that_are_no_model_get_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(model_message(folder.path()), "M: not a model folder: the folder is empty");
    std::fs::write(folder.path().join("sd.safetensors"), "").unwrap();
    assert!(model_message(folder.path()).ends_with("name the file, such as sd.safetensors"));
    let part = fixture("folder/unet");
    assert!(model_message(&part).ends_with("one part of a model; give the folder above it"));
}

#[test]
fn parts_missing_from_a_folder_are_named() {
    let copy = folder_copy();
    let remove = |name: &str| std::fs::remove_file(copy.path().join(name)).unwrap();
    remove("unet/diffusion_pytorch_model.safetensors");
    assert_eq!(model_message(copy.path()), "M/unet: no diffusion_pytorch_model.safetensors");
    std::fs::write(copy.path().join("unet/diffusion_pytorch_model.bin"), "x").unwrap();
    let text = model_message(copy.path());
    assert!(
        text.starts_with("M/unet/diffusion_pytorch_model.bin: ") && text.contains("only 1 byte"),
        "{text}"
    );
    std::fs::write(copy.path().join("unet/config.json"), "{\"a\": ").unwrap();
    let text = model_message(copy.path());
    assert!(text.starts_with("M/unet/config.json: not valid JSON: EOF while parsing"), "{text}");
    remove("unet/config.json");
    assert_eq!(model_message(copy.path()), "M/unet: no config.json");
}

#[test]
fn parts_that_the_index_names_are_missed_by_name() {
    let copy = folder_copy();
    let index = |text: &str| {
        std::fs::write(copy.path().join("model_index.json"), text).unwrap();
    };
    let missing = |part: &str| {
        format!(
            "M: {part} is missing: model_index.json names it, and there is no such folder (an \
                incomplete download or copy?)"
        )
    };
    index(r#"{"text_encoder": ["a", "b"], "text_encoder_2": ["a", "b"], "image_encoder": [null]}"#);
    assert_eq!(model_message(copy.path()), missing("text_encoder_2"));
    index(r#"{"tokenizer": ["a", "b"], "text_encoder_2": [null, null]}"#);
    Checkpoint::open(copy.path()).unwrap();
    std::fs::remove_dir_all(copy.path().join("tokenizer")).unwrap();
    assert_eq!(model_message(copy.path()), missing("tokenizer"));
    // CLIP's own is known.
    let config = copy.path().join("text_encoder/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["vocab_size"] = 49_408.into();
    std::fs::write(&config, json.to_string()).unwrap();
    let notes = Checkpoint::open(copy.path()).unwrap().notes;
    assert!(notes[0].starts_with("tokenizer is missing, though"), "{notes:?}");
    index(r#"{"text_encoder": ["a", "b"]}"#);
    std::fs::remove_dir_all(copy.path().join("text_encoder")).unwrap();
    assert_eq!(model_message(copy.path()), missing("text_encoder"));
}

#[test]
fn a_file_with_gaps_is_no_smaller_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let all = tensors(&fixture("sd1.safetensors"));
    const UNET: &str = "model.diffusion_model.";
    let with = |part: &str| {
        let kept = |name: &str| !name.starts_with(part);
        let kept: Owned = all.iter().filter(|(name, _)| kept(name)).cloned().collect();
        assert!(kept.len() < all.len(), "{part}");
        save(&path, &kept);
        model_message(&path)
    };
    let fits_nowhere = "fit nowhere in the UNet that the other tensors make";
    // The first attention of two, of three, the middle's, all of a block's, a whole layer.
    let text = with(&format!("{UNET}output_blocks.2.1."));
    assert!(text.contains("`model.diffusion_model.output_blocks.3.1."), "{text}");
    assert!(text.contains(fits_nowhere), "{text}");
    for gap in ["middle_block.1", "output_blocks.3.1", "input_blocks.2"] {
        let text = with(&format!("{UNET}{gap}."));
        assert!(text.starts_with(&format!("M: the UNet's `{gap}.*` are missing")), "{text}");
    }
    let text = with(&format!("{UNET}input_blocks.1.1."));
    assert!(text.contains("attention in 1 blocks on its way down and in 2"), "{text}");
    let text = with("first_stage_model.quant_conv.");
    assert!(text.contains("has post_quant_conv but no quant_conv"), "{text}");
    let text = with("cond_stage_model.transformer.text_model.encoder.layers.0.");
    assert!(text.contains("layers.0.mlp.fc1.weight` is missing"), "{text}");
    let text = with("first_stage_model.encoder.mid.attn_1.");
    assert!(text.contains("fit nowhere in the VAE"), "{text}");
    // What nothing reads is told; what older programs leave is not.
    let mut more = all.clone();
    let extra = "model.diffusion_model.extra.weight";
    more.push((extra.to_string(), counting(DType::F32, &[1])));
    more.push(("first_stage_model.loss.logvar".to_string(), counting(DType::F32, &[1])));
    save(&path, &more);
    let notes = Checkpoint::open(&path).unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains(&format!("`{extra}` (")), "{notes:?}");
}

#[test]
fn an_index_must_be_true() {
    let copy = folder_copy();
    let index = copy.path().join("vae/diffusion_pytorch_model.safetensors.index.fp16.json");
    let original = std::fs::read_to_string(&index).unwrap();
    let shard = "diffusion_pytorch_model.fp16-00002-of-00005.safetensors";
    let with = |text: &str| {
        std::fs::write(&index, text).unwrap();
        model_message(copy.path())
            .replace("M/vae/diffusion_pytorch_model.safetensors.index.fp16.json: ", "")
    };
    assert_eq!(with("{}"), "no `weight_map` that names a file for each tensor");
    assert_eq!(
        with(&original.replace(shard, "../x.safetensors")),
        "`weight_map`: `../x.safetensors` is not the name of a file in this folder"
    );
    assert_eq!(
        with(&original.replace(shard, "x.safetensors")),
        "`weight_map` names x.safetensors, which is not in the folder"
    );
    let text = with(&original.replace("decoder.conv_in.bias", "decoder.conv_in.b"));
    assert_eq!(
        text,
        format!("`weight_map` says that {shard} holds `decoder.conv_in.b`, but it does not")
    );
}

#[test]
fn weights_that_contradict_the_configuration_are_named() {
    let model = Checkpoint::open(&fixture("folder")).unwrap();
    let at = fixture("folder/unet");
    let text = model.unet.require("conv_in.weigth", &[1], None).unwrap_err().to_string();
    assert_eq!(
        text,
        format!(
            "{}: tensor `conv_in.weigth` is missing; the closest name in the file is \
                `conv_in.weight`",
            at.display()
        )
    );
    let error = model
        .unet
        .require("conv_in.weight", &[32, 4, 3, 3], Some("block_out_channels[0]"))
        .unwrap_err();
    assert!(matches!(&error, Error::WrongShape { found, .. } if found == &[8, 4, 3, 3]));
    assert_eq!(
        error.to_string(),
        format!(
            "{}: tensor `conv_in.weight` has shape [8, 4, 3, 3], expected [32, 4, 3, 3] (from \
                block_out_channels[0])",
            at.join("diffusion_pytorch_model.safetensors").display()
        )
    );
    let text = model
        .unet
        .require_all(["conv_in.bias", "q1", "q2", "q3", "q4", "q5"])
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("5 tensors are missing: `q1`, `q2`, `q3`, `q4`, ..."), "{text}");
}

#[test]
fn two_names_for_one_weight_are_refused() {
    let copy = folder_copy();
    let path = copy.path().join("text_encoder/model.safetensors");
    let mut all = tensors(&path);
    let (name, view) = all.last().unwrap().clone();
    all.push((format!("text_model.{name}"), view));
    save(&path, &all);
    let text = model_message(copy.path());
    assert!(
        text.ends_with(&format!(
            "tensors `{name}` and `text_model.{name}` both mean `text_model.{name}`"
        )),
        "{text}"
    );
}
