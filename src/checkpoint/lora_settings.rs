//! What a LoRA's settings say of its strength, where they stand outside of its tensors: PEFT's
//! `adapter_config.json` beside the file, the same settings in the metadata that diffusers writes,
//! kohya's `ss_network_alpha`.
use super::{Error, TensorFile};
use serde_json::{Value, json};
use std::path::Path;

/// PEFT's file of settings, beside the weights.
const CONFIG: &str = "adapter_config.json";
/// What the names of all tensors begin with that PEFT writes itself.
const WRAPPED: &str = "base_model.model.";
/// The metadata in which diffusers keeps PEFT's settings as JSON, each behind its network's name.
const METADATA: &str = "lora_adapter_metadata";
/// PEFT's kinds of changes that this program has.
const KINDS: [&str; 4] = ["LORA", "LOHA", "LOKR", "IA3"];
/// Settings that make another change of a LoRA, and what it is called.
const OTHERS: [(&str, &str); 5] = [
    ("use_qalora", "a QALoRA"),
    ("use_bdlora", "a LoRA in blocks"),
    ("kasa_config", "a KaSA"),
    ("alora_invocation_tokens", "an activated LoRA"),
    ("arrow_config", "an Arrow"),
];
/// PEFT's alpha where its settings do not name any.
const PEFTS_ALPHA: f64 = 8.0;
const KOHYAS_ALPHA: &str = "ss_network_alpha";
const KOHYAS_RANK: &str = "ss_network_dim";

/// Settings of PEFT's `LoraConfig`, or what comes to the same.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraSettings {
    place: String,
    values: Value,
    /// As PEFT writes them.
    is_pefts: bool,
}

/// How strong the update of one layer is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// To be divided by the rank.
    pub alpha: f32,
    /// To be divided by the rank's square root instead (rsLoRA).
    pub stabilised: bool,
    /// The rank by the settings, where they tell it.
    pub rank: Option<usize>,
    /// The settings name no alpha, and PEFT's usual one is taken.
    pub is_usual: bool,
}

impl LoraSettings {
    /// The settings that belong to a file; none where there are none.
    ///
    /// # Errors
    /// Settings that cannot be read, and those of a kind of change that this program does not have,
    /// by its name.
    pub fn of(file: &TensorFile) -> Result<Option<Self>, Error> {
        let found = match Self::beside(file)? {
            Some(found) => Some(found),
            None => Self::within(file)?,
        };
        match found.as_ref().and_then(Self::unusable) {
            Some(problem) => Err(Error::Unrecognised { path: file.path().to_path_buf(), problem }),
            None => Ok(found),
        }
    }

    fn beside(file: &TensorFile) -> Result<Option<Self>, Error> {
        // A file of another name may lie beside the settings of a stranger.
        let own_name = file.path().file_stem().is_some_and(|stem| stem == "adapter_model");
        if !own_name && !file.names().any(|name| name.starts_with(WRAPPED)) {
            return Ok(None);
        }
        let path = file.path().with_file_name(CONFIG);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path, "read"))?,
        };
        let values = parsed(&path, &text)?;
        Ok(Some(LoraSettings { place: CONFIG.to_string(), values, is_pefts: true }))
    }

    fn within(file: &TensorFile) -> Result<Option<Self>, Error> {
        if let Some(text) = file.metadata().get(METADATA) {
            let place = format!("the metadata `{METADATA}`");
            let values = parsed(file.path(), text).map_err(|e| match e {
                Error::Json { path, problem } => {
                    Error::Json { path, problem: format!("metadata `{METADATA}`: {problem}") }
                }
                other => other,
            })?;
            return Ok(Some(LoraSettings { place, values, is_pefts: true }));
        }
        let number = |key: &str| {
            file.metadata().get(key)?.trim().parse::<f64>().ok().filter(|n| n.is_finite())
        };
        // "None" is kohya's word for alpha as large as the rank.
        Ok(number(KOHYAS_ALPHA).map(|alpha| LoraSettings {
            place: format!("the metadata `{KOHYAS_ALPHA}`"),
            values: json!({"lora_alpha": alpha, "r": number(KOHYAS_RANK)}),
            is_pefts: false,
        }))
    }

    /// Where they stand, in words.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The first key of that name, behind any network's.
    fn any(&self, key: &str) -> impl Iterator<Item = &Value> {
        let entries = self.values.as_object().into_iter().flatten();
        entries
            .filter(move |(name, _)| name.rsplit('.').next() == Some(key))
            .map(|(_, value)| value)
    }

    /// Why such a change cannot be used.
    fn unusable(&self) -> Option<String> {
        let kind = self
            .any("peft_type")
            .filter_map(Value::as_str)
            .find(|kind| !KINDS.iter().any(|known| kind.eq_ignore_ascii_case(known)));
        if let Some(kind) = kind {
            return Some(format!(
                "{} says that the change is of the kind {kind}, which is not supported; LoRA, \
                    LoHa, LoKr and IA3 are",
                self.place
            ));
        }
        let is_on = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Object(entries) => !entries.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        };
        let (key, called) = OTHERS.into_iter().find(|(key, _)| self.any(key).any(is_on))?;
        Some(format!(
            "{} says that the change is {called} ({key}), which is not supported; LoRA is",
            self.place
        ))
    }

    /// Ways to begin that change the model's own weights too, which the file does not hold.
    pub fn unusual_start(&self) -> Option<&str> {
        const OWN: [&str; 4] = ["pissa", "olora", "corda", "loftq"];
        let ways = self.any("init_lora_weights").filter_map(Value::as_str);
        ways.into_iter().find(|way| OWN.iter().any(|own| way.to_lowercase().starts_with(own)))
    }

    /// The change is a LoKr of PEFT's.
    pub fn is_lokr(&self) -> bool {
        let mut kinds = self.any("peft_type").filter_map(Value::as_str);
        kinds.any(|kind| kind.eq_ignore_ascii_case("LOKR"))
    }

    /// Whether an IA3 scales what a layer reads; none where nothing is said.
    ///
    /// # Errors
    /// A pattern that is no regular expression: a sentence.
    pub fn is_feedforward(&self, layer: &str) -> Result<Option<bool>, String> {
        let wrong = |e: String| format!("{}: `feedforward_modules`: {e}", self.place);
        match self.any("feedforward_modules").find(|value| !value.is_null()) {
            None => Ok(None),
            Some(Value::String(pattern)) => {
                fits(&format!("^{pattern}$"), layer).map(Some).map_err(wrong)
            }
            Some(value) => {
                let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                Ok(Some(names.into_iter().any(|name| layer.ends_with(name))))
            }
        }
    }

    /// What is said of a layer of `network` (`unet` or `text_encoder`); none where nothing is.
    ///
    /// # Errors
    /// A pattern that is no regular expression, an alpha that is no number: a sentence.
    pub fn scaling(&self, network: &str, layer: &str) -> Result<Option<Scaling>, String> {
        let of = |key: &str| {
            let own = self.values.get(format!("{network}.{key}"));
            own.or_else(|| self.values.get(key)).filter(|value| !value.is_null())
        };
        let number = |key: &str, value: &Value| {
            let found = value.as_f64().filter(|n| n.is_finite());
            found.ok_or_else(|| format!("{}: `{key}` is {value}, expected a number", self.place))
        };
        let chosen = |patterns: &str, usual: &str| {
            for (key, value) in of(patterns).and_then(Value::as_object).into_iter().flatten() {
                if fits(key, layer).map_err(|e| format!("{}: `{patterns}`: {e}", self.place))? {
                    return number(patterns, value).map(Some);
                }
            }
            of(usual).map(|value| number(usual, value)).transpose()
        };
        // Kinds other than LoRA have it under a shorter name.
        let key = if of("lora_alpha").is_some() { "lora_alpha" } else { "alpha" };
        // PEFT's where it is about the network at all.
        let usual = || {
            let of_network = format!("{network}.");
            let own = |name: &String| !name.contains('.') || name.starts_with(&of_network);
            let any = self.values.as_object().is_some_and(|all| all.keys().any(own));
            (self.is_pefts && any).then_some(PEFTS_ALPHA)
        };
        let named = chosen("alpha_pattern", key)?;
        let Some(alpha) = named.or_else(usual) else { return Ok(None) };
        let rank =
            chosen("rank_pattern", "r")?.filter(|rank| *rank >= 1.0).map(|rank| rank as usize);
        let stabilised = of("use_rslora").and_then(Value::as_bool) == Some(true);
        Ok(Some(Scaling { alpha: alpha as f32, stabilised, rank, is_usual: named.is_none() }))
    }
}

fn parsed(path: &Path, text: &str) -> Result<Value, Error> {
    let bad = |problem: String| Error::Json { path: path.to_path_buf(), problem };
    let value: Value = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(bad("expected an object of settings".to_string()))
    }
}

/// PEFT's rule: a key is a regular expression for the last parts of a layer's name, or with `^` for
/// its first.
fn fits(key: &str, layer: &str) -> Result<bool, String> {
    let expression = match key.starts_with('^') {
        true => key.to_string(),
        false => format!(r"^(.*\.)?({key})$"),
    };
    let wrong =
        |error: fancy_regex::Error| format!("the key `{key}` is no regular expression: {error}");
    let expression = fancy_regex::Regex::new(&expression).map_err(wrong)?;
    // Newer transformers leave `text_model.` out of their names.
    let names = [Some(layer), layer.strip_prefix("text_model.")];
    for name in names.into_iter().flatten() {
        if expression.is_match(name).map_err(wrong)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(values: Value) -> LoraSettings {
        LoraSettings { place: "here".to_string(), values, is_pefts: true }
    }

    #[test]
    fn patterns_mean_what_they_mean_in_peft() {
        let layer = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
        for (key, expected) in [
            ("to_q", true),
            ("attn1.to_q", true),
            ("attn2.to_q", false),
            ("o_q", false),
            ("to_", false),
            (r"attn\d.to_(q|k)", true),
            (r"down_blocks\.\d+\.attentions\.1\..*", true),
            ("^down_blocks", true),
            ("^to_q", false),
            (layer, true),
        ] {
            assert_eq!(fits(key, layer), Ok(expected), "{key}");
        }
        assert!(fits("(", layer).unwrap_err().contains("`(`"));
        assert_eq!(fits("^encoder.layers.0", "text_model.encoder.layers.0.mlp.fc1"), Ok(true));
    }

    #[test]
    fn what_ia3_scales_is_told_by_names() {
        let layer = "a.ff.net.2";
        let of = |value| settings(json!({"feedforward_modules": value})).is_feedforward(layer);
        assert_eq!(of(json!(["to_k", "ff.net.2"])), Ok(Some(true)));
        assert_eq!(of(json!([])), Ok(Some(false)));
        assert_eq!(of(json!(".*net.2")), Ok(Some(true)));
        assert_eq!(of(Value::Null), Ok(None));
        assert!(of(json!("(")).unwrap_err().contains("feedforward_modules"));
    }

    #[test]
    fn the_first_pattern_that_fits_counts() {
        let all = settings(json!({
            "r": 4, "lora_alpha": 8, "use_rslora": true, "rank_pattern": {"attn1.to_q": 2},
            "alpha_pattern": {"to_k": 3, "attn1.*": 5, "to_q": 7},
        }));
        let of = |layer: &str| all.scaling("unet", layer).unwrap().unwrap();
        let scaling =
            |alpha, rank| Scaling { alpha, stabilised: true, rank: Some(rank), is_usual: false };
        assert_eq!(of("a.attn1.to_k"), scaling(3.0, 4));
        assert_eq!(of("a.attn1.to_q"), scaling(5.0, 2));
        assert_eq!((of("a.attn2.to_q").alpha, of("a.attn2.to_v").alpha), (7.0, 8.0));
        let each = settings(json!({"unet.lora_alpha": 2, "text_encoder.lora_alpha": 6}));
        assert_eq!(each.scaling("unet", "a").unwrap().unwrap().alpha, 2.0);
        assert_eq!(each.scaling("text_encoder", "a").unwrap().unwrap().alpha, 6.0);
        let without = |values| settings(values).scaling("unet", "a").unwrap();
        let usual = Scaling { alpha: 8.0, stabilised: false, rank: Some(4), is_usual: true };
        assert_eq!(without(json!({"r": 4})), Some(usual));
        assert_eq!(without(json!({"unet.r": 4})), Some(usual));
        assert_eq!(without(json!({"text_encoder.r": 4})), None);
        let of_kohya = LoraSettings { is_pefts: false, ..settings(json!({"r": 4})) };
        assert_eq!(of_kohya.scaling("unet", "a"), Ok(None));
        assert!(
            settings(json!({"lora_alpha": "much"}))
                .scaling("unet", "a")
                .unwrap_err()
                .contains("much")
        );
    }

    #[test]
    fn other_changes_are_refused_by_name() {
        let problem = |values| settings(values).unusable();
        assert_eq!(problem(json!({"peft_type": "LORA", "use_dora": false})), None);
        assert!(problem(json!({"peft_type": "OFT"})).unwrap().contains("OFT"));
        for kind in ["LOHA", "LOKR", "IA3"] {
            assert_eq!(problem(json!({"peft_type": kind})), None);
        }
        assert_eq!(problem(json!({"use_dora": true})), None);
        // Off, as PEFT writes them all.
        let off = json!({"use_dora": false, "use_qalora": false, "kasa_config": null,
        "arrow_config": {}, "use_bdlora": null});
        assert_eq!(problem(off), None);
        assert!(problem(json!({"alora_invocation_tokens": [1]})).unwrap().contains("activated"));
        assert_eq!(
            settings(json!({"init_lora_weights": "pissa_niter_4"})).unusual_start(),
            Some("pissa_niter_4")
        );
        assert_eq!(settings(json!({"init_lora_weights": true})).unusual_start(), None);
    }
}
