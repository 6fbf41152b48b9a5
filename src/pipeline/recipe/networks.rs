//! Networks that web UIs name in prompts, as in `<lora:ink:0.8>`.
use std::fmt;

/// What they call networks.
const KINDS: [&str; 4] = ["lora", "lyco", "loha", "hypernet"];

/// A network that a prompt names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptNetwork {
    /// `lora`, `lyco`, `loha` or `hypernet`.
    pub kind: String,
    /// Its name, as that of a file without the ending.
    pub name: String,
    /// What stands behind: `0.8`, or `te=0.5`, `unet=1`.
    pub strengths: Vec<String>,
}

impl PromptNetwork {
    /// How strong it is in the UNet and in the text encoder, by the rule of web UIs: of numbers
    /// alone the first is the text encoder's, and the second, or else the first, the UNet's.
    ///
    /// # Errors
    /// What is no number, or has another name.
    pub fn scales(&self) -> Result<[f32; 2], String> {
        let number = |text: &str| match text.trim().parse::<f32>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(format!("{}: its strength is `{text}`, expected a number", self.name)),
        };
        let (mut plain, mut unet, mut text) = (Vec::new(), None, None);
        for strength in &self.strengths {
            match strength.split_once('=').map(|(name, value)| (name.trim(), value)) {
                None => plain.push(number(strength)?),
                Some(("unet", value)) => unet = Some(number(value)?),
                Some(("te", value)) => text = Some(number(value)?),
                Some((name, _)) => {
                    let words = "no strength is called so, expected te or unet";
                    return Err(format!("{}: `{name}`: {words}", self.name));
                }
            }
        }
        let text = text.or(plain.first().copied()).unwrap_or(1.0);
        Ok([unet.or(plain.get(1).copied()).unwrap_or(text), text])
    }
}

/// As people read it.
impl fmt::Display for PromptNetwork {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let strengths = self.strengths.join(", ");
        let strengths = if strengths.is_empty() { "1" } else { &strengths };
        write!(f, "{} ({strengths})", self.name)
    }
}

/// A prompt without the networks that it names, which web UIs take out of the text; and those.
pub fn without_networks(prompt: &str) -> (String, Vec<PromptNetwork>) {
    let mut text = String::new();
    let mut networks = Vec::new();
    let mut rest = prompt;
    while let Some((before, after)) = rest.split_once('<') {
        let inside = after.split_once('>').filter(|(inside, _)| {
            let kind = inside.split(':').next().unwrap_or_default();
            inside.contains(':') && KINDS.contains(&kind)
        });
        text += before;
        match inside {
            Some((inside, after)) => {
                let mut parts = inside.split(':').map(str::to_string);
                let (kind, name) = (parts.next(), parts.next());
                let [kind, name] = [kind, name].map(Option::unwrap_or_default);
                networks.push(PromptNetwork { kind, name, strengths: parts.collect() });
                rest = after;
            }
            None => {
                text.push('<');
                rest = after;
            }
        }
    }
    text += rest;
    (if networks.is_empty() { text } else { text.trim().to_string() }, networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strengths_are_read_as_in_web_uis() {
        for (text, unet, encoder) in [
            ("<lora:a>", 1.0, 1.0),
            ("<lora:a:0.5>", 0.5, 0.5),
            ("<lora:a:0.5:0.8>", 0.8, 0.5),
            ("<lora:a:te=0.5:unet=0.2>", 0.2, 0.5),
            ("<lyco:a:0.5:unet=-1>", -1.0, 0.5),
        ] {
            let (rest, networks) = without_networks(&format!("a cat {text} "));
            assert_eq!(rest, "a cat");
            assert_eq!(networks[0].scales(), Ok([unet, encoder]), "{text}");
        }
        for wrong in ["<lora:a:x>", "<lora:a:dyn=1>", "<lora:a:nan>"] {
            let (_, networks) = without_networks(wrong);
            assert!(networks[0].scales().unwrap_err().contains("expected"), "{wrong}");
        }
        assert_eq!(without_networks("<zorp1> < <lora>"), ("<zorp1> < <lora>".into(), vec![]));
    }
}
