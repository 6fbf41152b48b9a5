//! The way back from canonical names to CompVis's (LDM's), for models that are written as one file.
//! What stands where in a network is read from its names.

use std::collections::BTreeMap;

use super::ldm::{CLIP, UNET, VAE, XL_CLIP, XL_OPEN_CLIP};

/// New names of all of a network's tensors, by their canonical ones.
pub(super) type Renaming = fn(&[&str]) -> BTreeMap<String, String>;

/// Module -> its place, and what its parts are called.
type Modules = BTreeMap<String, (String, fn(&str) -> String)>;

/// The parts of a network's names that change, by what they begin with.
struct Renamed {
    prefix: &'static str,
    modules: Modules,
}

impl Renamed {
    fn name(&self, canonical: &str) -> String {
        let dots = canonical.match_indices('.').map(|(at, _)| at);
        let mut found = dots.rev().filter_map(|at| Some((at, self.modules.get(&canonical[..at])?)));
        let found = found.next();
        match found {
            Some((at, (place, inside))) => {
                format!("{}{place}.{}", self.prefix, inside(&canonical[at + 1..]))
            }
            None => format!("{}{canonical}", self.prefix),
        }
    }
}

/// `part` with its beginning renamed, where the list has that.
fn renamed(part: &str, names: &[(&str, &str)]) -> String {
    let found =
        names.iter().find_map(|(from, to)| Some(format!("{to}{}", part.strip_prefix(from)?)));
    found.unwrap_or_else(|| part.to_string())
}

fn same(part: &str) -> String {
    part.to_string()
}

fn resnet(part: &str) -> String {
    renamed(
        part,
        &[
            ("norm1.", "in_layers.0."),
            ("conv1.", "in_layers.2."),
            ("time_emb_proj.", "emb_layers.1."),
            ("norm2.", "out_layers.0."),
            ("conv2.", "out_layers.3."),
            ("conv_shortcut.", "skip_connection."),
        ],
    )
}

fn vae_resnet(part: &str) -> String {
    renamed(part, &[("conv_shortcut.", "nin_shortcut.")])
}

fn vae_attention(part: &str) -> String {
    renamed(
        part,
        &[
            ("group_norm.", "norm."),
            ("to_q.", "q."),
            ("to_k.", "k."),
            ("to_v.", "v."),
            ("to_out.0.", "proj_out."),
        ],
    )
}

/// A UNet's names, each with that of LDM.
pub(super) fn unet(names: &[&str]) -> BTreeMap<String, String> {
    let has = |module: &str| {
        let begins = |name: &str| name.strip_prefix(module).is_some_and(|n| n.starts_with('.'));
        names.iter().copied().any(begins)
    };
    let mut modules = Modules::new();
    for (from, to) in [
        ("conv_in", "input_blocks.0.0"),
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("time_embedding.cond_proj", "time_embed.cond_proj"),
        ("class_embedding.linear_1", "label_emb.0.0"),
        ("class_embedding.linear_2", "label_emb.0.2"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("add_embedding.linear_2", "label_emb.0.2"),
        ("class_embedding", "label_emb"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ] {
        modules.insert(from.to_string(), (to.to_string(), same));
    }
    let count = |list: &str| (0..).take_while(|i| has(&format!("{list}.{i}"))).count();
    let mut next = 1;
    for block in 0..count("down_blocks") {
        let block = format!("down_blocks.{block}");
        for layer in 0..count(&format!("{block}.resnets")) {
            let place = format!("input_blocks.{next}");
            modules.insert(format!("{block}.resnets.{layer}"), (format!("{place}.0"), resnet));
            modules.insert(format!("{block}.attentions.{layer}"), (format!("{place}.1"), same));
            next += 1;
        }
        let sampler = format!("{block}.downsamplers.0.conv");
        if has(&sampler) {
            modules.insert(sampler, (format!("input_blocks.{next}.0.op"), same));
            next += 1;
        }
    }
    let mut middle = 0;
    for layer in 0..count("mid_block.resnets") {
        modules.insert(
            format!("mid_block.resnets.{layer}"),
            (format!("middle_block.{middle}"), resnet),
        );
        middle += 1;
        let attention = format!("mid_block.attentions.{layer}");
        if has(&attention) {
            modules.insert(attention, (format!("middle_block.{middle}"), same));
            middle += 1;
        }
    }
    next = 0;
    for block in 0..count("up_blocks") {
        let block = format!("up_blocks.{block}");
        let layers = count(&format!("{block}.resnets"));
        for layer in 0..layers {
            let (place, attention) =
                (format!("output_blocks.{next}"), format!("{block}.attentions.{layer}"));
            let sampler = format!("{block}.upsamplers.0.conv");
            if layer + 1 == layers && has(&sampler) {
                let number = if has(&attention) { 2 } else { 1 };
                modules.insert(sampler, (format!("{place}.{number}.conv"), same));
            }
            modules.insert(format!("{block}.resnets.{layer}"), (format!("{place}.0"), resnet));
            modules.insert(attention, (format!("{place}.1"), same));
            next += 1;
        }
    }
    let renamed = Renamed { prefix: UNET, modules };
    names.iter().map(|name| (name.to_string(), renamed.name(name))).collect()
}

/// An autoencoder's names, each with that of LDM.
pub(super) fn vae(names: &[&str]) -> BTreeMap<String, String> {
    let begins = |start: &str| names.iter().any(|name| name.starts_with(start));
    let levels = (0..).take_while(|i| begins(&format!("decoder.up_blocks.{i}."))).count();
    let mut modules = Modules::new();
    for (side, blocks, ldm) in [("encoder", "down_blocks", "down"), ("decoder", "up_blocks", "up")]
    {
        modules.insert(format!("{side}.conv_norm_out"), (format!("{side}.norm_out"), same));
        let sampler = format!("{ldm}sample");
        for level in (0..).take_while(|i| begins(&format!("{side}.{blocks}.{i}."))) {
            // LDM numbers the decoder's from the other end.
            let number = if ldm == "up" { levels - 1 - level } else { level };
            let (from, to) = (format!("{side}.{blocks}.{level}"), format!("{side}.{ldm}.{number}"));
            modules.insert(format!("{from}.{sampler}rs.0"), (format!("{to}.{sampler}"), same));
            for layer in (0..).take_while(|i| begins(&format!("{from}.resnets.{i}."))) {
                modules.insert(
                    format!("{from}.resnets.{layer}"),
                    (format!("{to}.block.{layer}"), vae_resnet),
                );
                modules.insert(
                    format!("{from}.attentions.{layer}"),
                    (format!("{to}.attn.{layer}"), vae_attention),
                );
            }
        }
        for (from, to) in [("resnets.0", "block_1"), ("resnets.1", "block_2")] {
            modules.insert(
                format!("{side}.mid_block.{from}"),
                (format!("{side}.mid.{to}"), vae_resnet),
            );
        }
        modules.insert(
            format!("{side}.mid_block.attentions.0"),
            (format!("{side}.mid.attn_1"), vae_attention),
        );
    }
    let renamed = Renamed { prefix: VAE, modules };
    names.iter().map(|name| (name.to_string(), renamed.name(name))).collect()
}

/// A text encoder's names, each with that of a single file: CLIP's own stay.
pub(super) fn text(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| (name.to_string(), format!("{CLIP}{name}"))).collect()
}

/// The names of Stable Diffusion XL's first text encoder.
pub(super) fn xl_text(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| (name.to_string(), format!("{XL_CLIP}{name}"))).collect()
}

/// A tensor that is made of canonical ones, one below the other.
pub(super) struct Joined {
    pub name: String,
    pub parts: Vec<String>,
    pub transposed: bool,
}

/// The tensors of Stable Diffusion XL's second text encoder under OpenCLIP's names: an attention's
/// three input projections are one.
pub(super) fn open_clip(names: &[&str]) -> Vec<Joined> {
    let joined = |name: String, parts: Vec<String>| Joined {
        name: format!("{XL_OPEN_CLIP}{name}"),
        parts,
        transposed: false,
    };
    let mut all = Vec::new();
    for canonical in names {
        let own = canonical.to_string();
        let inside = canonical.strip_prefix("text_model.").unwrap_or(canonical);
        let Some((number, rest)) =
            inside.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.'))
        else {
            let name = renamed(
                inside,
                &[
                    ("embeddings.token_embedding.", "token_embedding."),
                    ("embeddings.position_embedding.weight", "positional_embedding"),
                    ("final_layer_norm.", "ln_final."),
                    ("text_projection.weight", "text_projection"),
                ],
            );
            let transposed = inside == "text_projection.weight";
            all.push(Joined { transposed, ..joined(name, vec![own]) });
            continue;
        };
        let layer = format!("transformer.resblocks.{number}");
        if let Some(parameter) = rest.strip_prefix("self_attn.q_proj.") {
            let of = |part: &str| canonical.replace(".q_proj.", &format!(".{part}_proj."));
            let parts = ["q", "k", "v"].map(of).to_vec();
            all.push(joined(format!("{layer}.attn.in_proj_{parameter}"), parts));
        } else if !rest.starts_with("self_attn.k_proj.") && !rest.starts_with("self_attn.v_proj.") {
            let name = renamed(
                rest,
                &[
                    ("layer_norm1.", "ln_1."),
                    ("layer_norm2.", "ln_2."),
                    ("self_attn.out_proj.", "attn.out_proj."),
                    ("mlp.fc1.", "mlp.c_fc."),
                    ("mlp.fc2.", "mlp.c_proj."),
                ],
            );
            all.push(joined(format!("{layer}.{name}"), vec![own]));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Checkpoint;
    use super::*;

    #[test]
    fn names_are_those_that_they_came_from() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoint");
        let file = super::super::TensorFile::open(&path.join("sd1.safetensors")).unwrap();
        let model = Checkpoint::open(&path.join("sd1.safetensors")).unwrap();
        let of = |component: &super::super::Component| -> Vec<String> {
            component.names().map(str::to_string).collect()
        };
        let mut found = Vec::new();
        let parts: [(_, super::Renaming); 3] =
            [(&model.unet, unet), (&model.vae, vae), (&model.text_encoder, text)];
        for (component, renamed) in parts {
            let names = of(component);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            found.extend(renamed(&names).into_values());
        }
        found.sort();
        let lost: Vec<&String> = found.iter().filter(|name| !file.contains(name)).collect();
        assert!(lost.is_empty(), "{lost:?}");
        let networks = [UNET, VAE, CLIP];
        let expected = file
            .names()
            .filter(|name| networks.iter().any(|n| name.starts_with(n)))
            .filter(|name| !name.ends_with("position_ids"));
        assert_eq!(
            found.iter().map(String::as_str).collect::<Vec<_>>(),
            expected.collect::<Vec<_>>()
        );
    }
}
