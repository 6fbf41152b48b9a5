//! A whole model as one file under CompVis's (LDM's) names, in a type of choice: GGUF, or
//! safetensors. Other programs read it, and this one does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use half::f16;
use serde_json::{Value, json};

use super::gguf::{ALIGNMENT, MAGIC, VERSION, number_of};
use super::single::{
    CONCEPTS, CONFIG_METADATA, FILE_METADATA, GENERATION, SCHEDULER, TOKENIZER, TOKENIZER_2,
    TOKENIZER_FILES, ZEROS,
};
use super::tensor::byte_len;
use super::{Checkpoint, Component, DType, Error, TokenizerFiles, blocks, to_ldm};
use crate::output;
use crate::text::KNOWN_WORDS_FILE;
use crate::watch::{Progress, Watch, heed};

/// The types that models are written in, by their names on the command line.
pub const MODEL_TYPES: [(&str, DType); 4] =
    [("q8_0", DType::Q8_0), ("q4_0", DType::Q4_0), ("q4_k", DType::Q4K), ("f16", DType::F16)];

/// How a model is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFormat {
    /// For stable-diffusion.cpp and other programs of ggml.
    Gguf,
    /// For everything else.
    Safetensors,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// Tensors of each type.
    pub types: BTreeMap<DType, usize>,
    /// Sentences for the user.
    pub notes: Vec<String>,
}

/// What matrices become whose rows are no whole blocks of the type that was asked for.
const ELSE: DType = DType::Q5_0;

/// A tensor of the file.
struct Planned<'a> {
    name: String,
    component: &'a Component,
    /// One below the other.
    parts: Vec<String>,
    transposed: bool,
    dtype: DType,
    shape: Vec<usize>,
}

/// Writes `model` to `path`, its matrices in `dtype`; `watch` is told of the stage `write`, by
/// tensors. What is computed with in other ways stays more exact: convolutions and embeddings f16,
/// biases and norms f32.
///
/// # Errors
/// Weights that are no numbers of f16; whatever the system says; [`Error::Cancelled`]: then nothing
/// is written.
pub fn export(
    model: &Checkpoint,
    dtype: DType,
    format: ModelFormat,
    path: &Path,
    watch: &mut Watch,
) -> Result<Exported, Error> {
    let mut progress = |done, of| heed(watch(Progress::new("write", done, of)));
    let mut exported = Exported::default();
    let mut planned = Vec::new();
    let xl = model.second.is_some();
    let parts: [(_, to_ldm::Renaming); 3] = [
        (&model.unet, to_ldm::unet),
        (&model.vae, to_ldm::vae),
        (&model.text_encoder, if xl { to_ldm::xl_text } else { to_ldm::text }),
    ];
    let mut plan = |component, name: String, parts: Vec<String>, transposed: bool| {
        let shape = as_stored(&name, shape_of(component, &parts, transposed));
        let dtype = type_of(&name, &shape, dtype);
        *exported.types.entry(dtype).or_default() += 1;
        planned.push(Planned { name, component, parts, transposed, dtype, shape });
    };
    for (component, renamed) in parts {
        for (canonical, name) in renamed(&component.names().collect::<Vec<_>>()) {
            plan(component, name, vec![canonical], false);
        }
    }
    if let Some(second) = &model.second {
        let names: Vec<&str> = second.component.names().collect();
        for to_ldm::Joined { name, parts, transposed } in to_ldm::open_clip(&names) {
            plan(&second.component, name, parts, transposed);
        }
    }
    planned.sort_by(|a, b| a.name.cmp(&b.name));
    let other = Some(ELSE).filter(|other| *other != dtype);
    if let Some((other, count)) = other.and_then(|other| exported.types.get_key_value(&other)) {
        let these = if *count == 1 { "1 matrix".to_string() } else { format!("{count} matrices") };
        exported.notes.push(format!("{these} with rows of no whole blocks of {dtype}: in {other}"));
    }
    let metadata = metadata(model, dtype)?;
    let beside = [("vision tower", model.vision.is_some())]
        .into_iter()
        .chain(model.controls.keys().map(|name| (name.as_str(), true)))
        .filter_map(|(name, there)| there.then_some(name));
    let beside: Vec<&str> = beside.collect();
    if !beside.is_empty() {
        exported.notes.push(format!("left out, as such files hold none: {}", beside.join(", ")));
    }
    let mut asked = Ok(());
    let mut wrong = None;
    let written = output::write(path, |out| {
        let mut emit = |out: &mut dyn Write, planned: &Planned, done: usize, of: usize| {
            asked = progress(done, of);
            asked.map_err(io::Error::other)?;
            let bytes = bytes(planned).map_err(|error| {
                let text = error.to_string();
                wrong = Some(error);
                io::Error::other(text)
            })?;
            out.write_all(&bytes)
        };
        match format {
            ModelFormat::Gguf => gguf(out, &planned, &metadata, dtype, &mut emit),
            ModelFormat::Safetensors => safetensors(out, &planned, &metadata, &mut emit),
        }
    });
    asked?;
    match wrong {
        Some(error) => Err(error),
        None => written.map(|()| exported).map_err(Error::io(path, "write")),
    }
}

/// The shape of what these tensors come to, one below the other.
fn shape_of(component: &Component, parts: &[String], transposed: bool) -> Vec<usize> {
    let first = parts.first().and_then(|name| component.shape(name)).unwrap_or_default();
    let mut shape = first.to_vec();
    if let Some(rows) = shape.first_mut().filter(|_| parts.len() > 1) {
        let of = |name: &String| component.shape(name).and_then(<[usize]>::first).copied();
        *rows = parts.iter().filter_map(of).sum();
    }
    if transposed {
        shape.reverse();
    }
    shape
}

/// LDM's autoencoder has 1x1 convolutions where diffusers has matrices.
fn as_stored(name: &str, shape: Vec<usize>) -> Vec<usize> {
    let is_attention = name.contains(".attn_1.") || name.contains(".attn.");
    match shape[..] {
        [rows, columns] if is_attention && name.starts_with(super::ldm::VAE) => {
            vec![rows, columns, 1, 1]
        }
        _ => shape,
    }
}

/// The type of a tensor in the file. As stable-diffusion.cpp has it, embeddings and what makes them
/// stay as they are.
fn type_of(name: &str, shape: &[usize], wanted: DType) -> DType {
    const EXACT: [&str; 3] = ["embedding", "time_embed.", "label_emb."];
    let projects = name.strip_prefix(super::ldm::XL_OPEN_CLIP) == Some("text_projection");
    let columns = shape.last().copied().unwrap_or(1);
    let fits = |dtype: &DType| columns % dtype.block().0 == 0;
    match shape.len() {
        0 | 1 => DType::F32,
        2 if !projects && !EXACT.iter().any(|part| name.contains(part)) => {
            [wanted, ELSE].into_iter().find(fits).unwrap_or(DType::F16)
        }
        _ => DType::F16,
    }
}

/// Elements of a tensor as they are to be in the file.
fn bytes(planned: &Planned) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for part in &planned.parts {
        all.extend(bytes_of(planned, part)?);
    }
    Ok(all)
}

fn bytes_of(planned: &Planned, canonical: &str) -> Result<Vec<u8>, Error> {
    let view = planned.component.tensor(canonical)?;
    let unscaled = view.plain();
    let same = unscaled.dtype() == planned.dtype || view.dtype() == planned.dtype;
    if same && !planned.transposed {
        let same = if view.dtype() == planned.dtype { &view } else { &unscaled };
        return Ok(same.bytes().to_vec());
    }
    let mut values = view.to_f32(0..view.len());
    if let (true, &[rows, columns]) = (planned.transposed, view.shape()) {
        let turned = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        values = turned.filter_map(|at| values.get(at).copied()).collect();
    }
    planned.component.release(canonical);
    Ok(match planned.dtype {
        DType::F16 => {
            if values.iter().any(|v| v.is_finite() && v.abs() > f16::MAX.to_f32()) {
                return Err(Error::Entry {
                    path: planned.component.path().to_path_buf(),
                    tensor: canonical.to_string(),
                    problem: "some of its values are too large for f16".into(),
                });
            }
            values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
        }
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        dtype => blocks::make(dtype, &values),
    })
}

/// What is not in the weights: configurations, and what the model predicts.
fn metadata(model: &Checkpoint, dtype: DType) -> Result<BTreeMap<String, String>, Error> {
    let prediction = match model.scheduler["prediction_type"].as_str() {
        Some("v_prediction") => "v",
        _ => "epsilon",
    };
    let mut metadata = BTreeMap::from([
        ("modelspec.prediction_type".to_string(), prediction.to_string()),
        ("mos_program".to_string(), format!("mos {}", env!("CARGO_PKG_VERSION"))),
        ("mos_type".to_string(), dtype.name().to_string()),
    ]);
    let encoders = model.text_encoders().map(|(network, component)| (network.folder(), component));
    for (name, component) in encoders.chain([("unet", &model.unet), ("vae", &model.vae)]) {
        metadata.insert(format!("{CONFIG_METADATA}{name}"), component.config.to_string());
    }
    if model.second.as_ref().is_some_and(|second| !second.zeros_for_empty) {
        metadata.insert(ZEROS.to_string(), false.to_string());
    }
    let mut put = |place: &str, text: String| {
        metadata.insert(format!("{FILE_METADATA}{place}"), text);
    };
    put(SCHEDULER, model.scheduler.to_string());
    for (place, found) in [(GENERATION, &model.generation), (CONCEPTS, &model.concepts)] {
        found.iter().for_each(|value| put(place, value.to_string()));
    }
    model.words.iter().for_each(|words| put(KNOWN_WORDS_FILE, words.clone()));
    let second = model.second.as_ref();
    let second = second.map(|second| (TOKENIZER_2, &second.tokenizer, &second.component));
    let first = (TOKENIZER, &model.tokenizer, &model.text_encoder);
    for (place, tokenizer, encoder) in std::iter::once(first).chain(second) {
        // CLIP's own needs no copy.
        let own = encoder.config["vocab_size"] != json!(CLIP_WORDS);
        match tokenizer {
            TokenizerFiles::Folder(folder) if own => {
                // Large, and the same once more where both of these are there.
                let whole = folder.has("vocab.json") && folder.has("merges.txt");
                for name in TOKENIZER_FILES {
                    if whole && name == TOKENIZER_JSON {
                        continue;
                    }
                    let text = folder.text(name)?;
                    text.into_iter().for_each(|text| put(&format!("{place}{name}"), text));
                }
            }
            TokenizerFiles::Texts(texts) => {
                texts.iter().for_each(|(name, text)| put(&format!("{place}{name}"), text.clone()));
            }
            _ => {}
        }
    }
    Ok(metadata)
}

/// What holds vocabulary, merges and added words at once.
const TOKENIZER_JSON: &str = "tokenizer.json";

/// Words of CLIP's vocabulary.
const CLIP_WORDS: usize = 49408;

type Emit<'e> = dyn FnMut(&mut dyn Write, &Planned, usize, usize) -> io::Result<()> + 'e;

fn length(planned: &Planned) -> usize {
    byte_len(planned.dtype, &planned.shape).unwrap_or(0)
}

fn gguf(
    out: &mut dyn Write,
    planned: &[Planned],
    metadata: &BTreeMap<String, String>,
    dtype: DType,
    emit: &mut Emit,
) -> io::Result<()> {
    let mut header = Vec::new();
    let text = |header: &mut Vec<u8>, text: &str| {
        header.extend((text.len() as u64).to_le_bytes());
        header.extend(text.as_bytes());
    };
    // llama.cpp's numbers of kinds of files.
    let kind: u32 = match dtype {
        DType::Q4_0 => 2,
        DType::Q8_0 => 7,
        DType::Q4K => 14,
        _ => 1,
    };
    let numbers = [("general.file_type", kind), ("general.quantization_version", 2)];
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((planned.len() as u64).to_le_bytes());
    let texts = [("general.architecture".to_string(), architecture(planned).to_string())];
    let texts: Vec<_> = texts.iter().map(|(k, v)| (k, v)).chain(metadata).collect();
    header.extend(((texts.len() + numbers.len()) as u64).to_le_bytes());
    for (key, value) in texts {
        text(&mut header, key);
        header.extend(8u32.to_le_bytes());
        text(&mut header, value);
    }
    for (key, value) in numbers {
        text(&mut header, key);
        header.extend(4u32.to_le_bytes());
        header.extend(value.to_le_bytes());
    }
    let mut place = 0;
    for tensor in planned {
        text(&mut header, &tensor.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        for side in tensor.shape.iter().rev() {
            header.extend((*side as u64).to_le_bytes());
        }
        header.extend(number_of(tensor.dtype).unwrap_or_default().to_le_bytes());
        header.extend((place as u64).to_le_bytes());
        place += length(tensor).next_multiple_of(ALIGNMENT);
    }
    header.resize(header.len().next_multiple_of(ALIGNMENT), 0);
    out.write_all(&header)?;
    for (done, tensor) in planned.iter().enumerate() {
        emit(out, tensor, done, planned.len())?;
        let length = length(tensor);
        out.write_all(&vec![0; length.next_multiple_of(ALIGNMENT) - length])?;
    }
    Ok(())
}

/// What other programs call such a model.
fn architecture(planned: &[Planned]) -> &'static str {
    const SD2_WIDTH: usize = 1024;
    let reads = planned.iter().find(|tensor| tensor.name.ends_with("attn2.to_k.weight"));
    if planned.iter().any(|tensor| tensor.name.starts_with(super::ldm::XL)) {
        return "sdxl";
    }
    match reads.and_then(|tensor| tensor.shape.last()) {
        Some(&SD2_WIDTH) => "sd2",
        _ => "sd1",
    }
}

fn safetensors(
    out: &mut dyn Write,
    planned: &[Planned],
    metadata: &BTreeMap<String, String>,
    emit: &mut Emit,
) -> io::Result<()> {
    let mut json = serde_json::Map::new();
    json.insert("__metadata__".to_string(), json!(metadata));
    // Wide types first: then every tensor begins at a multiple of its element size.
    let sizes: BTreeSet<usize> = planned.iter().map(|tensor| tensor.dtype.size()).collect();
    let mut order = Vec::with_capacity(planned.len());
    for size in sizes.into_iter().rev() {
        order.extend(planned.iter().filter(|tensor| tensor.dtype.size() == size));
    }
    let mut place = 0;
    for tensor in &order {
        let end = place + length(tensor);
        let entry = json!({
            "dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [place, end],
        });
        json.insert(tensor.name.clone(), entry);
        place = end;
    }
    let mut header = Value::Object(json).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (done, tensor) in order.iter().enumerate() {
        emit(out, tensor, done, order.len())?;
    }
    Ok(())
}
