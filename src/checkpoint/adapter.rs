//! LoRAs and embeddings that are folders: which files in them are meant.
use super::{Error, hub};
use std::path::{Path, PathBuf};

/// Names under which PEFT, diffusers and textual inversion's programs save, in the order in which
/// they are looked for.
const NAMES: [&str; 6] = [
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
    "learned_embeds.safetensors",
    "learned_embeds.bin",
];
/// Folders in which a LoRA of several networks has one file each.
const NETWORKS: [&str; 3] = ["text_encoder", "text_encoder_2", "unet"];
const ENDINGS: [&str; 4] = ["safetensors", "pt", "pth", "bin"];

/// The files of a LoRA, a concept or an embedding: the file itself, or those of a folder that PEFT
/// or diffusers wrote or that lies in Hugging Face's cache.
///
/// # Errors
/// A folder in which none is known, or several could be meant.
pub fn adapter_files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let folder = hub::snapshot(path)?;
    match known(&folder) {
        found if !found.is_empty() => return Ok(found),
        _ if super::Folder::disk(&folder).has("model_index.json") => {
            let problem =
                "a folder of a whole model, where a LoRA or a concept was expected".to_string();
            return Err(Error::Unrecognised { path: folder, problem });
        }
        _ => {}
    }
    let entries = std::fs::read_dir(&folder).map_err(Error::io(&folder, "read"))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    for ending in ENDINGS {
        let of: Vec<&PathBuf> =
            files.iter().filter(|file| file.extension().is_some_and(|e| e == ending)).collect();
        match of[..] {
            [] => {}
            [only] => return Ok(vec![only.clone()]),
            [first, ..] => {
                let name = first.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                let problem = format!(
                    "a folder with {} files that could be meant: name one, such as {name}",
                    of.len()
                );
                return Err(Error::Unrecognised { path: folder, problem });
            }
        }
    }
    let problem =
        "a folder in which there is no file of a LoRA, a concept or an embedding".to_string();
    Err(Error::Unrecognised { path: folder, problem })
}

/// The files of a folder by the names that programs give them; none where there are none.
pub(super) fn known(folder: &Path) -> Vec<PathBuf> {
    let in_folder =
        |folder: &Path| NAMES.iter().map(|name| folder.join(name)).find(|file| file.is_file());
    match in_folder(folder) {
        Some(file) => vec![file],
        None => NETWORKS.iter().filter_map(|network| in_folder(&folder.join(network))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_folder_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let make = |name: &str| {
            let path = at.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let problem = || adapter_files(at).unwrap_err().to_string();
        assert_eq!(adapter_files(&at.join("none")).unwrap(), [at.join("none")]);
        assert!(problem().contains("no file of a LoRA"));
        let one = make("some.safetensors");
        assert_eq!(adapter_files(at).unwrap(), [one]);
        make("other.safetensors");
        assert!(problem().contains("2 files") && problem().contains("other.safetensors"));
        let unet = make("unet/adapter_model.safetensors");
        assert_eq!(adapter_files(at).unwrap(), std::slice::from_ref(&unet));
        let text = make("text_encoder/adapter_model.bin");
        assert_eq!(adapter_files(at).unwrap(), [text, unet]);
        let whole = make("adapter_model.safetensors");
        assert_eq!(adapter_files(at).unwrap(), [whole]);
        let cached = make("models--a--b/snapshots/1/pytorch_lora_weights.safetensors");
        assert_eq!(adapter_files(&at.join("models--a--b")).unwrap(), [cached]);
        make("model/model_index.json");
        assert!(adapter_files(&at.join("model")).unwrap_err().to_string().contains("whole model"));
    }
}
