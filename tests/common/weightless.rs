//! Models without weights, for plans.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use mixofshow::graph::{Graph, Origin, ParameterError, ParameterInfo, ParameterSource, StoredAs};
use mixofshow::models::config::{ClipTextConfig, UNetConfig};
use mixofshow::scheduler::config::{PredictionType, SchedulerConfig};
use mixofshow::scheduler::schedule::NoiseSchedule;
use mixofshow::training::step::Models;
use serde_json::Value;

use super::published;

/// The parameters of some graphs, with no numbers behind them.
pub struct Nothing(HashMap<String, Vec<usize>>, StoredAs);

impl Nothing {
    pub fn of(graphs: &[&Graph], stored: StoredAs) -> Nothing {
        let nodes = graphs.iter().flat_map(|graph| graph.nodes());
        let parameters = nodes.filter_map(|node| match &node.origin {
            Origin::Parameter { name } => Some((name.clone(), node.shape.to_vec())),
            _ => None,
        });
        Nothing(parameters.collect(), stored)
    }
}

impl ParameterSource for Nothing {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        Some(ParameterInfo { shape: self.0.get(name)?.clone(), stored: self.1 })
    }

    fn read(
        &self,
        name: &str,
        _range: Range<usize>,
        _into: &mut [f32],
    ) -> Result<(), ParameterError> {
        Err(ParameterError::Read { name: name.into(), message: "there are no numbers".into() })
    }
}

/// Stable Diffusion XL, to be tuned.
pub fn models_xl(stored: StoredAs) -> Models {
    let (unet, first, second) = (published::unet_xl(), published::text_1(), published::text_xl());
    let built = [
        published::unet("UNet", &unet, 1, 64, 64, false),
        published::text("text encoder", &first, 1),
        published::text("second text encoder", &second, 1),
    ];
    let mut all = Nothing::of(&[&built[0].graph, &built[1].graph], stored);
    let own = Nothing::of(&[&built[2].graph], stored).0.into_iter();
    all.0.extend(own.map(|(name, shape)| (format!("text_encoder_2.{name}"), shape)));
    let second = ClipTextConfig::from_json(&second, Path::new("config.json")).unwrap();
    Models { second: Some(second), parameters: Arc::new(all), ..models(&unet, &first, stored) }
}

/// A UNet and a text encoder, to be tuned.
pub fn models(unet: &Value, text: &Value, stored: StoredAs) -> Models {
    let built =
        [published::unet("UNet", unet, 1, 64, 64, false), published::text("text encoder", text, 1)];
    let file = Path::new("config.json");
    Models {
        unet: UNetConfig::from_json(unet, file).unwrap(),
        text: ClipTextConfig::from_json(text, file).unwrap(),
        second: None,
        schedule: NoiseSchedule::of_training(&SchedulerConfig::parse("{}").unwrap()).unwrap(),
        prediction: PredictionType::Epsilon,
        parameters: Arc::new(Nothing::of(&[&built[0].graph, &built[1].graph], stored)),
    }
}
