//! `--control`: networks that steer pictures, as the command line names them.
use std::path::{Path, PathBuf};

use mixofshow::checkpoint::{self, Checkpoint, find};
use mixofshow::picture::Picture;
use mixofshow::picture::edges::CANNY_THRESHOLDS;
use mixofshow::pipeline::Control;
use mixofshow::pipeline::recipe::{ControlSource, Made, Source};

use super::{Failure, Result, files};

/// A `--control`.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    network: String,
    image: PathBuf,
    make: Option<Made>,
    weight: f32,
    start: f64,
    end: f64,
    name: String,
}

const KEYS: [&str; 6] = ["image", "make", "weight", "start", "end", "name"];

/// Reads `NETWORK:image=PICTURE` and what else there is to say after commas.
pub fn parse(text: &str) -> std::result::Result<Wanted, String> {
    // Paths have colons and commas too: only one before a key counts.
    let starts_a_key = |rest: &str| {
        KEYS.iter()
            .find(|key| rest.strip_prefix(**key).is_some_and(|rest| rest.starts_with('=')))
            .copied()
    };
    let colon = text.match_indices(':').find(|(at, _)| starts_a_key(&text[at + 1..]).is_some());
    let (at, _) =
        colon.ok_or("expected NETWORK:image=PICTURE, and after it what else there is to say")?;
    let (network, mut rest) = (text[..at].to_string(), &text[at + 1..]);
    if network.trim().is_empty() {
        return Err("no network before the colon: expected NETWORK:image=PICTURE".into());
    }
    let stem = Path::new(&network)
        .file_stem()
        .map_or_else(|| network.clone(), |stem| stem.to_string_lossy().into_owned());
    let mut wanted = Wanted {
        network,
        image: PathBuf::new(),
        make: None,
        weight: 1.0,
        start: 0.0,
        end: 1.0,
        name: stem,
    };
    while !rest.is_empty() {
        let key = starts_a_key(rest)
            .ok_or_else(|| format!("`{rest}` is none of {}", KEYS.join("=, ") + "="))?;
        let value = &rest[key.len() + 1..];
        let end = value
            .match_indices(',')
            .find(|(at, _)| starts_a_key(&value[at + 1..]).is_some())
            .map(|(at, _)| at);
        rest = end.map_or("", |end| &value[end + 1..]);
        let value = &value[..end.unwrap_or(value.len())];
        // Only paths may have commas that mean nothing here.
        if let Some(other) = other_key(value).filter(|_| key != "image") {
            return Err(format!("`{other}=` is none of {}", KEYS.join("=, ") + "="));
        }
        let number = || {
            value
                .trim()
                .parse::<f64>()
                .ok()
                .filter(|v| v.is_finite())
                .ok_or(format!("{key} is `{value}`: expected a number"))
        };
        let part = |part: f64| match (0.0..=1.0).contains(&part) {
            true => Ok(part),
            false => Err(format!("{key} is {part}: expected a part of the steps from 0 to 1")),
        };
        match key {
            "image" => wanted.image = value.into(),
            "name" => wanted.name = value.into(),
            "weight" => wanted.weight = number()? as f32,
            "start" => wanted.start = part(number()?)?,
            "end" => wanted.end = part(number()?)?,
            _ => wanted.make = Some(value.parse()?),
        }
    }
    if wanted.image.as_os_str().is_empty() {
        return Err("no image=PICTURE to steer by".into());
    }
    if wanted.name.trim().is_empty() {
        return Err("name= is empty: expected a name for regions to weigh it by".into());
    }
    if wanted.end <= wanted.start {
        return Err(format!(
            "end is {}: expected more than the start, {}",
            wanted.end, wanted.start
        ));
    }
    Ok(wanted)
}

/// What looks like a key after a comma, within a value.
fn other_key(value: &str) -> Option<&str> {
    let mut parts = value.split(',').skip(1).filter_map(|part| part.split_once('='));
    parts.find_map(|(key, _)| Some(key.trim()).filter(|key| !key.is_empty()))
}

/// What recipes say of them; their pictures are hashed.
pub fn sources(wanted: &[Wanted]) -> Result<Vec<ControlSource>> {
    let source = |wanted: &Wanted| -> Result<ControlSource> {
        let Wanted { network, image, make, weight, start, end, name } = wanted.clone();
        let image = Source::of(&image)?;
        Ok(ControlSource { network, network_hash: None, image, make, weight, start, end, name })
    };
    wanted.iter().map(source).collect()
}

/// What a network follows.
pub fn picture(control: &ControlSource) -> Result<Picture> {
    let picture = Picture::open(&control.image.path)?;
    let [strong, weak] = CANNY_THRESHOLDS;
    Ok(match control.make {
        None => picture,
        Some(Made::Canny) => picture.canny(strong, weak)?,
        Some(Made::Outline) => picture.outline()?,
    })
}

/// Refuses names that tell nothing apart.
pub fn check_names(controls: &[ControlSource]) -> Result<()> {
    for (i, control) in controls.iter().enumerate() {
        if controls[..i].iter().any(|other| other.name == control.name) {
            return Err(Failure::Usage(format!(
                "two controls are called `{}`: name=NAME tells them apart",
                control.name
            )));
        }
    }
    Ok(())
}

/// Opens the networks: inside of the model, else by path, else in the folder of models.
pub fn open(
    controls: &[ControlSource],
    pictures: Vec<Picture>,
    checkpoint: &Checkpoint,
) -> Result<Vec<Control>> {
    let open = |(source, picture): (&ControlSource, Picture)| -> Result<Control> {
        let network = match checkpoint.controls.get(&source.network) {
            Some(inside) => inside.clone(),
            None => match find(&source.network, files::models().as_deref())? {
                Some(path) => checkpoint::Control::open(&path)?,
                None => {
                    return Err(Failure::Usage(format!(
                        "--control {}: that is a whole model, not a network that steers one",
                        source.network
                    )));
                }
            },
        };
        let ControlSource { name, weight, start, end, .. } = source.clone();
        Ok(Control { name, network, picture, weight, start, end })
    };
    controls.iter().zip(pictures).map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_may_have_colons_and_commas() {
        let found =
            parse("C:\\nets\\a,b.safetensors:image=D:\\x, y.png,weight=0.5,make=canny,end=0.6")
                .unwrap();
        assert_eq!(found.network, "C:\\nets\\a,b.safetensors");
        assert_eq!(found.image, PathBuf::from("D:\\x, y.png"));
        assert_eq!(
            (found.weight, found.start, found.end, found.make),
            (0.5, 0.0, 0.6, Some(Made::Canny))
        );
        assert_eq!(parse("t2i_adapter:image=a.png").unwrap().name, "t2i_adapter");
        for (text, word) in [
            (":image=a", "no network"),
            (" :image=a", "no network"),
            ("net:image=a,name=", "name="),
            ("net", "image="),
            ("net:image=a,end=2", "end is 2"),
            ("net:image=a,start=0.5,end=0.5", "more than the start"),
            ("net:weight=1", "no image"),
            ("net:image=a,weight=x", "`x`"),
            ("net:make=dog,image=a", "dog"),
            ("net:image=a,weight=-1,foo=1", "`foo=` is none of image=, make="),
            ("net:image=a,name=x, foo =1", "`foo=` is none of"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
