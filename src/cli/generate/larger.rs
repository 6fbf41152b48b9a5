//! A second pass over a larger picture, and small networks from files, on the command line.
use std::path::{Path, PathBuf};

use mixofshow::NumberRange as Range;
use mixofshow::checkpoint::{Component, open_tiny_vae, open_upscaler};
use mixofshow::pipeline::recipe::{Recipe, Source};
use mixofshow::pipeline::{Hires, Upscaler};

use super::source;
use crate::cli::terminal::Terminal;
use crate::cli::{Failure, Result, files};

const HEADING: &str = "Larger pictures";

#[derive(clap::Args)]
pub struct Larger {
    /// Make the picture, then a larger one from it: so many times as large along each side; 1: no
    ///
    /// As web UIs do: the picture is sampled at its size, enlarged, laid under noise and sampled
    /// again. The result is larger by this factor.
    #[arg(long, value_name = "FACTOR", help_heading = HEADING)]
    #[arg(value_parser = factor)]
    hires: Option<f64>,
    /// What enlarges it: latent, latent-nearest, latent-nearest-exact, latent-bicubic, lanczos, or a
    /// file of an upscaler of ESRGAN's kind [default: latent]
    #[arg(long, value_name = "NAME_OR_FILE", help_heading = HEADING)]
    hires_upscaler: Option<String>,
    /// How much of the enlarged picture is changed, above 0 to 1 [default: 0.7]
    #[arg(long, value_name = "SHARE", help_heading = HEADING)]
    #[arg(value_parser = Range::POSITIVE_SHARE.parser::<f64>())]
    hires_strength: Option<f64>,
    /// Steps of the second pass's whole schedule, of which --hires-strength is a share [default:
    /// --steps]
    #[arg(long, value_name = "COUNT", help_heading = HEADING)]
    #[arg(value_parser = Range::COUNT.parser::<usize>())]
    hires_steps: Option<usize>,
    /// Decode, and preview, by a small autoencoder: a file of TAESD, its author's or diffusers', or
    /// a folder
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    vae: Option<PathBuf>,
}

fn factor(text: &str) -> std::result::Result<f64, String> {
    let value: std::result::Result<f64, String> = Range::POSITIVE.parse(text);
    value
        .ok()
        .filter(|value| (1.0..=16.0).contains(value))
        .ok_or("expected a number from 1 to 16".into())
}

/// What was opened for a run.
pub struct Opened {
    pub vae: Option<Component>,
}

impl Larger {
    /// Replaces what the recipe says, and opens the files that it names.
    pub fn apply(
        &self,
        recipe: &mut Recipe,
        like: Option<&Path>,
        terminal: &Terminal,
    ) -> Result<Opened> {
        match self.hires {
            Some(scale) if scale > 1.0 => {
                recipe.request.hires.get_or_insert_with(Hires::default).scale = scale;
            }
            Some(_) => recipe.request.hires = None,
            None => {}
        }
        match &mut recipe.request.hires {
            Some(hires) => {
                hires.strength = self.hires_strength.unwrap_or(hires.strength);
                hires.steps = self.hires_steps.or(hires.steps);
            }
            None => {
                let given = [
                    ("--hires-upscaler", self.hires_upscaler.is_some()),
                    ("--hires-strength", self.hires_strength.is_some()),
                    ("--hires-steps", self.hires_steps.is_some()),
                ];
                if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
                    return Err(Failure::Usage(format!(
                        "{option} is about the second pass: --hires FACTOR asks for one"
                    )));
                }
                recipe.upscaler = None;
            }
        }
        self.upscaler(recipe, like, terminal)?;
        if let Some(path) = self.vae.as_ref().filter(|path| weights(path).is_dir()) {
            return Err(Failure::Usage(format!(
                "--vae {}: a folder without diffusion_pytorch_model.safetensors in it; expected a \
                    small autoencoder (TAESD), as a file or as such a folder",
                path.display()
            )));
        }
        let given = self.vae.as_ref().map(|path| Source::of(&weights(path))).transpose()?;
        recipe.vae = source(given, recipe.vae.take(), "--vae", like, terminal)?;
        let vae = recipe.vae.as_ref().map(|vae| open_tiny_vae(&vae.path)).transpose()?;
        Ok(Opened { vae })
    }

    fn upscaler(
        &self,
        recipe: &mut Recipe,
        like: Option<&Path>,
        terminal: &Terminal,
    ) -> Result<()> {
        let Some(hires) = &mut recipe.request.hires else { return Ok(()) };
        let mut given = None;
        if let Some(name) = &self.hires_upscaler {
            recipe.upscaler = None;
            match Upscaler::named(name) {
                Some(upscaler) => hires.upscaler = upscaler,
                None => {
                    let path = files::model(name).unwrap_or_else(|| PathBuf::from(name));
                    if !path.is_file() {
                        return Err(Failure::Usage(format!(
                            "--hires-upscaler {name}: expected latent, latent-nearest, \
                                latent-nearest-exact, latent-bicubic, lanczos or a file"
                        )));
                    }
                    given = Some(Source::of(&path)?);
                }
            }
        }
        let found = source(given, recipe.upscaler.take(), "--hires-upscaler", like, terminal)?;
        if let Some(file) = &found {
            hires.upscaler = Upscaler::Network(open_upscaler(&file.path)?);
        }
        recipe.upscaler = found;
        Ok(())
    }
}

/// The file of a folder in diffusers' layout; another path as it is.
fn weights(path: &Path) -> PathBuf {
    let named = files::model(&path.to_string_lossy()).unwrap_or_else(|| path.to_path_buf());
    let inside = named.join("diffusion_pytorch_model.safetensors");
    if inside.is_file() { inside } else { named }
}
