//! Networks that steer, under their authors' names and diffusers'.
use crate::checkpoint::{Control, ControlKind, DType, TensorView};
use crate::models::config::{ControlNetConfig, T2IAdapterConfig};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes tensors of these names and shapes.
fn file(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let bytes = vec![0u8; 1 << 20];
    let mut views = Vec::new();
    for (name, shape) in tensors {
        let size = shape.iter().product::<usize>() * 4;
        views
            .push((name.clone(), TensorView::new(DType::F32, &shape[..], &bytes[..size]).unwrap()));
    }
    crate::checkpoint::write(path, &views, &BTreeMap::new()).unwrap();
}

/// The authors' names, diffusers', and shapes, of enough of a ControlNet for Stable Diffusion 1.5
/// to tell all by.
fn control_net() -> Vec<(String, String, Vec<usize>)> {
    let mut all = Vec::new();
    let mut add = |from: &str, to: &str, shape: &[usize]| {
        all.push((from.to_string(), to.to_string(), shape.to_vec()))
    };
    add("input_blocks.0.0.weight", "conv_in.weight", &[32, 4, 3, 3]);
    add("time_embed.0.weight", "time_embedding.linear_1.weight", &[128, 32]);
    let widths = [32, 64, 96, 96];
    for (i, c) in widths.into_iter().enumerate() {
        for j in 0..2 {
            let n = 1 + 3 * i + j;
            let before = if j == 0 { widths[i.saturating_sub(1)] } else { c };
            add(
                &format!("input_blocks.{n}.0.in_layers.2.weight"),
                &format!("down_blocks.{i}.resnets.{j}.conv1.weight"),
                &[c, before, 3, 3],
            );
            if i < 3 {
                let (from, to) =
                    (format!("input_blocks.{n}.1"), format!("down_blocks.{i}.attentions.{j}"));
                for (part, shape) in [("attn1.to_q", [c, c]), ("attn2.to_k", [c, 40])] {
                    let part = format!("transformer_blocks.0.{part}.weight");
                    add(&format!("{from}.{part}"), &format!("{to}.{part}"), &shape);
                }
                add(
                    &format!("{from}.proj_in.weight"),
                    &format!("{to}.proj_in.weight"),
                    &[c, c, 1, 1],
                );
            }
        }
        if i < 3 {
            add(
                &format!("input_blocks.{}.0.op.weight", 3 + 3 * i),
                &format!("down_blocks.{i}.downsamplers.0.conv.weight"),
                &[c, c, 3, 3],
            );
        }
    }
    add("middle_block.0.in_layers.2.weight", "mid_block.resnets.0.conv1.weight", &[96, 96, 3, 3]);
    add(
        "middle_block.1.transformer_blocks.0.attn1.to_q.weight",
        "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        &[96, 96],
    );
    add("middle_block.1.proj_in.weight", "mid_block.attentions.0.proj_in.weight", &[96, 96, 1, 1]);
    add("middle_block.2.in_layers.2.weight", "mid_block.resnets.1.conv1.weight", &[96, 96, 3, 3]);
    for i in 0..12 {
        add(
            &format!("zero_convs.{i}.0.weight"),
            &format!("controlnet_down_blocks.{i}.weight"),
            &[32, 32, 1, 1],
        );
    }
    add("middle_block_out.0.bias", "controlnet_mid_block.bias", &[96]);
    let hint = [
        "conv_in", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "blocks.5",
        "conv_out",
    ];
    let shapes = [[16, 3], [16, 16], [32, 16], [32, 32], [96, 32], [96, 96], [256, 96], [32, 256]];
    for (i, (name, [out, into])) in hint.into_iter().zip(shapes).enumerate() {
        let to = format!("controlnet_cond_embedding.{name}.weight");
        add(&format!("input_hint_block.{}.weight", 2 * i), &to, &[out, into, 3, 3]);
    }
    all
}

#[test]
fn control_nets_are_read_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let names = control_net();
    let mut found = Vec::new();
    for (stem, prefix, original) in
        [("a", "control_model.", true), ("b", "", true), ("c", "", false)]
    {
        let path = folder.path().join(format!("{stem}.safetensors"));
        let name = |(from, to, shape): &(String, String, Vec<usize>)| {
            (format!("{prefix}{}", if original { from } else { to }), shape.clone())
        };
        file(&path, &names.iter().map(name).collect::<Vec<_>>());
        let control = Control::open(&path).unwrap();
        assert_eq!(control.kind, ControlKind::ControlNet);
        for (_, name, shape) in &names {
            assert_eq!(control.component.shape(name), Some(&shape[..]), "{stem}: {name}");
        }
        assert_eq!(control.component.len(), names.len());
        found.push(ControlNetConfig::from_json(&control.component.config, &path).unwrap());
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(found[0].embedding_channels, [16, 32, 96, 256]);
    assert_eq!(found[0].unet.block_out_channels, [32, 64, 96, 96]);
    assert_eq!(
        (
            found[0].unet.cross_attention_dim,
            found[0].unet.down[0].heads,
            found[0].unet.down[3].attention
        ),
        (40, 8, false)
    );
}

#[test]
fn differences_are_told_from_whole_control_nets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let names: Vec<_> = control_net()
        .into_iter()
        .map(|(from, _, shape)| (format!("control_model.{from}"), shape))
        .collect();
    for mark in ["difference", "control_model.difference"] {
        file(&path, &names);
        let whole = Control::open(&path).unwrap();
        file(&path, &[&names[..], &[(mark.to_string(), vec![1])]].concat());
        let difference = Control::open(&path).unwrap();
        assert_eq!((whole.difference, difference.difference), (false, true));
        assert_eq!(difference.component.len(), whole.component.len(), "the mark is no weight");
    }
    for (mark, kind) in [
        ("lora_controlnet", "Control-LoRA"),
        ("lllite_unet_input_blocks_1_1.down.0.weight", "ControlNet-LLLite"),
    ] {
        file(&path, &[&names[..], &[(mark.to_string(), vec![1])]].concat());
        let error = Control::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("a.safetensors")
                && error.contains(kind)
                && error.contains("not supported"),
            "{error}"
        );
    }
}

#[test]
fn adapters_are_read_in_every_layout() {
    let folder = tempfile::tempdir().unwrap();
    let widths = [32, 64, 128, 128];
    for light in [false, true] {
        let layers = if light { 4 } else { 2 };
        let mut names: Vec<(String, String, Vec<usize>)> = Vec::new();
        let mut add = |from: String, to: String, shape: &[usize]| {
            names.push((from, format!("adapter.{to}"), shape.to_vec()))
        };
        if !light {
            add("conv_in.weight".into(), "conv_in.weight".into(), &[32, 192, 3, 3]);
        }
        for (i, c) in widths.into_iter().enumerate() {
            let inner = if light { c / 4 } else { c };
            let before = if i == 0 { if light { 192 } else { 32 } } else { widths[i - 1] };
            let first = if light { i } else { i * layers };
            if light || before != c {
                add(
                    format!("body.{first}.in_conv.weight"),
                    format!("body.{i}.in_conv.weight"),
                    &[inner, before, 1, 1],
                );
            }
            for j in 0..layers {
                let from = if light {
                    format!("body.{i}.body.{j}")
                } else {
                    format!("body.{}", first + j)
                };
                add(
                    format!("{from}.block1.weight"),
                    format!("body.{i}.resnets.{j}.block1.weight"),
                    &[inner, inner, 3, 3],
                );
            }
            if light {
                add(
                    format!("body.{i}.out_conv.weight"),
                    format!("body.{i}.out_conv.weight"),
                    &[c, inner, 1, 1],
                );
            }
        }
        for original in [true, false] {
            let path = folder.path().join(format!("{light}-{original}.safetensors"));
            let name = |(from, to, shape): &(String, String, Vec<usize>)| {
                (if original { from } else { to }.clone(), shape.clone())
            };
            file(&path, &names.iter().map(name).collect::<Vec<_>>());
            let control = Control::open(&path).unwrap();
            assert_eq!(control.kind, ControlKind::T2IAdapter);
            for (_, name, shape) in &names {
                assert_eq!(
                    control.component.shape(name),
                    Some(&shape[..]),
                    "{}: {name}",
                    path.display()
                );
            }
            let config = T2IAdapterConfig::from_json(&control.component.config, &path).unwrap();
            assert_eq!(
                (config.light, config.layers, config.in_channels, config.downscale_factor),
                (light, layers, 3, 8)
            );
            assert_eq!(config.channels, widths);
        }
    }
}

#[test]
fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    file(&path, &[("x.weight".into(), vec![2, 2])]);
    let error = Control::open(&path).unwrap_err().to_string();
    assert!(
        error.contains("a.safetensors") && error.contains("neither a ControlNet nor a T2I-Adapter"),
        "{error}"
    );
    file(&path, &[("body.0.block1.bias".into(), vec![2])]);
    let error = Control::open(&path).unwrap_err().to_string();
    assert!(error.contains("adapter."), "{error}");
    let error = Control::open(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
    let inside = folder.path().join("net");
    std::fs::create_dir(&inside).unwrap();
    file(&inside.join("diffusion_pytorch_model.safetensors"), &[("x.weight".into(), vec![2, 2])]);
    std::fs::write(inside.join("config.json"), r#"{"_class_name": "UNet2DConditionModel"}"#)
        .unwrap();
    let error = Control::open(&inside).unwrap_err().to_string();
    assert!(error.contains("UNet2DConditionModel"), "{error}");
}
